//! What the host does around a script: entities, commands, atomic batches, and
//! the instance that drives handlers and views.

pub(crate) mod atomic;
pub(crate) mod commands;
pub(crate) mod common;
pub(crate) mod entities;
pub(crate) mod ids;
pub(crate) mod instance;
pub(crate) mod keeper;
pub(crate) mod outlet;
pub(crate) mod progress;
pub(crate) mod publishing;
pub(crate) mod replay;
pub(crate) mod setbacks;
pub(crate) mod snapshots;
pub(crate) mod timers;
pub(crate) mod views;

use daybook_model::{Data, Event, ExtensionValue, NewEvent, Position, Sequence};
use mlua::{Lua, Table, Value};

use crate::json;
use crate::machine::{Call, Shared};
use crate::room::Room;

/// An event as the host makes it: correlated, caused, signed by the script.
pub(crate) fn new_event(
    lua: &Lua,
    shared: &Shared,
    call: &Call,
    id: String,
    kind: &str,
    subject: Option<String>,
    data: &Value,
) -> mlua::Result<NewEvent> {
    let data = match data {
        Value::Nil => serde_json::Value::Object(serde_json::Map::new()),
        data => json::from_lua(lua, data)?,
    };
    Ok(NewEvent {
        subject,
        correlationid: call.correlation.clone(),
        causationid: call.cause.as_ref().map(|event| event.id.clone()),
        extensions: vec![("scripthash".into(), ExtensionValue::String(shared.script_hash.clone()))],
        data: Some(Data::json(&data).map_err(mlua::Error::external)?),
        ..NewEvent::new(id, kind)
    })
}

/// A new event as the stored one it would become, for `evolve` before it is published.
pub(crate) fn imagined(new: &NewEvent, sequence: Option<u64>, call: &Call) -> Event {
    Event {
        id: new.id.clone(),
        source: String::new(),
        kind: new.kind.clone(),
        subject: new.subject.clone(),
        sequence: sequence.map(Sequence),
        correlationid: new.correlationid.clone().unwrap_or_default(),
        causationid: new.causationid.clone(),
        sessionid: String::new(),
        authid: None,
        time: call.now.to_string(),
        recordedtime: call.now,
        position: Position::ZERO,
        batch: None,
        datacontenttype: None,
        dataschema: None,
        traceparent: None,
        extensions: new.extensions.clone(),
        data: new.data.clone(),
    }
}

/// `{ ok = true, events = {…}, position = …, duplicate = … }`
pub(crate) fn accepted(
    lua: &Lua,
    ids: &[(String, String)],
    position: Option<Position>,
    duplicate: bool,
) -> mlua::Result<Table> {
    let _room = Room::take(lua, ids.iter().map(|(id, kind)| id.len() + kind.len()).sum());
    let answer = lua.create_table_with_capacity(0, 4)?;
    answer.raw_set("ok", true)?;
    let events = lua.create_table_with_capacity(ids.len(), 0)?;
    for (id, kind) in ids {
        let event = lua.create_table_with_capacity(0, 2)?;
        event.raw_set("id", id.as_str())?;
        event.raw_set("type", kind.as_str())?;
        events.raw_push(event)?;
    }
    answer.raw_set("events", events)?;
    answer.raw_set("position", position.map(|position| position.to_string()))?;
    answer.raw_set("duplicate", duplicate)?;
    Ok(answer)
}

/// `{ ok = false, code = …, details = … }`
pub(crate) fn rejected(lua: &Lua, code: &str, field: &str, reason: &str) -> mlua::Result<Table> {
    let answer = lua.create_table()?;
    answer.set("ok", false)?;
    answer.set("code", code)?;
    let details = lua.create_table()?;
    details.set("field", field)?;
    details.set("reason", reason)?;
    answer.set("details", details)?;
    Ok(answer)
}

pub(crate) fn bus_error(error: impl std::fmt::Display) -> mlua::Error {
    mlua::Error::runtime(format!("the bus refused: {error}"))
}

/// A moment before the next try; longer the more often others won.
pub(crate) async fn pause(attempt: u32) {
    if attempt > 2 {
        let millis = u64::from(attempt.min(20)) * 2 + u64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 16;
        tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
    }
}

/// Others won so often that something is wrong.
pub(crate) const ATTEMPTS_MAX: u32 = 200;
