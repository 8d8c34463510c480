//! Entities: folds of one subject's events, kept in memory and as snapshots,
//! brought up to date from the bus.
//!
//! # Promises
//! 1. [`fresh`] holds every event that was stored before it was asked for.
//! 2. [`expected`] may lag behind other writers: what is decided on it must be
//!    judged by the bus (a guarded publish) or by [`fresh`] afterwards.
//! 3. A snapshot serves only the script that made it, and only a state that it
//!    can hold exactly.
//!
//! # After a failure
//! A fold that fails half-way is forgotten, never kept half-done.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use daybook_client::ReadQuery;
use daybook_model::wire::Edge;
use daybook_model::{Event, Filter, Position};
use mlua::{Lua, Value};
use tokio::sync::Mutex;

use super::{bus_error, snapshots};
use crate::bindings::chance::Scope;
use crate::bindings::ctx;
use crate::json;
use crate::machine::{self, CALL, Entity, Pure, Shared};

/// Entities kept at least, if memory allows; twice as many at most.
const KEPT: usize = 20_000;

pub(crate) struct Entities {
    known: RefCell<Kept>,
    /// What the machine may use before entities are forgotten early.
    memory_bytes: usize,
}

/// Two halves: the young one becomes the old one when it is full, and what is
/// not asked for again goes with it.
#[derive(Default)]
struct Kept {
    young: HashMap<Rc<str>, Rc<Known>>,
    old: HashMap<Rc<str>, Rc<Known>>,
    asked: Cell<u32>,
}

/// One subject as far as it was folded.
#[derive(Default)]
struct Known {
    fold: Mutex<Option<Fold>>,
}

#[derive(Clone)]
pub(crate) struct Fold {
    pub state: Value,
    /// Sequence value that the next event takes.
    pub next: u64,
    /// Position to read on from.
    pub read: Position,
    /// `next` of the last snapshot.
    pub saved: u64,
}

impl Entities {
    pub fn new(memory_bytes: usize) -> Self {
        Self { known: RefCell::default(), memory_bytes }
    }

    fn known(&self, lua: &Lua, subject: &str) -> Rc<Known> {
        let mut kept = self.known.borrow_mut();
        if let Some(known) = kept.young.get(subject) {
            return known.clone();
        }
        kept.asked.set(kept.asked.get().wrapping_add(1));
        // States of any size: what they take together is what counts.
        let crowded = kept.asked.get().is_multiple_of(256) && lua.used_memory() > self.memory_bytes;
        if crowded {
            kept.old = HashMap::new();
        }
        if crowded || kept.young.len() >= KEPT {
            kept.old = std::mem::take(&mut kept.young);
        }
        let known = kept.old.remove(subject).unwrap_or_default();
        kept.young.insert(subject.into(), known.clone());
        known
    }

    /// Forgets a subject: what is known of it may not be what the log holds.
    pub fn forget(&self, subject: &str) {
        let mut kept = self.known.borrow_mut();
        kept.young.remove(subject);
        kept.old.remove(subject);
    }
}

/// The entity's state now. The caller must copy the state before a script changes it.
pub(crate) async fn fresh(lua: &Lua, shared: &Shared, entity: &Rc<Entity>, id: &str) -> mlua::Result<Fold> {
    load(lua, shared, entity, &subject(entity, id), true).await
}

/// The entity as far as this host has heard of it; [`fresh`] unless the running
/// call has its decisions judged.
pub(crate) async fn expected(
    lua: &Lua,
    shared: &Shared,
    entity: &Rc<Entity>,
    id: &str,
) -> mlua::Result<Fold> {
    let judged = CALL.try_with(|call| call.judged.get()).unwrap_or(false);
    load(lua, shared, entity, &subject(entity, id), !judged).await
}

pub(crate) fn subject(entity: &Entity, id: &str) -> String {
    format!("{}/{id}", entity.name)
}

async fn load(
    lua: &Lua,
    shared: &Shared,
    entity: &Rc<Entity>,
    subject: &str,
    fresh: bool,
) -> mlua::Result<Fold> {
    if let Some(until) = shared.outlet.until() {
        let mut fold = empty(entity, subject)?;
        read(lua, shared, entity, subject, &mut fold, Some(Edge::Position(until))).await?;
        return Ok(fold);
    }
    let known = shared.entities.known(lua, subject);
    let mut slot = known.fold.lock().await;
    // Taken out, so that a fold which fails half-way is not kept.
    let (mut fold, cold) = match slot.take() {
        Some(fold) => (fold, false),
        None => match snapshots::load(lua, shared, entity, subject)? {
            Some(fold) => (fold, true),
            None => (empty(entity, subject)?, true),
        },
    };
    let recent = &shared.common()?.recent;
    let heard = recent.after(subject, fold.next);
    for event in &heard {
        apply(lua, entity, &mut fold, event)?;
    }
    // What another instance of this host has read or written need not be asked for again.
    if fresh || (cold && heard.is_empty()) {
        recent.add(&read(lua, shared, entity, subject, &mut fold, None).await?);
    }
    snapshots::consider(lua, shared, subject, &mut fold)?;
    *slot = Some(fold.clone());
    Ok(fold)
}

