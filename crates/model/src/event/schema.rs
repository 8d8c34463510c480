//! JSON Schema of events, written by hand because their reading is.

use super::{Event, NewEvent};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

fn client_members() -> serde_json::Value {
    let text = |max: usize| serde_json::json!({ "type": "string", "minLength": 1, "maxLength": max });
    serde_json::json!({
        "specversion": { "const": "1.0" },
        "id": text(128), "source": text(1024), "type": text(128), "subject": text(256),
        "sequence": { "type": "string", "pattern": "^(0|[1-9][0-9]{0,19})$" },
        "correlationid": text(128), "causationid": text(128),
        "time": { "type": "string", "format": "date-time" },
        "datacontenttype": text(1024), "dataschema": text(1024), "traceparent": text(1024),
        "data": true,
        "data_base64": { "type": "string", "contentEncoding": "base64" }
    })
}

impl JsonSchema for NewEvent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NewEvent".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "A CloudEvent to publish; other members are extension attributes.",
            "required": ["specversion", "id", "type"],
            "properties": client_members()
        })
    }
}

impl JsonSchema for Event {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Event".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut members = client_members();
        let number = serde_json::json!({ "type": "string", "pattern": "^(0|[1-9][0-9]{0,19})$" });
        let server = serde_json::json!({
            "sessionid": { "type": "string" }, "authid": { "type": "string" },
            "recordedtime": { "type": "string", "format": "date-time" },
            "position": number, "batchfirst": number, "batchsize": number
        });
        if let (Some(all), serde_json::Value::Object(server)) = (members.as_object_mut(), server) {
            all.extend(server);
        }
        json_schema!({
            "type": "object",
            "description": "A CloudEvent of the log.",
            "required": ["specversion", "id", "source", "type", "correlationid", "sessionid", "time", "recordedtime", "position"],
            "properties": members
        })
    }
}
