//! What scripts return: `event reject ok park json array null`.
//!
//! Each is a plain table with a `__kind`, so that a script can build and look
//! at it, and the host recognises it.

use mlua::{Lua, LuaSerdeExt, Table, Value};

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
    globals.set(
        "event",
        lua.create_function(|lua, (kind, data): (String, Option<Table>)| {
            let table = result(lua, "event")?;
            table.raw_set("type", kind)?;
            table.raw_set("data", data)?;
            Ok(table)
        })?,
    )?;
    globals.set(
        "reject",
        lua.create_function(|lua, (code, details): (String, Option<Table>)| {
            let table = result(lua, "reject")?;
            table.raw_set("ok", false)?;
            table.raw_set("code", code)?;
            table.raw_set("details", details)?;
            Ok(table)
        })?,
    )?;
    globals.set(
        "ok",
        lua.create_function(|lua, why: Option<String>| {
            let table = result(lua, "ok")?;
            table.raw_set("ok", true)?;
            table.raw_set("why", why)?;
            Ok(table)
        })?,
    )?;
    globals.set(
        "park",
        lua.create_function(|lua, why: Option<String>| {
            let table = result(lua, "park")?;
            table.raw_set("why", why)?;
            Ok(table)
        })?,
    )?;
    globals.set(
        "json",
        lua.create_function(|lua, (value, status): (Value, Option<u16>)| {
            let table = result(lua, "json")?;
            table.raw_set("value", value)?;
            table.raw_set("status", status)?;
            Ok(table)
        })?,
    )?;
    globals.set(
        "array",
        lua.create_function(|lua, table: Option<Table>| {
            let table = match table {
                Some(table) => table,
                None => lua.create_table()?,
            };
            table.set_metatable(Some(lua.array_metatable()))?;
            Ok(table)
        })?,
    )?;
    globals.set("null", Value::NULL)
}
