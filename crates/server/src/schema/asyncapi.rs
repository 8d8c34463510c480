//! AsyncAPI 3 of the WebSocket.

use daybook_model::wire::{ClientMessage, ServerMessage};
use serde_json::{Map, Value, json};

use super::definitions;

/// Both directions, message by message.
pub fn asyncapi() -> Value {
    let mut messages = Map::new();
    let mut list = |ops: &[&str], direction: &str, schema: &str| -> Vec<Value> {
        let mut references = Vec::new();
        for op in ops {
            let name = format!("{direction}.{op}");
            let payload = json!({ "allOf": [
                { "$ref": format!("#/components/schemas/{schema}") },
                { "type": "object", "properties": { "op": { "const": op } } }
            ] });
            messages.insert(
                name.clone(),
                json!({ "name": op, "contentType": "application/json", "payload": payload }),
            );
            references.push(json!({ "$ref": format!("#/channels/session/messages/{name}") }));
        }
        references
    };
    let sent = list(ClientMessage::OPS, "client", "ClientMessage");
    let received = list(ServerMessage::OPS, "server", "ServerMessage");
    let in_channel: Map<String, Value> = messages
        .keys()
        .map(|name| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") })))
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Daybook event bus",
            "version": "1",
            "description": "Subprotocol daybook.v1.json. A text frame holds one message or an array of them."
        },
        "channels": { "session": { "address": "/v1/ws", "messages": in_channel } },
        "operations": {
            "client": { "action": "receive", "channel": { "$ref": "#/channels/session" }, "messages": sent },
            "server": { "action": "send", "channel": { "$ref": "#/channels/session" }, "messages": received }
        },
        "components": { "messages": messages, "schemas": definitions("#/components/schemas/") }
    })
}
