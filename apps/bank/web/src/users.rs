//! Registering, signing in and out.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::Bank;
use crate::problem::Problem;
use crate::sessions::{Sessions, SignedIn};

/// A JSON object of the right media type.
pub(crate) fn form(headers: &HeaderMap, body: &Bytes) -> Result<Value, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().unwrap_or_default().trim() != "application/json" {
        return Err(Problem::new(415, "unsupported_media_type", "send application/json"));
    }
    let parsed: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::form("invalid_json", &format!("no JSON: {error}")))?;
    if parsed.is_object() { Ok(parsed) } else { Err(Problem::form("invalid_json", "expected a JSON object")) }
}

pub(crate) fn required<'a>(form: &'a Value, name: &str) -> Result<&'a str, Problem> {
    let text = form.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    text.ok_or_else(|| Problem::form("missing_field", &format!("`{name}` is missing")))
}

pub(crate) async fn register(
    State(bank): State<Arc<Bank>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let form = form(&headers, &body)?;
    let (username, password) = (required(&form, "username")?, required(&form, "password")?);
    let answer =
        bank.services.post("/users", &json!({ "username": username, "password": password }), None).await?;
    Ok(signed_in(&bank, &headers, &answer, StatusCode::CREATED))
}

pub(crate) async fn sign_in(
    State(bank): State<Arc<Bank>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let form = form(&headers, &body)?;
    let (username, password) = (required(&form, "username")?, required(&form, "password")?);
    bank.sessions.throttle(username)?;
    let answer = bank
        .services
        .post("/users/sign-in", &json!({ "username": username, "password": password }), None)
        .await;
    match answer {
        Ok(answer) => Ok(signed_in(&bank, &headers, &answer, StatusCode::OK)),
        Err(problem) => {
            if problem.code == "bad_credentials" {
                bank.sessions.failed(username);
            }
            Err(problem)
        }
    }
}

pub(crate) async fn sign_out(State(bank): State<Arc<Bank>>, headers: HeaderMap) -> Response {
    bank.sessions.end(&headers);
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, Sessions::expired_cookie())]).into_response()
}

fn signed_in(bank: &Bank, headers: &HeaderMap, answer: &Value, status: StatusCode) -> Response {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let roles = answer.get("roles").and_then(Value::as_array).into_iter().flatten();
    let roles = roles.filter_map(Value::as_str).map(str::to_owned).collect();
    let who = SignedIn { user: text("user"), username: text("username"), roles };
    let body = json!({ "user": shown(&who) });
    let cookie = bank.sessions.begin(who, headers);
    (status, [(header::SET_COOKIE, cookie)], axum::Json(body)).into_response()
}

pub(crate) fn shown(who: &SignedIn) -> Value {
    json!({ "id": who.user, "username": who.username, "roles": who.roles })
}
