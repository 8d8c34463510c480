//! What scripts can call, one file per namespace.

pub(crate) mod crypto;
pub(crate) mod ctx;
pub(crate) mod entity;
pub(crate) mod kv;
pub(crate) mod money;
pub(crate) mod results;
pub(crate) mod service;
pub(crate) mod tx;

use mlua::Lua;

use crate::machine::Shared;

/// Puts all globals into the machine, before the sandbox closes.
pub(crate) fn install(lua: &Lua, shared: &Shared) -> mlua::Result<()> {
    money::install(lua)?;
    results::install(lua)?;
    crypto::install(lua)?;
    service::install(lua, shared)?;
    tx::install(lua, shared)
}
