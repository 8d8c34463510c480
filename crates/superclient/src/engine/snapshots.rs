//! Snapshots: folds in the state store, so that a start does not fold everything again.
//!
//! # Promises
//! A snapshot is taken only of a state that comes back exactly as it was, and is
//! used only by the script that made it. It is a shortcut: the bus has the rest.
//!
//! # After a failure
//! One that is missing or unreadable costs a longer fold.

use std::cell::RefCell;
use std::rc::Rc;

use daybook_model::Position;
use mlua::{Lua, LuaSerdeExt, Value};
use serde::{Deserialize, Serialize};

use super::entities::Fold;
use crate::json;
use crate::machine::{Entity, Shared};
use crate::state::Write;

/// Events between two snapshots of one entity: less than one page to read.
const EVERY: u64 = 100;
/// Snapshots that wait to be written together.
const WAITING: usize = 64;

pub(crate) const PREFIX: &[u8] = b"snapshot/";

#[derive(Default)]
pub(crate) struct Snapshots(RefCell<Vec<Write>>);

#[derive(Serialize, Deserialize)]
struct Snapshot<'a> {
    script: std::borrow::Cow<'a, str>,
    next: u64,
    read: Position,
    state: serde_json::Value,
}

fn key(subject: &str) -> Vec<u8> {
    [PREFIX, subject.as_bytes()].concat()
}

pub(crate) fn load(
    lua: &Lua,
    shared: &Shared,
    _entity: &Rc<Entity>,
    subject: &str,
) -> mlua::Result<Option<Fold>> {
    let Some(tables) = shared.state.get().and_then(|state| state.tables().ok()) else { return Ok(None) };
    let Ok(Some(bytes)) = tables.get(&key(subject)) else { return Ok(None) };
    let Ok(snapshot) = serde_json::from_slice::<Snapshot<'_>>(&bytes) else { return Ok(None) };
    if snapshot.script != shared.script_hash {
        return Ok(None);
    }
    let state = json::to_lua(lua, &snapshot.state)?;
    Ok(Some(Fold { state, next: snapshot.next, read: snapshot.read, saved: snapshot.next }))
}

/// Takes one if enough has happened since the last.
pub(crate) fn consider(lua: &Lua, shared: &Shared, subject: &str, fold: &mut Fold) -> mlua::Result<()> {
    if fold.next < fold.saved + EVERY {
        return Ok(());
    }
    fold.saved = fold.next;
    if !comes_back(lua, &fold.state, 0) {
        return Ok(());
    }
    let Ok(state) = json::from_lua(lua, &fold.state) else { return Ok(()) };
    let script = shared.script_hash.as_str().into();
    let snapshot = Snapshot { script, next: fold.next, read: fold.read, state };
    let bytes = serde_json::to_vec(&snapshot).map_err(mlua::Error::external)?;
    shared.snapshots.0.borrow_mut().push((key(subject), Some(bytes)));
    if shared.snapshots.0.borrow().len() >= WAITING {
        write(shared);
    }
    Ok(())
}

/// Writes what waits; it matters to nobody if that fails.
pub(crate) fn write(shared: &Shared) {
    let writes = shared.snapshots.0.take();
    let Some(state) = shared.state.get() else { return };
    if let Err(error) = state.tables().and_then(|tables| tables.commit(&writes)) {
        tracing::debug!(%error, "snapshots were not written");
    }
}

/// Whether JSON holds the value exactly: no metatables of the script's own, and
/// nothing that would come back as money without having been it.
fn comes_back(lua: &Lua, value: &Value, depth: usize) -> bool {
    let Value::Table(table) = value else { return true };
    let own = table.metatable().is_some_and(|meta| meta != lua.array_metatable());
    let as_money =
        table.contains_key("minor").unwrap_or(true) && table.contains_key("currency").unwrap_or(true);
    if own || as_money || depth > 50 {
        return false;
    }
    let mut members = table.pairs::<Value, Value>();
    members.all(|pair| pair.is_ok_and(|(_, member)| comes_back(lua, &member, depth + 1)))
}
