//! `ctx` and events, as scripts see them.

use std::cell::RefCell;
use std::rc::Rc;

use daybook_model::{Data, Event, ExtensionValue, Timestamp};
use mlua::{AppDataRef, Function, Lua, MultiValue, Table, Value};
use tracing::Level;

use super::args;
use super::chance;
use crate::json;
use crate::machine::{self, Call, Kind, Secrets};
use crate::room::Room;

/// Tables as the machine itself makes them: one call and no setting of members.
struct Makers {
    event: Function,
    ctx: Function,
}

const MAKERS: &str = r#"
local uuid, random, log = ...
local function event(id, type, source, subject, sequence, position, time, recordedtime, correlationid, causationid, sessionid, data)
  return {
    id = id, type = type, source = source, subject = subject, sequence = sequence, position = position, time = time,
    recordedtime = recordedtime, correlationid = correlationid, causationid = causationid, sessionid = sessionid,
    data = data,
  }
end
local function ctx(now, correlationid, sessionid, position, replaying)
  return {
    now = now, correlationid = correlationid, sessionid = sessionid, position = position, replaying = replaying,
    uuid = uuid, random = random, log = log,
  }
end
return event, ctx
"#;

thread_local! {
    /// The time last written: an event, its `ctx` and its neighbours share it.
    static WRITTEN: RefCell<(Timestamp, String)> = const { RefCell::new((Timestamp(i64::MIN), String::new())) };
}

fn written(time: Timestamp) -> String {
    WRITTEN.with_borrow_mut(|(known, text)| {
        if *known != time {
            *known = time;
            *text = time.to_string();
        }
        text.clone()
    })
}

/// What every `ctx` holds works for the running call.
pub(super) fn install(lua: &Lua) -> mlua::Result<()> {
    let uuid = lua.create_function(|_, _: MultiValue| Ok(chance::draw("uuid")?.to_string()))?;
    let random = lua
        .create_function(|_, _: MultiValue| Ok(chance::fraction(chance::draw("random")?.as_u128() as u64)))?;
    let log = logger(lua)?;
    let (event, ctx) = lua.load(MAKERS).set_name("=makers").call((uuid, random, log))?;
    lua.set_app_data(Makers { event, ctx });
    Ok(())
}

/// `ctx.log(…)`, and `ctx.log.info(…)`, `warn` and `error` with their levels; a colon
/// instead of a dot changes nothing.
fn logger(lua: &Lua) -> mlua::Result<Table> {
    let log = lua.create_table()?;
    for (name, level) in [("info", Level::INFO), ("warn", Level::WARN), ("error", Level::ERROR)] {
        log.raw_set(name, lua.create_function(move |lua, args: MultiValue| write_line(lua, level, args))?)?;
    }
    let meta = lua.create_table()?;
    let call =
        lua.create_function(|lua, (_, args): (Value, MultiValue)| write_line(lua, Level::INFO, args))?;
    meta.raw_set("__call", call)?;
    let unknown = lua.create_function(|_, (_, name): (Value, Value)| {
        Err::<Value, _>(args::unknown("ctx.log", &name, ["info", "warn", "error"]))
    })?;
    meta.raw_set("__index", unknown)?;
    log.set_metatable(Some(meta))?;
    Ok(log)
}

fn write_line(lua: &Lua, level: Level, args: MultiValue) -> mlua::Result<()> {
    let mut args = args.into_iter().peekable();
    // Called with a colon: the first is `ctx` or `ctx.log` itself.
    if let Some(Value::Table(first)) = args.peek()
        && (first.raw_get::<Value>("log").is_ok_and(|value| value.is_table())
            && first.raw_get::<Value>("random").is_ok_and(|value| value.is_function())
            || first
                .metatable()
                .is_some_and(|meta| meta.raw_get::<Value>("__call").is_ok_and(|v| !v.is_nil())))
    {
        args.next();
    }
    let mut words = Vec::new();
    for value in args {
        words.push(shown(lua, &value)?);
    }
    say_at(level, &words.join(" "), Some(&*machine::call()?));
    Ok(())
}

fn makers(lua: &Lua) -> mlua::Result<AppDataRef<'_, Makers>> {
    lua.app_data_ref().ok_or_else(|| mlua::Error::runtime("the machine is not ready"))
}

