//! What scripts return: `event reject ok park json array null`.
//!
//! Each is a plain table with a `__kind`, so that a script can build and look
//! at it, and the host recognises it.

use mlua::{Lua, LuaSerdeExt, MultiValue, Table, Value};

use super::args::Args;

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

pub(super) fn install(lua: &Lua) -> mlua::Result<()> {
    let globals = lua.globals();
    let event = lua.create_function(|lua, args: MultiValue| {
        let mut args = Args::new("event(type, data)", args);
        let table = result(lua, "event")?;
        table.raw_set("type", args.string("type")?)?;
        table.raw_set("data", args.value())?;
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
