//! A route's call: what the script gets, and what its answer becomes.

use std::rc::Rc;

use daybook_model::{Event, Position, Timestamp};
use mlua::{Lua, Table, Value};
use tokio::sync::watch;

use super::{Answer, Incoming};
use crate::bindings::results::Made;
use crate::bindings::{ctx, results};
use crate::engine::{instance, views};
use crate::json;
use crate::machine::{Call, Kind, Machine, RouteKey, describe};
use crate::report::{self, Invalid};

/// Waits for `?after=`, makes the tables of `?at=`.
pub(crate) async fn prepare(
    machine: &Machine,
    reached: &mut watch::Receiver<Position>,
    request: &Incoming,
    event: Option<&Event>,
) -> Result<Call, Answer> {
    let parameter =
        |name: &str| request.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let failed = |error: mlua::Error| Answer::problem(400, "invalid", &describe(&error));
    if let Some(after) = parameter("after") {
        let after: Position =
            after.parse().map_err(|_| Answer::problem(400, "invalid", "`after` is no position"))?;
        let waiting = views::wait(&machine.shared, reached, after);
        match tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await {
            Ok(result) => result.map_err(failed)?,
            Err(_) => {
                return Err(Answer::problem(504, "timeout", "the views have not come that far in time"));
            }
        }
    }
    let now = event.map_or_else(clock, |event| event.recordedtime);
    let mut call = Call::new(Kind::Route, uuid::Uuid::now_v7().to_string(), now);
    // Each request is a unit of work of its own, unless another's.
    call.correlation = Some(request.correlation.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string()));
    call.depth = request.depth;
    if event.is_none()
        && let Some(at) = parameter("at")
    {
        call.overlay = views::as_of(machine, at).await.map_err(failed)?.into();
        call.scratch = true;
        call.at = Some(at.to_owned());
    }
    Ok(call)
}

pub(crate) fn clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Runs the route's function.
pub(crate) async fn run(
    machine: &Machine,
    call: &Rc<Call>,
    route: &RouteKey,
    request: &Incoming,
    event: Option<&Event>,
) -> mlua::Result<Answer> {
    let lua = &machine.lua;
    let function = {
        let definitions = machine.shared.definitions.borrow();
        definitions.routes.iter().find(|known| known.key() == *route).map(|route| route.function.clone())
    };
    let function = function.ok_or_else(|| mlua::Error::runtime("the route is gone"))?;
    machine.budget.make_room(lua)?;
    let req = table(machine, request)?;
    let context = ctx::ctx(lua, call)?;
    let value: mlua::Result<Value> = match event {
        None => instance::timed(machine, function.call_async((req, context))).await,
        Some(event) => {
            let event = ctx::event(lua, event)?;
            instance::timed(machine, function.call_async((event, req, context))).await
        }
    };
    let placed = |error| machine.budget.placed(error, Some(&function));
    let value = value.map_err(placed)?;
    if event.is_some() {
        let body = if value.is_nil() {
            None
        } else {
            Some(json::from_lua(lua, unwrapped(&value)?.as_ref().unwrap_or(&value)).map_err(placed)?)
        };
        return Ok(Answer { status: 200, body, is_problem: false, headers: Vec::new() });
    }
    let made = [Made::Json, Made::Reject];
    if value.is_nil() {
        results::forgotten(call, &function, format_args!("the route {route}"), &value, &made)?;
    }
    answer(lua, call.correlation.as_deref(), &value).map_err(placed)
}

/// What `json(value)` wraps, if it is that.
fn unwrapped(value: &Value) -> mlua::Result<Option<Value>> {
    match (results::kind(value).as_deref(), value) {
        (Some("json"), Value::Table(table)) => table.raw_get("value").map(Some),
        _ => Ok(None),
    }
}

