//! What a new script would do differently: it handles the last events beside
//! the old one, and nothing either of them does leaves its machine.
//!
//! # Promises
//! Both see each event as the bus was right after it. What they would publish,
//! the entities those events belong to, and the tables of their views are
//! compared; a script that fails is a difference too. Timers fire when bus time
//! has come to them, those that are due now at the end. GET routes: `probes.rs`.
//!
//! # Not here
//! What [`NOT_COMPARED`](super::NOT_COMPARED) says: `svc.kv` is empty for both, since its rows are not in
//! the log; nobody keeps what was asked of routes. A GET by `svc:http` is really asked.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use daybook_client::{Client, ReadQuery};
use daybook_model::{Data, Event, Filter, NewEvent, Position, Timestamp};
use serde_json::Value as Json;
use tokio::task::LocalSet;

use super::probes;
use crate::bundle::Bundle;
use crate::engine::{entities, instance, timers, views};
use crate::host::Directory;
use crate::http::routes;
use crate::machine::{CALL, Call, Kind, Machine, Overlay, describe};
use crate::state::State;
use crate::{Limits, StateLocation, json, report};

/// More says no more than these.
const SHOWN_MAX: usize = 100;

pub(super) struct Compared {
    pub events: u64,
    pub differences: Vec<String>,
}

/// What one script made of the events.
#[derive(Default)]
struct Seen {
    /// Per event of the bus, what it would have published or why it failed.
    emitted: Vec<Result<Vec<String>, String>>,
    /// By the position of what started them, and their delay.
    timers: BTreeMap<(u64, String), Result<Vec<String>, String>>,
    states: BTreeMap<String, Result<Json, String>>,
    tables: BTreeMap<String, String>,
    answers: BTreeMap<String, String>,
}

pub(super) async fn compare(
    client: Client,
    directory: &Arc<Directory>,
    old: Arc<Bundle>,
    new: Arc<Bundle>,
    limits: Limits,
    count: u64,
) -> Result<Compared, String> {
    let wanted = |bundle: &Arc<Bundle>| {
        let bundle = bundle.clone();
        tokio::task::spawn_blocking(move || types(&bundle, limits))
    };
    let failed = |error: &dyn std::fmt::Display| format!("the shadow could not run: {error}");
    let mut kinds = wanted(&old).await.map_err(|error| failed(&error))??;
    kinds.extend(wanted(&new).await.map_err(|error| failed(&error))??);
    let query = ReadQuery {
        filter: Filter::types(kinds.iter().map(String::as_str)),
        limit: Some(count.clamp(1, 1_000)),
        reverse: true,
        ..ReadQuery::default()
    };
    let mut events = Vec::new();
    if !kinds.is_empty() {
        let mut query = query;
        while (events.len() as u64) < count {
            let page = client.read(query.clone()).await.map_err(|error| failed(&error))?;
            events.extend(page.events);
            match page.next {
                Some(next) => query.until = Some(daybook_model::wire::Edge::Position(next)),
                None => break,
            }
        }
    }
    events.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    events.reverse();
    let events = Arc::new(events);
    let run = |bundle: Arc<Bundle>| {
        let (client, directory, events) = (client.clone(), directory.clone(), events.clone());
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            runtime.block_on(LocalSet::new().run_until(shadow(bundle, client, directory, events, limits)))
        })
    };
    let (old, new) = tokio::join!(run(old), run(new));
    let old = old.map_err(|error| failed(&error))??;
    let new = new.map_err(|error| failed(&error))??;
    Ok(Compared { events: events.len() as u64, differences: differences(&events, &old, &new) })
}

/// All types that the script handles, folds, views or waits for.
fn types(bundle: &Arc<Bundle>, limits: Limits) -> Result<BTreeSet<String>, String> {
    let machine = Machine::load(bundle, limits).map_err(|error| error.to_string())?;
    let definitions = machine.shared.definitions.borrow();
    let mut kinds: BTreeSet<String> = definitions.handlers.keys().cloned().collect();
    for entity in definitions.entities.values() {
        kinds.extend(entity.evolve.borrow().keys().cloned());
    }
    kinds.extend(definitions.views.iter().flat_map(|view| view.types.iter().cloned()));
    kinds.extend(definitions.timers.iter().map(|timer| timer.kind.clone()));
    Ok(kinds)
}

