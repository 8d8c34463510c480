//! Entities: folds of one subject's events, kept in memory, brought up to date
//! from the bus before each decision.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use daybook_client::ReadQuery;
use daybook_model::wire::Edge;
use daybook_model::{Event, ExtensionValue, Filter, Position};
use mlua::{Lua, Value};
use tokio::sync::Mutex;

use super::bus_error;
use crate::bindings::ctx;
use crate::json;
use crate::machine::{Entity, Pure, Shared};

/// Entities kept; beyond that all are forgotten and folded again when needed.
const KEPT: usize = 10_000;

#[derive(Default)]
pub(crate) struct Entities {
    known: RefCell<HashMap<String, Rc<Known>>>,
    /// Commands of one key queue here, so that a machine does not fight itself.
    queues: RefCell<HashMap<String, Rc<Mutex<()>>>>,
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
    read: Position,
    /// Commands that made events: id → what they were and made.
    pub commands: HashMap<String, Done>,
}

#[derive(Clone, Default)]
pub(crate) struct Done {
    pub hash: String,
    pub events: Vec<(String, String)>,
    pub position: Position,
}

impl Entities {
    pub fn queue(&self, subject: &str) -> Rc<Mutex<()>> {
        let mut queues = self.queues.borrow_mut();
        if queues.len() > KEPT {
            queues.retain(|_, queue| Rc::strong_count(queue) > 1);
        }
        queues.entry(subject.to_owned()).or_default().clone()
    }

    fn known(&self, subject: &str) -> Rc<Known> {
        let mut known = self.known.borrow_mut();
        if known.len() > KEPT {
            known.clear();
        }
        known.entry(subject.to_owned()).or_default().clone()
    }
}

/// The entity's state now. The caller must copy the state before a script changes it.
pub(crate) async fn load(lua: &Lua, shared: &Shared, entity: &Rc<Entity>, id: &str) -> mlua::Result<Fold> {
    let subject = format!("{}/{id}", entity.name);
    if let Some(until) = shared.outlet.until() {
        let mut fold = empty(entity)?;
        read(lua, shared, entity, &subject, &mut fold, Some(Edge::Position(until))).await?;
        return Ok(fold);
    }
    let known = shared.entities.known(&subject);
    let mut slot = known.fold.lock().await;
    // Taken out, so that a fold which fails half-way is not kept.
    let mut fold = match slot.take() {
        Some(fold) => fold,
        None => empty(entity)?,
    };
    read(lua, shared, entity, &subject, &mut fold, None).await?;
    *slot = Some(fold.clone());
    Ok(fold)
}

/// The state made by all events before `at`, folded in a scratch copy.
pub(crate) async fn as_of(
    lua: &Lua,
    shared: &Shared,
    entity: &Rc<Entity>,
    id: &str,
    at: &str,
) -> mlua::Result<Fold> {
    let mut fold = empty(entity)?;
    let subject = format!("{}/{id}", entity.name);
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

fn empty(entity: &Entity) -> mlua::Result<Fold> {
    let _pure = Pure::enter()?;
    let state = entity.initial.call(())?;
    Ok(Fold { state, next: 0, read: Position::ZERO, commands: HashMap::new() })
}

async fn read(
    lua: &Lua,
    shared: &Shared,
    entity: &Entity,
    subject: &str,
    fold: &mut Fold,
    until: Option<Edge>,
) -> mlua::Result<()> {
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
                return Ok(());
            }
            apply(lua, entity, fold, event)?;
        }
        match page.next {
            Some(next) => query.from = Some(Edge::Position(next)),
            None => return Ok(()),
        }
    }
}

fn apply(lua: &Lua, entity: &Entity, fold: &mut Fold, event: &Event) -> mlua::Result<()> {
    fold.state = evolve(lua, entity, &fold.state, event)?;
    fold.next = event.sequence.map_or(fold.next, |sequence| sequence.0 + 1);
    fold.read = event.position.next();
    let text = |name: &str| {
        event.extensions.iter().find_map(|(known, value)| match value {
            ExtensionValue::String(text) if known == name => Some(text.clone()),
            _ => None,
        })
    };
    if let (Some(id), Some(hash)) = (text("commandid"), text("commandhash")) {
        let done = fold.commands.entry(id).or_default();
        done.hash = hash;
        done.position = event.position;
        done.events.push((event.id.clone(), event.kind.clone()));
    }
    Ok(())
}

/// The state after `event`; `state` itself may be changed by the script.
pub(crate) fn evolve(lua: &Lua, entity: &Entity, state: &Value, event: &Event) -> mlua::Result<Value> {
    let function = entity.evolve.borrow().get(&event.kind).cloned();
    let Some(function) = function else { return Ok(state.clone()) };
    let _pure = Pure::enter()?;
    let changed: Value = function.call((state.clone(), ctx::event(lua, event)?))?;
    // `evolve` changes the table or returns a new one.
    Ok(if changed.is_nil() { state.clone() } else { changed })
}

/// The state after events that are not stored yet, on a copy.
pub(crate) fn rehearse(lua: &Lua, entity: &Entity, state: &Value, events: &[Event]) -> mlua::Result<()> {
    let mut state = json::copy(lua, state)?;
    for event in events {
        state = evolve(lua, entity, &state, event)?;
    }
    Ok(())
}
