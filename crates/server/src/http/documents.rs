//! The contract, as machines read it.

use axum::Json;
use serde_json::Value;

use crate::schema;

pub(super) async fn openapi() -> Json<Value> {
    Json(schema::openapi())
}

pub(super) async fn asyncapi() -> Json<Value> {
    Json(schema::asyncapi())
}