async fn shadow(
    bundle: Arc<Bundle>,
    client: Client,
    directory: Arc<Directory>,
    events: Arc<Vec<Arc<Event>>>,
    limits: Limits,
) -> Result<Seen, String> {
    let machine = Machine::load(&bundle, limits).map_err(|error| error.to_string())?;
    let shared = machine.shared.clone();
    // Its state is thrown away: nothing is ever committed to it.
    let dir = std::env::temp_dir().join(format!("daybook-shadow-{}", uuid::Uuid::new_v4()));
    let state = State::open(&StateLocation::Dir(dir.clone()), "shadow");
    let _ = std::fs::remove_dir_all(&dir);
    let _ = shared.client.set(client);
    let _ = shared.directory.set(directory);
    let _ = shared.state.set(state.map_err(|error| error.to_string())?);
    shared.outlet.record();
    let mut seen = Seen::default();
    let mut tables = Overlay::new();
    let mut pending = BTreeMap::new();
    for event in events.iter() {
        fire_until(&machine, &mut pending, event.recordedtime, event.position, &mut seen).await;
        for (timer, due) in timers::due_of(&machine, event) {
            pending.insert((due, event.position, timer), event.clone());
        }
        shared.outlet.read_until(event.position.next());
        let call = Rc::new(Call {
            cause: Some(event.clone()),
            correlation: Some(event.correlationid.clone()),
            position: Some(event.position),
            scratch: true,
            ..Call::new(Kind::Handler, event.id.clone(), event.recordedtime)
        });
        let outcome = CALL.scope(call.clone(), instance::run_handler(&machine, &call, event)).await;
        let recorded = shared.outlet.take_recorded();
        seen.emitted.push(match outcome {
            Ok(None) => Ok(recorded.iter().map(shown).collect()),
            Ok(Some(why)) => Ok(vec![format!("park: {why}")]),
            Err(error) => Err(first_line(&error)),
        });
        match views::run(&machine, event, std::mem::take(&mut tables), None) {
            Ok(changed) => tables = changed,
            Err(failed) => {
                seen.tables
                    .insert(format!("the views, at position {}", event.position), first_line(&failed.error));
                tables = Overlay::new();
            }
        }
    }
    // All there is, for what is read from here on.
    let end = Position(u64::MAX >> 1);
    fire_until(&machine, &mut pending, routes::clock(), end, &mut seen).await;
    shared.outlet.read_until(end);
    seen.answers = probes::ask(&machine, &events, &tables).await;
    for (key, value) in tables {
        let key = String::from_utf8_lossy(&key).replacen("view/", "", 1).replace('\0', ":");
        let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
        seen.tables.insert(key, value.unwrap_or_else(|| "nothing".into()));
    }
    // Entities as they are now, of all keys that came by.
    let subjects: BTreeSet<&str> = events.iter().filter_map(|event| event.subject.as_deref()).collect();
    let entities: Vec<_> = shared.definitions.borrow().entities.values().cloned().collect();
    for subject in subjects {
        for entity in &entities {
            let Some(id) = subject.strip_prefix(&format!("{}/", entity.name)) else { continue };
            let call = Rc::new(Call::new(Kind::Route, subject.to_owned(), Timestamp(0)));
            let folding = entities::fresh(&machine.lua, &shared, entity, id);
            let state = match CALL.scope(call, instance::timed(&machine, folding)).await {
                Ok(fold) => json::from_lua(&machine.lua, &fold.state),
                Err(error) => Err(error),
            };
            let state = state.map_err(|error| first_line(&error));
            seen.states.insert(subject.to_owned(), state);
        }
    }
    Ok(seen)
}

/// Timers in order of when they are due, with what started them.
type Pending = BTreeMap<(i64, Position, usize), Arc<Event>>;

