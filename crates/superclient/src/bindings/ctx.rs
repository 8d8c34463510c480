//! `ctx` and events, as scripts see them.

use std::rc::Rc;

use daybook_model::{Data, Event, ExtensionValue};
use mlua::{Lua, MultiValue, Table, Value};

use crate::json;
use crate::machine::{Call, Kind, Secrets};

/// The `ctx` of a call: time and chance that a repeat sees again.
pub(crate) fn ctx(lua: &Lua, call: &Rc<Call>) -> mlua::Result<Table> {
    let ctx = lua.create_table()?;
    ctx.set("now", call.now.to_string())?;
    ctx.set("correlationid", call.correlation.clone())?;
    ctx.set("sessionid", call.cause.as_ref().map(|event| event.sessionid.clone()))?;
    ctx.set("position", call.position.map(|position| position.to_string()))?;
    ctx.set("replaying", call.replaying || call.kind == Kind::View)?;
    let drawing = call.clone();
    ctx.set(
        "uuid",
        lua.create_function(move |_, ()| {
            drawing.draws.set(drawing.draws.get() + 1);
            Ok(drawing.derived(&format!("uuid/{}", drawing.draws.get())).to_string())
        })?,
    )?;
    let drawing = call.clone();
    ctx.set(
        "random",
        lua.create_function(move |_, ()| {
            drawing.draws.set(drawing.draws.get() + 1);
            let bits = drawing.derived(&format!("random/{}", drawing.draws.get())).as_u128() as u64;
            // 53 bits: what a Lua number holds.
            Ok((bits >> 11) as f64 / (1u64 << 53) as f64)
        })?,
    )?;
    let logging = call.clone();
    let log = lua.create_function(move |lua, args: MultiValue| {
        let mut args = args.into_iter().peekable();
        // `ctx:log(…)` means the same as `ctx.log(…)`.
        if let Some(Value::Table(first)) = args.peek()
            && first.raw_get::<Value>("correlationid").is_ok_and(|value| !value.is_nil())
            && first.raw_get::<Value>("log").is_ok_and(|value| value.is_function())
        {
            args.next();
        }
        let mut words = Vec::new();
        for value in args {
            words.push(shown(lua, &value)?);
        }
        say(&words.join(" "), Some(&logging));
        Ok(())
    })?;
    ctx.set("log", log)?;
    Ok(ctx)
}

/// A script in a loop must not fill the disk with its log.
const LINES_MAX: u32 = 1_000;
const LINE_BYTES_MAX: usize = 4_000;

/// A line of the script's log.
pub(super) fn say(text: &str, call: Option<&Call>) {
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
    tracing::info!(target: "script", correlationid = correlation, "{}{more}", &text[..end]);
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
    let table = lua.create_table()?;
    table.set("id", event.id.as_str())?;
    table.set("type", event.kind.as_str())?;
    table.set("source", event.source.as_str())?;
    table.set("subject", event.subject.as_deref())?;
    table.set("sequence", event.sequence.map(|sequence| sequence.to_string()))?;
    table.set("position", event.position.to_string())?;
    table.set("time", event.time.as_str())?;
    table.set("recordedtime", event.recordedtime.to_string())?;
    table.set("correlationid", event.correlationid.as_str())?;
    table.set("causationid", event.causationid.as_deref())?;
    table.set("sessionid", event.sessionid.as_str())?;
    for (name, value) in &event.extensions {
        match value {
            ExtensionValue::Boolean(value) => table.set(name.as_str(), *value)?,
            ExtensionValue::Integer(value) => table.set(name.as_str(), *value)?,
            ExtensionValue::String(value) => table.set(name.as_str(), value.as_str())?,
        }
    }
    let data = match &event.data {
        Some(Data::Json(raw)) => {
            let data: serde_json::Value = serde_json::from_str(raw.get()).map_err(mlua::Error::external)?;
            json::to_lua(lua, &data)?
        }
        Some(Data::Binary(bytes)) => Value::String(lua.create_string(bytes)?),
        None => Value::Table(lua.create_table()?),
    };
    table.set("data", data)?;
    Ok(table)
}
