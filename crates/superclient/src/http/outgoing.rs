//! `svc:http`: another service's route, in this host or behind an address.
//!
//! # Promises
//! The answer is what the route answered, with `ok`, `status` and `json` beside
//! it. A service that is not known, or does not answer in time, is an error: a
//! handler comes again. What may change something there (all but GET) carries an
//! `idempotency-key` that a repeat makes again, and is not asked in a replay or by
//! a shadow.

use std::sync::LazyLock;
use std::time::Duration;

use daybook_model::{Data, NewEvent};
use mlua::{Lua, LuaSerdeExt, Value};

use super::{Answer, CORRELATION, DEPTH, Incoming, ask, query};
use crate::bindings::args;
use crate::engine::rejected;
use crate::json;
use crate::machine::{self, Call, Shared};

/// Longer chains are circles.
const DEPTH_MAX: u32 = 16;
const DEADLINE: Duration = Duration::from_secs(10);
/// Tells the other service that it was asked this before.
const IDEMPOTENCY: &str = "idempotency-key";

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(reqwest::Client::new);

/// A request to another service.
pub(crate) struct Asked {
    pub method: String,
    pub service: String,
    pub path: String,
    pub body: Option<serde_json::Value>,
    /// Of what changes something: the same in a repeat.
    pub key: Option<String>,
}

pub(crate) async fn call(
    lua: &Lua,
    shared: &Shared,
    call: &Call,
    method: String,
    service: String,
    path: String,
    body: Option<Value>,
) -> mlua::Result<Value> {
    let method = method.to_uppercase();
    if !path.starts_with('/') {
        return Err(mlua::Error::runtime(format!("svc:http: the path `{path}` does not begin with a slash")));
    }
    if call.depth >= DEPTH_MAX {
        return Err(mlua::Error::runtime(format!(
            "svc:http: {DEPTH_MAX} services wait for each other: they ask in a circle"
        )));
    }
    let body = body.map(|body| json::from_lua(lua, &body)).transpose()?;
    if method == "GET" {
        let answer = answer(lua, shared, call, Asked { method, service, path, body, key: None }).await?;
        return table(lua, answer);
    }
    machine::effects("svc:http, unless it is a GET,")?;
    let number = call.asked.get() + 1;
    call.asked.set(number);
    let key = call.derived(&format!("http/{number}")).to_string();
    if call.replaying {
        return rejected(lua, "replayed", "http", "it was asked then").map(Value::Table);
    }
    let recorded = || {
        let data = Data::json(&body).ok();
        NewEvent { data, ..NewEvent::new(key.clone(), format!("{method} {service} {path}")) }
    };
    if shared.outlet.records(recorded) {
        return table(lua, Answer { status: 200, body: None, is_problem: false, headers: Vec::new() });
    }
    shared.outlet.step("before another service was asked").await;
    let answer = answer(lua, shared, call, Asked { method, service, path, body, key: Some(key) }).await?;
    shared.outlet.step("after another service was asked").await;
    table(lua, answer)
}

/// What the other service says, here or elsewhere.
async fn answer(lua: &Lua, shared: &Shared, call: &Call, asked: Asked) -> mlua::Result<Answer> {
    if let Some(others) = shared.stand_in.get() {
        return others.ask(asked).map_err(mlua::Error::runtime);
    }
    let Asked { method, service, path, body, key } = asked;
    let directory =
        shared.directory.get().cloned().ok_or_else(|| mlua::Error::runtime("svc:http: no host is there"))?;
    let late = |_| mlua::Error::runtime(format!("svc:http: `{service}` did not answer within {DEADLINE:?}"));
    Ok(if directory.services.contains_key(&service) {
        let (route, text) = path.split_once('?').unwrap_or((&path, ""));
        let table = directory.table();
        match table.find(Some(&service), &method, route) {
            Err(answer) => answer,
            Ok((entry, params)) => {
                let incoming = Incoming {
                    method,
                    path: route.to_owned(),
                    params,
                    query: query(text),
                    json: body,
                    correlation: call.correlation.clone(),
                    headers: key.map(|key| (IDEMPOTENCY.to_owned(), key)).into_iter().collect(),
                    depth: call.depth + 1,
                    ..Incoming::default()
                };
                let asking = ask(&directory, &entry.service, entry.key.clone(), incoming);
                tokio::time::timeout(DEADLINE, asking).await.map_err(late)?
            }
        }
    } else if let Some(base) = directory.elsewhere.get(&service) {
        let asking = elsewhere(base, directory.token.as_deref(), call, &method, &path, body, key);
        let failed =
            |error: reqwest::Error| mlua::Error::runtime(format!("svc:http: `{service}` at {base}: {error}"));
        tokio::time::timeout(DEADLINE, asking).await.map_err(late)?.map_err(failed)?
    } else {
        let name = Value::String(lua.create_string(&service)?);
        let known = directory.services.keys().chain(directory.elsewhere.keys()).map(String::as_str);
        let unknown = args::unknown("svc:http: this host", &name, known).to_string();
        let unknown = unknown.trim_start_matches("runtime error: ");
        return Err(mlua::Error::runtime(format!(
            "{unknown}; a service elsewhere is named with --service {service}=http://…"
        )));
    })
}

async fn elsewhere(
    base: &str,
    token: Option<&str>,
    call: &Call,
    method: &str,
    path: &str,
    body: Option<serde_json::Value>,
    key: Option<String>,
) -> Result<Answer, reqwest::Error> {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap_or(reqwest::Method::GET);
    let mut request = CLIENT.request(method, format!("{}{path}", base.trim_end_matches('/')));
    if let Some(correlation) = &call.correlation {
        request = request.header(CORRELATION, correlation);
    }
    if let Some(key) = key {
        request = request.header(IDEMPOTENCY, key);
    }
    request = request.header(DEPTH, call.depth + 1);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
    Ok(Answer { status, body: Some(body), is_problem: false, headers: Vec::new() })
}

/// The answer's own members come first; `ok`, `status` and `json` lie behind them.
fn table(lua: &Lua, answer: Answer) -> mlua::Result<Value> {
    let body = json::to_lua(lua, &answer.body.unwrap_or_default())?;
    let beside = lua.create_table()?;
    beside.set("status", answer.status)?;
    beside.set("ok", answer.status < 400)?;
    beside.set("json", &body)?;
    let meta = lua.create_table()?;
    meta.set("__index", beside)?;
    let table = match &body {
        Value::Table(members) => {
            let is_array = members.metatable().is_some_and(|known| known == lua.array_metatable());
            meta.set(json::ARRAY, is_array)?;
            let Value::Table(copy) = json::copy(lua, &body)? else { return Ok(body) };
            copy
        }
        _ => lua.create_table()?,
    };
    table.set_metatable(Some(meta))?;
    Ok(Value::Table(table))
}
