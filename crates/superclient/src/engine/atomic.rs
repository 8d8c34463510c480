//! `atomically`: load, decide, emit one batch; again when another was faster.
//!
//! The function runs first on what this host knows. If it emits, the bus judges;
//! if not, or if it rests on what it does not write, the loaded entities are read
//! anew, and the answer counts only if they have not moved.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use daybook_client::PublishError;
use daybook_model::{Code, Event, ExtensionValue, Filter, NewEvent, Sequence};
use mlua::{Function, Lua, Table, Value};
use uuid::Uuid;

use super::ids::{id_of, seed_of};
use super::publishing::{self, marked};
use super::{ATTEMPTS_MAX, accepted, bus_error, entities, imagined, new_event, pause, rejected};
use crate::bindings::chance::Scope;
use crate::bindings::results::{self, Made};
use crate::bindings::tx::{Tx, Work};
use crate::machine::{Call, Shared};

/// Marks the events of one `atomically` of a handler: `call` of the cause.
const CALL: &str = "callnumber";

pub(crate) async fn run(
    lua: &Lua,
    shared: &Shared,
    call: &Rc<Call>,
    function: Function,
) -> mlua::Result<Table> {
    let number = call.next_number();
    let seed = seed_of(call, &format!("atomically/{number}"));
    if call.replaying {
        return match earlier(lua, shared, call, number).await? {
            Some(done) => Ok(done),
            None => rejected(lua, "replayed", "atomically", "it stored nothing then"),
        };
    }
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut turns = Vec::new();
    let mut judged = true;
    for attempt in 0..ATTEMPTS_MAX {
        pause(attempt).await;
        let work = Rc::new(RefCell::new(Work::default()));
        let over = Rc::new(Cell::new(false));
        let tx =
            lua.create_userdata(Tx { shared: shared.clone(), work: work.clone(), over: over.clone() })?;
        let before = call.judged.replace(judged);
        let made = call.made.replace(0);
        // Another run of it draws the same.
        let chance = Scope::enter(call, seed);
        let answer = function.call_async::<Value>(tx).await;
        drop(chance);
        call.judged.set(before);
        over.set(true);
        let answer = answer?;
        results::forgotten(call, &function, "the function of atomically", &answer, &[Made::Reject])?;
        call.made.set(made);
        let work = work.take();
        let rejection = match (results::kind(&answer).as_deref(), answer) {
            (Some("reject"), Value::Table(table)) => Some(table),
            _ => None,
        };
        let emits = rejection.is_none() && !work.emitted.is_empty();
        // Turns on all keys at once, in order: the function may load more next time.
        let keys = work.loaded.iter().map(|loaded| &loaded.subject);
        let missing = keys.filter(|subject| !wanted.contains(*subject)).cloned().collect::<Vec<_>>();
        if emits && !missing.is_empty() {
            turns.clear();
            wanted.extend(missing);
            let (held, waited) =
                shared.common()?.turns.take(&wanted.iter().cloned().collect::<Vec<_>>()).await;
            turns = held;
            // Whoever we waited for has moved something: run again, in our turn.
            if waited {
                continue;
            }
        }
        if judged && !guarded(&work, emits) {
            judged = false;
            if moved(lua, shared, &work).await? {
                continue;
            }
        }
        if !emits {
            // An earlier run of this very handler may be why there is nothing to do now.
            if let Some(done) = repeated(lua, shared, call, number, seed).await? {
                return Ok(done);
            }
            return match rejection {
                Some(table) => Ok(table),
                None => accepted(lua, &[], None, false),
            };
        }
        let named: Vec<&String> =
            work.emitted.iter().filter(|new| new.after.is_some()).map(|new| &new.subject).collect();
        let batch = batch(lua, shared, call, &work, number, seed)?;
        let ids: Vec<_> = batch.iter().map(|new| (new.id.clone(), new.kind.clone())).collect();
        let session = shared.client()?.session();
        match publishing::publish(shared, call, &batch).await? {
            Ok(receipt) => {
                let loaded = |key: &str| work.loaded.iter().any(|loaded| loaded.subject == key);
                match publishing::stored(shared, &session, batch, &receipt, loaded)? {
                    Some(events) => tell(lua, shared, &work, &events)?,
                    None => {
                        work.loaded.iter().for_each(|loaded| shared.entities.forget(&loaded.subject));
                    }
                }
                return accepted(lua, &ids, Some(receipt.position()), receipt.is_duplicate());
            }
            Err(error) if matches!(error.code(), Code::Conflict | Code::IdConflict) => {
                // Perhaps an earlier run of this very handler was the faster one.
                if let Some(done) = earlier(lua, shared, call, number).await? {
                    return Ok(done);
                }
                if error.code() == Code::IdConflict {
                    return Err(bus_error(error));
                }
                // `after` names a version: when that is gone, another try finds it gone too.
                if let PublishError::Refused(problem) = &error
                    && let Some(subject) = problem.subject.as_ref().filter(|subject| named.contains(subject))
                {
                    return rejected(
                        lua,
                        "conflict",
                        "after",
                        &format!("{subject} has gone on since that event"),
                    );
                }
                judged = false;
            }
            Err(error) => return Err(bus_error(error)),
        }
    }
    Err(mlua::Error::runtime("atomically: other writers kept winning"))
}

