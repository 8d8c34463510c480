//! Refusals as RFC 9457 problems with a stable `code`.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

#[derive(Debug)]
pub(crate) struct Problem {
    pub status: u16,
    pub code: String,
    pub detail: String,
    pub details: Option<Value>,
}

impl Problem {
    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self { status, code: code.into(), detail: detail.into(), details: None }
    }

    /// A form error: refused before any event.
    pub fn form(code: &str, detail: &str) -> Self {
        Self::new(400, code, detail)
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(404, "not_found", format!("there is no such {what}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.code.replace(['_', '-'], " ");
        let mut body = json!({
            "type": "about:blank", "title": title, "status": self.status, "code": self.code, "detail": self.detail
        });
        if let Some(details) = self.details {
            body["details"] = details;
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}
