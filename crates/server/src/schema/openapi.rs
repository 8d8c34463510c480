//! OpenAPI 3.1 of the HTTP table.

use serde_json::{Map, Value, json};

use super::definitions;

/// All routes, their parameters and answers.
pub fn openapi() -> Value {
    let event = reference("Event");
    let events = json!({ "type": "array", "items": event });
    let receipt = json!({ "type": "object", "required": ["events"], "properties": {
        "events": { "type": "array", "items": reference("Receipted") } } });
    let group = json!({ "type": "object" });
    let mut paths = Map::new();
    let filters = ["from", "until", "type", "subject", "correlationid", "sessionid", "limit", "reverse"];
    paths.insert("/v1/events".into(), json!({
        "post": {
            "summary": "Store one event or an atomic batch",
            "parameters": [header("Daybook-Service"), header("Daybook-Delivery")],
            "requestBody": { "required": true, "content": {
                "application/cloudevents+json": { "schema": reference("NewEvent") },
                "application/cloudevents-batch+json": { "schema": { "type": "array", "items": reference("NewEvent") } }
            } },
            "responses": answers("201", "application/json", receipt)
        },
        "get": {
            "summary": "Events of the log; text/event-stream follows live",
            "parameters": filters.map(query).to_vec(),
            "responses": answers("200", "application/cloudevents-batch+json", events)
        }
    }));
    get(&mut paths, "/v1/events/{id}", "One event", &["id"], &[], "application/cloudevents+json", event);
    let subject = json!({ "type": "object", "properties": {
        "subject": { "type": "string" }, "events": { "type": "string" }, "last": { "type": "string" } } });
    let subjects = json!({ "type": "array", "items": subject });
    get(
        &mut paths,
        "/v1/subjects",
        "Keys by prefix",
        &[],
        &["prefix", "limit", "after"],
        "application/json",
        subjects,
    );
    get(&mut paths, "/v1/subjects/{subject}", "One key", &["subject"], &[], "application/json", subject);
    let groups = json!({ "type": "array", "items": group });
    get(&mut paths, "/v1/groups", "All groups", &[], &[], "application/json", groups.clone());
    get(&mut paths, "/v1/groups/{group}", "One group", &["group"], &[], "application/json", group);
    get(&mut paths, "/v1/groups/{group}/parked", "Parked keys", &["group"], &[], "application/json", groups);
    for action in ["retry", "skip"] {
        let parameters = [path("group"), path("subject"), query("dry_run")];
        paths.insert(
            format!("/v1/groups/{{group}}/parked/{{subject}}/{action}"),
            json!({
                "post": { "summary": format!("{action} a parked key"), "parameters": parameters,
                          "responses": { "200": { "description": "dry run: how many events would go on" },
                                         "204": { "description": "done" }, "default": problem() } }
            }),
        );
    }
    let key = ["group", "subject"];
    let object = json!({ "type": "object" });
    get(
        &mut paths,
        "/v1/groups/{group}/keys/{subject}",
        "Why a key is where it is",
        &key,
        &[],
        "application/json",
        object.clone(),
    );
    paths.insert(
        "/v1/groups/{group}/reset".into(),
        json!({
            "post": {
                "summary": "Begin a group without members anew",
                "parameters": [path("group")],
                "requestBody": { "required": true, "content": { "application/json": { "schema": {
                    "type": "object", "required": ["to"], "properties": {
                        "to": reference("Start"), "dry_run": { "type": "boolean" } } } } } },
                "responses": answers("200", "application/json", object)
            }
        }),
    );
    for (path, summary) in [
        ("/healthz", "Whether the process is well"),
        ("/readyz", "Whether it takes work"),
        ("/metrics", "Prometheus"),
    ] {
        get(&mut paths, path, summary, &[], &[], "text/plain", json!({ "type": "string" }));
    }
    for (path, summary) in
        [("/openapi.json", "This document"), ("/asyncapi.json", "The WebSocket's document")]
    {
        get(&mut paths, path, summary, &[], &[], "application/json", json!({ "type": "object" }));
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Daybook event bus", "version": "1" },
        "paths": paths,
        "components": { "schemas": definitions("#/components/schemas/") }
    })
}

fn get(
    paths: &mut Map<String, Value>,
    at: &str,
    summary: &str,
    in_path: &[&str],
    in_query: &[&str],
    kind: &str,
    schema: Value,
) {
    let parameters: Vec<Value> =
        in_path.iter().map(|name| path(name)).chain(in_query.iter().map(|name| query(name))).collect();
    let operation = json!({ "get": { "summary": summary, "parameters": parameters, "responses": answers("200", kind, schema) } });
    paths.insert(at.to_owned(), operation);
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn answers(status: &str, kind: &str, schema: Value) -> Value {
    json!({ status: { "description": "ok", "content": { kind: { "schema": schema } } }, "default": problem() })
}

fn problem() -> Value {
    json!({ "description": "refused", "content": { "application/problem+json": { "schema": reference("Problem") } } })
}

fn query(name: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": { "type": "string" } })
}

fn path(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
}

fn header(name: &str) -> Value {
    json!({ "name": name, "in": "header", "schema": { "type": "string" } })
}
