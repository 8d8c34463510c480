//! What scripts can call, one file per namespace.

pub(crate) mod args;
mod base;
pub(crate) mod chance;
pub(crate) mod crypto;
pub(crate) mod ctx;
pub(crate) mod entity;
pub(crate) mod kv;
pub(crate) mod money;
pub(crate) mod results;
pub(crate) mod service;
pub(crate) mod tx;

use std::sync::Arc;

use mlua::Lua;

use crate::bundle::Bundle;
use crate::json;
use crate::machine::Shared;

/// What the host adds to Luau's own globals.
pub(crate) const GLOBALS: [&str; 15] = [
    "array",
    "atomically",
    "crypto",
    "event",
    "json",
    "money",
    "null",
    "ok",
    "park",
    "print",
    "reject",
    "require",
    "service",
    "tostring",
    "pcall",
];

/// Puts all globals into the machine, before the sandbox closes.
pub(crate) fn install(lua: &Lua, shared: &Shared, bundle: &Arc<Bundle>) -> mlua::Result<()> {
    json::install(lua)?;
    money::install(lua)?;
    results::install(lua)?;
    crypto::install(lua)?;
    ctx::install(lua)?;
    chance::install(lua, &shared.script_hash)?;
    kv::install(lua)?;
    service::install(lua, shared)?;
    tx::install(lua, shared)?;
    base::install(lua, shared, bundle)
}
