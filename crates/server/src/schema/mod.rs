//! Machine-readable contract, generated from the types the server runs on.

mod asyncapi;
mod openapi;

use daybook_model::wire::{ClientMessage, Receipted, ServerMessage};
use daybook_model::{Event, NewEvent, Problem};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

pub use asyncapi::asyncapi;
pub use openapi::openapi;

/// JSON Schema of the event and of every message, in one bundle.
pub fn json_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Daybook protocol v1",
        "oneOf": [ { "$ref": "#/$defs/ClientMessage" }, { "$ref": "#/$defs/ServerMessage" } ],
        "$defs": definitions("#/$defs/")
    })
}

/// All shared types; references begin with `path`.
fn definitions(path: &str) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = path.trim_start_matches('#').trim_end_matches('/').to_owned().into();
    settings.meta_schema = None;
    let mut generator = SchemaGenerator::new(settings);
    generator.subschema_for::<ClientMessage>();
    generator.subschema_for::<ServerMessage>();
    generator.subschema_for::<NewEvent>();
    generator.subschema_for::<Event>();
    generator.subschema_for::<Problem>();
    generator.subschema_for::<Receipted>();
    Value::Object(generator.take_definitions(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` in `value`.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member {
                        Value::String(text) if name == "$ref" => found.push(text),
                        member => references(member, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn no_reference_points_nowhere() {
        for document in [json_schema(), openapi(), asyncapi()] {
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(found.len() > 5);
            for reference in found {
                assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
            }
        }
    }

    #[test]
    fn every_operation_is_in_the_bundle_and_in_asyncapi() {
        let (bundle, asyncapi) = (json_schema().to_string(), asyncapi().to_string());
        for op in ClientMessage::OPS.iter().chain(ServerMessage::OPS) {
            assert!(bundle.contains(&format!("\"const\":\"{op}\"")), "{op}");
            assert!(asyncapi.contains(&format!("\"{op}\"")), "{op}");
        }
    }

    #[test]
    fn every_route_is_in_openapi() {
        let source = include_str!("../http/mod.rs");
        let document = openapi();
        let routes: Vec<_> =
            source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(routes.len() > 10);
        for route in routes {
            assert!(document["paths"].get(route).is_some(), "{route}");
        }
    }
}