fn table(machine: &Machine, request: &Incoming) -> mlua::Result<Table> {
    let lua = &machine.lua;
    let req = lua.create_table()?;
    for (name, list) in
        [("params", &request.params), ("query", &request.query), ("headers", &request.headers)]
    {
        let table = lua.create_table()?;
        for (key, value) in list {
            table.set(key.as_str(), value.as_str())?;
        }
        req.set(name, table)?;
    }
    req.set("method", request.method.as_str())?;
    req.set("path", request.path.as_str())?;
    req.set("body", lua.create_string(&request.body)?)?;
    req.set(
        "json",
        match &request.json {
            Some(body) => json::to_lua(lua, body)?,
            None => Value::Table(lua.create_table()?),
        },
    )?;
    Ok(req)
}

/// Status and body that a route would answer with this value.
pub(crate) fn said(lua: &Lua, value: &Value) -> mlua::Result<(u16, serde_json::Value)> {
    let answer = answer(lua, None, value)?;
    Ok((answer.status, answer.body.unwrap_or_default()))
}

/// `json()` turns a rejection into a problem, anything else into 200.
fn answer(lua: &Lua, correlation: Option<&str>, value: &Value) -> mlua::Result<Answer> {
    let (inner, status) = match (results::kind(value).as_deref(), value) {
        (Some("json"), Value::Table(wrapped)) => {
            (wrapped.raw_get::<Value>("value")?, wrapped.raw_get::<Option<u16>>("status")?)
        }
        _ => (value.clone(), None),
    };
    let headers = headers(value)?;
    if let Value::Table(table) = &inner
        && table.raw_get::<Option<bool>>("ok").ok().flatten() == Some(false)
        && let Some(code) = table.raw_get::<Option<String>>("code")?
    {
        let usual = match code.as_str() {
            "invalid" => 400,
            "not_found" => 404,
            _ => 409,
        };
        // `json(entity:send(…), 201)` means 201 if it was taken.
        let status = status.filter(|status| *status >= 400).unwrap_or(usual);
        let details: Value = table.raw_get("details")?;
        let mut answer = Answer::problem(status, &code, &in_words(&code, &details));
        answer.headers = headers;
        if let (Some(body), false) =
            (answer.body.as_mut().and_then(|body| body.as_object_mut()), details.is_nil())
        {
            body.insert("details".into(), json::from_lua(lua, &details)?);
        }
        return Ok(answer);
    }
    let mut body = json::from_lua(lua, &inner)?;
    // Callers want to find what they started.
    if let Some(members) = body.as_object_mut()
        && members.get("ok") == Some(&serde_json::Value::Bool(true))
        && members.contains_key("events")
    {
        members.insert("correlationid".into(), correlation.into());
    }
    Ok(Answer { status: status.unwrap_or(200), body: Some(body), is_problem: false, headers })
}

/// What a person reads of a rejection: the field that does not fit, or the code.
fn in_words(code: &str, details: &Value) -> String {
    let text = |name: &str| match details {
        Value::Table(details) => details.raw_get::<Option<String>>(name).ok().flatten(),
        _ => None,
    };
    match (code, text("field"), text("reason")) {
        ("invalid", Some(field), Some(reason)) => format!("the field `{field}` {reason}"),
        _ => code.replace(['_', '-'], " "),
    }
}

/// Third argument of `json(value, status, headers)`.
fn headers(value: &Value) -> mlua::Result<Vec<(String, String)>> {
    let Value::Table(wrapped) = value else { return Ok(Vec::new()) };
    let Some(headers) = wrapped.raw_get::<Option<Table>>("headers").unwrap_or_default() else {
        return Ok(Vec::new());
    };
    let mut list = Vec::new();
    for pair in headers.pairs::<String, String>() {
        let (name, value) = pair?;
        let fits = axum::http::HeaderName::try_from(name.as_str()).is_ok()
            && axum::http::HeaderValue::try_from(value.as_str()).is_ok();
        if !fits {
            return Err(mlua::Error::runtime(format!(
                "json: `{name}` is no header with a value that can be sent"
            )));
        }
        list.push((name, value));
    }
    Ok(list)
}

/// What a caller is told when the script failed: what he did wrong, or where the
/// script went wrong. The source is for the log only.
pub(crate) fn failed(error: &mlua::Error) -> Answer {
    match Invalid::of(error) {
        Some(invalid) => Answer::problem(400, "invalid", &invalid.reason),
        None => Answer::problem(500, "script-error", report::headline(&describe(error))),
    }
}