/// Fires what was due before `now`, each on the bus as it was before `until`.
async fn fire_until(
    machine: &Machine,
    pending: &mut Pending,
    now: Timestamp,
    until: Position,
    seen: &mut Seen,
) {
    while let Some(((due, position, timer), event)) = pending.pop_first() {
        if due > now.0 {
            pending.insert((due, position, timer), event);
            return;
        }
        machine.shared.outlet.read_until(until);
        let (function, delay) = {
            let definitions = machine.shared.definitions.borrow();
            let timer = &definitions.timers[timer];
            (timer.function.clone(), timer.delay)
        };
        let mut name = format!("svc:after {delay:?}");
        while seen.timers.contains_key(&(position.0, name.clone())) {
            name += ", another";
        }
        let call = Rc::new(Call {
            cause: Some(event.clone()),
            correlation: Some(event.correlationid.clone()),
            position: Some(event.position),
            scratch: true,
            ..Call::new(Kind::Handler, format!("{name}/{}", event.id), Timestamp(due))
        });
        let outcome = CALL.scope(call.clone(), timers::run(machine, &call, &function, &event)).await;
        let recorded = machine.shared.outlet.take_recorded();
        let outcome =
            outcome.map(|()| recorded.iter().map(shown).collect()).map_err(|error| first_line(&error));
        seen.timers.insert((position.0, name), outcome);
    }
}

fn first_line(error: &mlua::Error) -> String {
    report::headline(&describe(error)).to_owned()
}

fn shown(new: &NewEvent) -> String {
    let data = match &new.data {
        Some(Data::Json(raw)) => raw.get().to_owned(),
        Some(Data::Binary(bytes)) => format!("{} bytes", bytes.len()),
        None => "{}".into(),
    };
    match &new.subject {
        Some(subject) => format!("{} {subject} {data}", new.kind),
        None => format!("{} {data}", new.kind),
    }
}

fn differences(events: &[Arc<Event>], old: &Seen, new: &Seen) -> Vec<String> {
    let mut list = Vec::new();
    let words = |outcome: &Result<Vec<String>, String>| match outcome {
        Ok(emitted) if emitted.is_empty() => "nothing".to_owned(),
        Ok(emitted) => emitted.join(", "),
        Err(why) => format!("an error: {why}"),
    };
    for (event, (before, after)) in events.iter().zip(old.emitted.iter().zip(&new.emitted)) {
        if before != after {
            let cause = report::caused_by(event);
            list.push(format!("{cause}\n    old  {}\n    new  {}", words(before), words(after)));
        }
    }
    for key in old.timers.keys().chain(new.timers.keys()).collect::<BTreeSet<_>>() {
        let (before, after) = (old.timers.get(key), new.timers.get(key));
        let event = events.iter().find(|event| event.position.0 == key.0);
        if let (true, Some(event)) = (before != after, event) {
            let word = |outcome: Option<&_>| outcome.map_or_else(|| "no timer".to_owned(), words);
            let (name, cause) = (&key.1, report::caused_by(event));
            list.push(format!("{name} of {cause}\n    old  {}\n    new  {}", word(before), word(after)));
        }
    }
    let word = |state: Option<&Result<Json, String>>| match state {
        None => "no entity".to_owned(),
        Some(Ok(state)) => state.to_string(),
        Some(Err(why)) => format!("an error: {why}"),
    };
    for subject in old.states.keys().chain(new.states.keys()).collect::<BTreeSet<_>>() {
        let (before, after) = (word(old.states.get(subject)), word(new.states.get(subject)));
        if before != after {
            list.push(format!("state of {subject}\n    old  {before}\n    new  {after}"));
        }
    }
    for key in old.tables.keys().chain(new.tables.keys()).collect::<BTreeSet<_>>() {
        let (before, after) = (old.tables.get(key), new.tables.get(key));
        if before != after {
            let word = |value: Option<&String>| value.cloned().unwrap_or_else(|| "nothing".into());
            list.push(format!("view {key}\n    old  {}\n    new  {}", word(before), word(after)));
        }
    }
    for request in old.answers.keys().chain(new.answers.keys()).collect::<BTreeSet<_>>() {
        let (before, after) = (old.answers.get(request), new.answers.get(request));
        if before != after {
            let word = |answer: Option<&String>| answer.cloned().unwrap_or_else(|| "no route".into());
            list.push(format!("{request}\n    old  {}\n    new  {}", word(before), word(after)));
        }
    }
    let more = list.len().saturating_sub(SHOWN_MAX);
    list.truncate(SHOWN_MAX);
    if more > 0 {
        list.push(format!("and {more} more"));
    }
    list
}