/// The `ctx` of a call: time and chance that a repeat sees again.
pub(crate) fn ctx(lua: &Lua, call: &Rc<Call>) -> mlua::Result<Table> {
    let correlation = call.correlation.as_deref();
    let session = call.cause.as_ref().map(|event| event.sessionid.as_str());
    let replaying = call.replaying || call.kind == Kind::View;
    let position = call.position.map(|position| position.to_string());
    let _room = Room::take(lua, correlation.map_or(0, str::len) + session.map_or(0, str::len));
    makers(lua)?.ctx.call((written(call.now), correlation, session, position, replaying))
}

/// A script in a loop must not fill the disk with its log.
const LINES_MAX: u32 = 1_000;
const LINE_BYTES_MAX: usize = 4_000;

/// A line of the script's log.
pub(super) fn say(text: &str, call: Option<&Call>) {
    say_at(Level::INFO, text, call);
}

fn say_at(level: Level, text: &str, call: Option<&Call>) {
    if let Some(call) = call {
        let line = call.logged.get();
        call.logged.set(line.saturating_add(1));
        if line == LINES_MAX {
            tracing::warn!(target: "script", "a call has at most {LINES_MAX} lines: what it says from here on is left out");
        }
        if line >= LINES_MAX {
            return;
        }
    }
    let end = (0..=text.len().min(LINE_BYTES_MAX))
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or_default();
    let more = if end < text.len() { "…" } else { "" };
    let correlation = call.and_then(|call| call.correlation.as_deref());
    let text = &text[..end];
    match level {
        Level::ERROR => tracing::error!(target: "script", correlationid = correlation, "{text}{more}"),
        Level::WARN => tracing::warn!(target: "script", correlationid = correlation, "{text}{more}"),
        _ => tracing::info!(target: "script", correlationid = correlation, "{text}{more}"),
    }
}

/// A value for the log: texts as they are, tables as JSON without what is secret.
fn shown(lua: &Lua, value: &Value) -> mlua::Result<String> {
    match value {
        Value::Table(_) => {
            let mut fields = json::from_lua(lua, value)?;
            if let Some(secrets) = lua.app_data_ref::<Secrets>() {
                hide(&mut fields, &secrets.0);
            }
            Ok(fields.to_string())
        }
        other => other.to_string(),
    }
}

/// Overwrites what `svc:secret` names, however deep.
fn hide(value: &mut serde_json::Value, secrets: &[String]) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                if secrets.contains(name) {
                    *member = "(secret)".into();
                } else {
                    hide(member, secrets);
                }
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| hide(item, secrets)),
        _ => {}
    }
}

/// An event as a table; 64-bit numbers are strings.
pub(crate) fn event(lua: &Lua, event: &Event) -> mlua::Result<Table> {
    let data = match &event.data {
        Some(Data::Json(raw)) => json::parse(lua, raw.get())?,
        Some(Data::Binary(bytes)) => Value::String(lua.create_string(bytes)?),
        None => Value::Table(lua.create_table()?),
    };
    // The other attributes are as short as the protocol wants them.
    let extensions = event.extensions.iter().map(|(name, value)| match value {
        ExtensionValue::String(text) => name.len() + text.len(),
        _ => name.len() + 8,
    });
    let _room = Room::take(lua, event.subject.as_ref().map_or(0, String::len) + extensions.sum::<usize>());
    let table: Table = makers(lua)?.event.call((
        event.id.as_str(),
        event.kind.as_str(),
        event.source.as_str(),
        event.subject.as_deref(),
        event.sequence.map(|sequence| sequence.to_string()),
        event.position.to_string(),
        event.time.as_str(),
        written(event.recordedtime),
        event.correlationid.as_str(),
        event.causationid.as_deref(),
        event.sessionid.as_str(),
        data,
    ))?;
    for (name, value) in &event.extensions {
        match value {
            ExtensionValue::Boolean(value) => table.raw_set(name.as_str(), *value)?,
            ExtensionValue::Integer(value) => table.raw_set(name.as_str(), f64::from(*value))?,
            ExtensionValue::String(value) => table.raw_set(name.as_str(), value.as_str())?,
        }
    }
    Ok(table)
}
