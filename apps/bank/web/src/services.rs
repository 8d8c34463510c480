//! The bank's services, over their HTTP.

use std::time::Duration;

use serde_json::Value;

use crate::problem::Problem;

/// A service that does not answer by then counts as away.
const DEADLINE: Duration = Duration::from_secs(15);

pub(crate) struct Services {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Services {
    pub fn new(base: &str, token: &str) -> Self {
        Self { client: reqwest::Client::new(), base: base.trim_end_matches('/').into(), token: token.into() }
    }

    pub async fn get(&self, path: &str) -> Result<Value, Problem> {
        self.send(self.client.get(format!("{}{path}", self.base))).await
    }

    pub async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> Result<Value, Problem> {
        let mut request = self.client.post(format!("{}{path}", self.base)).json(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request).await
    }

    /// A stream of server-sent events.
    pub async fn stream(&self, path: &str) -> Result<reqwest::Response, reqwest::Error> {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        request.send().await?.error_for_status()
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Problem> {
        let away = |error: reqwest::Error| {
            tracing::warn!(%error, "a service did not answer");
            Problem::new(503, "unavailable", "the bank cannot do this right now; nothing is lost, try again")
        };
        let answer = request.bearer_auth(&self.token).timeout(DEADLINE).send().await.map_err(away)?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.map_err(away)?;
        if status < 400 {
            return Ok(body);
        }
        // What went wrong inside is for our log, not for the outside.
        if status >= 500 {
            tracing::error!(%body, "a service failed");
            return Err(Problem::new(
                503,
                "unavailable",
                "the bank cannot do this right now; nothing is lost, try again",
            ));
        }
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Err(Problem {
            status,
            code: text("code"),
            detail: text("detail"),
            details: body.get("details").cloned(),
        })
    }
}

/// One path segment.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
