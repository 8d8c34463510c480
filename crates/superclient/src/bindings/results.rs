//! What scripts return: `event reject ok park json array null`.
//!
//! Each is a plain table with a `__kind`, so that a script can build and look
//! at it, and the host recognises it.
//!
//! A result that is made and not returned is nearly always a forgotten `return`,
//! and would change what happens without a word: [`forgotten`] finds it.

use mlua::{Function, Lua, LuaSerdeExt, MultiValue, Table, Value};

use super::args::{self, Args};
use crate::machine::{CALL, Call};

pub(crate) const KIND: &str = "__kind";

/// The kind of a result, if it is one.
pub(crate) fn kind(value: &Value) -> Option<String> {
    match value {
        Value::Table(table) => table.raw_get::<Option<String>>(KIND).ok().flatten(),
        _ => None,
    }
}

fn result(lua: &Lua, kind: &str) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set(KIND, kind)?;
    Ok(table)
}

/// Results that mean nothing unless they are returned.
#[derive(Clone, Copy)]
pub(crate) enum Made {
    Event = 1,
    Reject = 2,
    Park = 4,
    Json = 8,
}

impl Made {
    fn note(self) {
        // While a script loads there is no call, and nothing to return to.
        let _ = CALL.try_with(|call| call.made.set(call.made.get() | self as u8));
    }

    fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Reject => "reject",
            Self::Park => "park",
            Self::Json => "json",
        }
    }
}

/// An error if `what`, a function of the script that has just returned `answer`, made one of
/// these and did not return it. Of events and answers only the last would be missed, so they
/// count when nothing came back; a rejection that is not returned always does.
pub(crate) fn forgotten(
    call: &Call,
    function: &Function,
    what: impl std::fmt::Display,
    answer: &Value,
    wanted: &[Made],
) -> mlua::Result<()> {
    let made = call.made.get();
    if made == 0 {
        return Ok(());
    }
    let returned = kind(answer);
    let missing = wanted.iter().find(|wanted| {
        let always =
            matches!(wanted, Made::Reject | Made::Park) && returned.as_deref() != Some(wanted.name());
        made & **wanted as u8 != 0 && (always || answer.is_nil())
    });
    let Some(missing) = missing else { return Ok(()) };
    let name = missing.name();
    Err(at(function, &format!("{what} made `{name}(…)` and did not return it: write `return {name}(…)`")))
}

/// An error about a function of the script as a whole: at the line it begins in.
pub(crate) fn at(function: &Function, message: &str) -> mlua::Error {
    let info = function.info();
    match (info.short_src, info.line_defined) {
        (Some(file), Some(line)) => mlua::Error::runtime(format!("{file}:{line}: {message}")),
        _ => mlua::Error::runtime(message),
    }
}

/// A value that is no result, for an error that says so.
pub(crate) fn shown(value: &Value) -> String {
    match kind(value) {
        Some(kind) => format!("{kind}(…)"),
        None => args::shown(value),
    }
}

pub(super) fn install(lua: &Lua) -> mlua::Result<()> {
    let globals = lua.globals();
    let event = lua.create_function(|lua, args: MultiValue| {
        let mut args = Args::new("event(type, data)", args);
        let table = result(lua, "event")?;
        table.raw_set("type", args.string("type")?)?;
        table.raw_set("data", args.value())?;
        Made::Event.note();
        Ok(table)
    })?;
    globals.set("event", event)?;
    let reject = lua.create_function(|lua, args: MultiValue| {
        let mut args = Args::new("reject(code, details)", args);
        let table = result(lua, "reject")?;
        table.raw_set("ok", false)?;
        table.raw_set("code", args.string("code")?)?;
        // A sentence is a detail too.
        let details = match args.peek() {
            Value::String(_) => args.value(),
            _ => args.optional_table("details")?.map_or(Value::Nil, Value::Table),
        };
        table.raw_set("details", details)?;
        Made::Reject.note();
        Ok(table)
    })?;
    globals.set("reject", reject)?;
    let ok = lua.create_function(|lua, args: MultiValue| {
        let table = result(lua, "ok")?;
        table.raw_set("ok", true)?;
        table.raw_set("why", Args::new("ok(why)", args).value())?;
        Ok(table)
    })?;
    globals.set("ok", ok)?;
    let park = lua.create_function(|lua, args: MultiValue| {
        let table = result(lua, "park")?;
        table.raw_set("why", Args::new("park(why)", args).optional_string("why")?)?;
        Made::Park.note();
        Ok(table)
    })?;
    globals.set("park", park)?;
    let json = lua.create_function(|lua, args: MultiValue| {
        let mut args = Args::new("json(value, status, headers)", args);
        let table = result(lua, "json")?;
        table.raw_set("value", args.value())?;
        let status = match args.value() {
            Value::Nil => None,
            Value::Integer(n) if (200..600).contains(&n) => Some(n as u16),
            Value::Number(n) if n.fract() == 0.0 && (200.0..600.0).contains(&n) => Some(n as u16),
            other => return Err(args.wrong("status", "an HTTP status from 200 to 599", &other)),
        };
        table.raw_set("status", status)?;
        table.raw_set("headers", args.optional_table("headers")?)?;
        Made::Json.note();
        Ok(table)
    })?;
    globals.set("json", json)?;
    let array = lua.create_function(|lua, args: MultiValue| {
        let table = match Args::new("array{ … }", args).optional_table("items")? {
            Some(table) => table,
            None => lua.create_table()?,
        };
        table.set_metatable(Some(lua.array_metatable()))?;
        Ok(table)
    })?;
    globals.set("array", array)?;
    globals.set("null", Value::NULL)
}
