//! A service's tables, below `/-/services/`.
//!
//! `GET NAME/state` tells them, a row a line; `POST NAME/rebuild` fills them again
//! and tells how far it is, a line now and then, the last with the phase `done`
//! or `failed`. Both want the header `daybook-state`.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Answer;
use crate::engine::{replay, setbacks, timers};
use crate::host::{Directory, Service};
use crate::machine::OWN;

pub(super) const SERVICES: &str = "services/";
/// A page of another site cannot send this header without asking first.
const HEADER: &str = "daybook-state";

pub(super) async fn serve(
    directory: &Directory,
    parts: &Parts,
    asked: &str,
    query: &[(String, String)],
) -> Result<Response, Answer> {
    let asked: Vec<&str> = asked[SERVICES.len()..].split('/').collect();
    match (&parts.method, asked.as_slice()) {
        _ if !parts.headers.contains_key(HEADER) => {
            Err(Answer::problem(404, "not-found", "this page wants the header daybook-state"))
        }
        (&Method::GET, [name, "state"]) => state(named(directory, name)?, query),
        (&Method::POST, [name, "rebuild"]) => rebuild(named(directory, name)?).await,
        _ => Err(Answer::problem(404, "not-found", "GET NAME/state or POST NAME/rebuild")),
    }
}

fn named<'a>(directory: &'a Directory, name: &str) -> Result<&'a Service, Answer> {
    directory.services.get(name).ok_or_else(|| {
        let mut names: Vec<&str> = directory.services.keys().map(String::as_str).collect();
        names.sort_unstable();
        let detail = format!("no service `{name}` runs here, only {}", names.join(", "));
        Answer::problem(404, "not-found", &detail)
    })
}

fn lines(body: Body) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Views, the own table, what was handled, what views could not take, timers: all that a rebuild makes again.
fn state(service: &Service, query: &[(String, String)]) -> Result<Response, Answer> {
    let wanted = query.iter().find(|(name, _)| name == "table").map(|(_, value)| value.as_str());
    let mut text = String::new();
    let mut tell = |table: &str, key: &[u8], value: &[u8]| {
        if wanted.is_some_and(|wanted| wanted != table) {
            return;
        }
        let value: Value = serde_json::from_slice(value)
            .unwrap_or_else(|_| String::from_utf8_lossy(value).into_owned().into());
        let key = String::from_utf8_lossy(key);
        text.push_str(&json!({ "table": table, "key": key, "value": value }).to_string());
        text.push('\n');
    };
    let told = service.state.look_again().and_then(|tables| {
        tables.each(b"view/", |(key, value)| {
            let rest = &key[b"view/".len()..];
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            let name = String::from_utf8_lossy(&rest[..end]).into_owned();
            tell(&name, rest.get(end + 1..).unwrap_or_default(), &value);
        })?;
        tables.each(OWN, |(key, value)| tell("kv", &key[OWN.len()..], &value))?;
        tables.each(replay::SEEN, |(key, value)| tell("handled", &key[replay::SEEN.len()..], &value))?;
        tables.each(setbacks::PARKED, |(_, value)| tell("parked", b"", &value))?;
        tables.each(timers::PREFIX, |(_, value)| tell("timers", b"", &value))
    });
    match told {
        Ok(()) => Ok(lines(Body::from(text))),
        Err(error) => Err(Answer::problem(503, "unavailable", &error.to_string())),
    }
}

async fn rebuild(service: &Service) -> Result<Response, Answer> {
    let (wish, reports) = mpsc::channel(64);
    if service.wishes.try_send(wish).is_err() {
        return Err(Answer::problem(409, "busy", "this service is being rebuilt already"));
    }
    let lines_of = stream::unfold(reports, |mut reports| async move {
        let report = reports.recv().await?;
        let mut line = serde_json::to_vec(&report).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), reports))
    });
    Ok(lines(Body::from_stream(lines_of)))
}