/// Whether the bus refuses the batch if anything it rests on has moved.
fn guarded(work: &Work, emits: bool) -> bool {
    let written = |subject: &String| work.emitted.iter().any(|emitted| emitted.subject == *subject);
    work.loaded.is_empty() || (emits && work.loaded.iter().all(|loaded| written(&loaded.subject)))
}

/// Whether one of the loaded entities is not any more what it was.
async fn moved(lua: &Lua, shared: &Shared, work: &Work) -> mlua::Result<bool> {
    for loaded in &work.loaded {
        let id = loaded.subject.strip_prefix(&format!("{}/", loaded.entity.name)).unwrap_or_default();
        if entities::fresh(lua, shared, &loaded.entity, id).await?.next != loaded.next {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Brings the loaded entities up to date with what was just stored.
fn tell(lua: &Lua, shared: &Shared, work: &Work, events: &[Arc<Event>]) -> mlua::Result<()> {
    for loaded in &work.loaded {
        let of_it = |event: &&Arc<Event>| event.subject.as_ref() == Some(&loaded.subject);
        let events: Vec<Arc<Event>> = events.iter().filter(of_it).cloned().collect();
        entities::stored(lua, shared, &loaded.entity, &events)?;
    }
    Ok(())
}

/// The batch, rehearsed on copies of what was loaded.
fn batch(
    lua: &Lua,
    shared: &Shared,
    call: &Rc<Call>,
    work: &Work,
    number: u32,
    seed: Uuid,
) -> mlua::Result<Vec<NewEvent>> {
    let mut next: HashMap<&str, u64> = HashMap::new();
    let mut batch = Vec::with_capacity(work.emitted.len());
    for (i, emitted) in work.emitted.iter().enumerate() {
        let id = id_of(seed, i);
        let mut new =
            new_event(lua, shared, call, id, &emitted.kind, Some(emitted.subject.clone()), &emitted.data)?;
        let loaded = work.loaded.iter().find(|loaded| loaded.subject == emitted.subject);
        let first = emitted.after.map(|after| after + 1).or_else(|| loaded.map(|loaded| loaded.next));
        if let Some(first) = first {
            let value = next.entry(&emitted.subject).or_insert(first);
            new.sequence = Some(Sequence(*value));
            *value += 1;
        }
        if call.cause.is_some() {
            new.extensions.push((CALL.into(), ExtensionValue::Integer(number as i32)));
            new.extensions.sort_by(|a, b| a.0.cmp(&b.0));
        }
        batch.push(new);
    }
    for loaded in &work.loaded {
        let events: Vec<Event> = batch
            .iter()
            .filter(|new| new.subject.as_ref() == Some(&loaded.subject))
            .map(|new| imagined(new, new.sequence.map(|sequence| sequence.0), call))
            .collect();
        entities::rehearse(lua, &loaded.entity, &loaded.state, &events)?;
    }
    Ok(batch)
}

/// What an earlier delivery of the same event has stored at this place, if its
/// first id is known.
async fn repeated(
    lua: &Lua,
    shared: &Shared,
    call: &Rc<Call>,
    number: u32,
    seed: Uuid,
) -> mlua::Result<Option<Table>> {
    if call.cause.is_none() || !publishing::is_known(shared, &id_of(seed, 0), "probe").await? {
        return Ok(None);
    }
    earlier(lua, shared, call, number).await
}

async fn earlier(lua: &Lua, shared: &Shared, call: &Rc<Call>, number: u32) -> mlua::Result<Option<Table>> {
    let Some(cause) = &call.cause else { return Ok(None) };
    let filter = Filter { correlationid: Some(cause.correlationid.as_str().into()), ..Filter::default() };
    let service = shared.definitions.borrow().name.clone();
    let same_place = |event: &Event| {
        let same_call = event
            .extensions
            .iter()
            .any(|(name, value)| name == CALL && *value == ExtensionValue::Integer(number as i32));
        let is_ours = event.sessionid.split('/').next() == Some(service.as_str());
        same_call && is_ours && event.causationid.as_ref() == Some(&cause.id)
    };
    match marked(shared, filter, same_place, CALL).await? {
        Some(done) => accepted(lua, &done.events, Some(done.position), true).map(Some),
        None => Ok(None),
    }
}