/// What this host has just stored, for the fold that it was decided on.
pub(crate) fn stored(
    lua: &Lua,
    shared: &Shared,
    entity: &Rc<Entity>,
    events: &[Arc<Event>],
) -> mlua::Result<()> {
    let Some(subject) = events.first().and_then(|event| event.subject.as_deref()) else { return Ok(()) };
    let known = shared.entities.known(lua, subject);
    // Somebody reads it from the bus just now, and will find them there.
    let Ok(mut slot) = known.fold.try_lock() else { return Ok(()) };
    let Some(mut fold) = slot.take() else { return Ok(()) };
    for event in events {
        if event.sequence.is_some_and(|sequence| sequence.0 == fold.next) {
            apply(lua, entity, &mut fold, event)?;
        }
    }
    snapshots::consider(lua, shared, subject, &mut fold)?;
    *slot = Some(fold);
    Ok(())
}

/// The state made by all events before `at`, folded in a scratch copy.
pub(crate) async fn as_of(
    lua: &Lua,
    shared: &Shared,
    entity: &Rc<Entity>,
    id: &str,
    at: &str,
) -> mlua::Result<Fold> {
    let subject = subject(entity, id);
    let mut fold = empty(entity, &subject)?;
    read(lua, shared, entity, &subject, &mut fold, Some(edge(at)?)).await?;
    Ok(fold)
}

pub(crate) fn edge(text: &str) -> mlua::Result<Edge> {
    if let Ok(position) = text.parse() {
        return Ok(Edge::Position(position));
    }
    let time = text
        .parse()
        .map_err(|_| mlua::Error::runtime(format!("`{text}` is neither a position nor a time")))?;
    Ok(Edge::Time { time })
}

fn empty(entity: &Entity, subject: &str) -> mlua::Result<Fold> {
    let _pure = Pure::enter()?;
    let _chance = Scope::enter(&machine::call()?, subject);
    let state = entity.initial.call(())?;
    Ok(Fold { state, next: 0, read: Position::ZERO, saved: 0 })
}

/// Reads on; what the last page held.
async fn read(
    lua: &Lua,
    shared: &Shared,
    entity: &Entity,
    subject: &str,
    fold: &mut Fold,
    until: Option<Edge>,
) -> mlua::Result<Vec<Arc<Event>>> {
    let mut query = ReadQuery {
        from: Some(Edge::Position(fold.read)),
        until,
        filter: Filter::subject(subject),
        ..ReadQuery::default()
    };
    loop {
        let page = shared.client()?.read(query.clone()).await.map_err(bus_error)?;
        for event in &page.events {
            // A batch is never cut in two: its first part waits for the rest.
            if let (Some(Edge::Position(until)), Some((first, size))) = (until, event.batch)
                && first.0 + u64::from(size) > until.0
            {
                return Ok(page.events);
            }
            apply(lua, entity, fold, event)?;
        }
        match page.next {
            Some(next) => query.from = Some(Edge::Position(next)),
            None => return Ok(page.events),
        }
    }
}

fn apply(lua: &Lua, entity: &Entity, fold: &mut Fold, event: &Event) -> mlua::Result<()> {
    fold.state = evolve(lua, entity, &fold.state, event)?;
    fold.next = event.sequence.map_or(fold.next, |sequence| sequence.0 + 1);
    fold.read = event.position.next();
    Ok(())
}

/// The state after `event`; `state` itself may be changed by the script.
pub(crate) fn evolve(lua: &Lua, entity: &Entity, state: &Value, event: &Event) -> mlua::Result<Value> {
    let function = entity.evolve.borrow().get(&event.kind).cloned();
    let Some(function) = function else { return Ok(state.clone()) };
    let _pure = Pure::enter()?;
    let _chance = Scope::enter(&machine::call()?, event.id.as_str());
    let changed: Value = function.call((state.clone(), ctx::event(lua, event)?))?;
    // `evolve` changes the table or returns a new one.
    Ok(if changed.is_nil() { state.clone() } else { changed })
}

/// The state after events that are not stored yet, on a copy.
pub(crate) fn rehearse(lua: &Lua, entity: &Entity, state: &Value, events: &[Event]) -> mlua::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut state = json::copy(lua, state)?;
    for event in events {
        state = evolve(lua, entity, &state, event)?;
    }
    Ok(())
}
