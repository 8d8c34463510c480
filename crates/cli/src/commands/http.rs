//! The bus over HTTP, for what is not events: its problems become exit codes.

use std::time::Duration;

use daybook_model::Problem;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::Bus;
use crate::exit::{self, Failure, UNREACHABLE};

pub struct Http {
    client: reqwest::Client,
    bus: Bus,
}

impl Http {
    pub fn new(bus: &Bus) -> Result<Self, Failure> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build();
        Ok(Self { client: client.map_err(|e| Failure::failed(e.to_string()))?, bus: bus.clone() })
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.call(Method::POST, path, body).await
    }

    /// `Null` if the answer has no body.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let bus = self.bus.bus.trim_end_matches('/');
        let mut request = self.client.request(method, format!("{bus}{path}"));
        if let Some(token) = &self.bus.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let unreachable =
            |error: reqwest::Error| unreachable("bus", bus, &error, "is `daybook serve` or `daybook demo`");
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        if status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        if !status.is_success() {
            return Err(match serde_json::from_str::<Problem>(&text) {
                Ok(problem) => Failure::new(exit::of(problem.code), problem.to_string()),
                Err(_) => Failure::failed(format!("the bus answered {status}")),
            });
        }
        serde_json::from_str(&text).map_err(|e| Failure::failed(format!("the bus answered nonsense: {e}")))
    }
}

/// Of whoever was asked, a `what` at this address; `is` begins the question for the
/// command that should run there.
pub fn unreachable(what: &str, address: &str, error: &reqwest::Error, is: &str) -> Failure {
    if error.is_builder() {
        return Failure::usage(format!("`{address}` is no address of a {what}: expected http://HOST:PORT"));
    }
    // What is around the cause only repeats the address.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Failure::new(UNREACHABLE, format!("cannot reach the {what} at {address}: {cause}; {is} running there?"))
}

/// One segment of a path: everything but letters, digits and `-._~` is encoded.
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
