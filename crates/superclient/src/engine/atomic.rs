//! `atomically`: load, decide, emit one batch; again when another was faster.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use daybook_client::{PublishError, ReadQuery};
use daybook_model::{Code, Event, ExtensionValue, Filter, NewEvent, Position, Sequence};
use mlua::{Function, Lua, Table, Value};
use uuid::Uuid;

use super::{ATTEMPTS_MAX, accepted, bus_error, entities, imagined, new_event, pause, rejected, try_again};
use crate::bindings::results;
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
    let seed = call.derived(&format!("atomically/{number}"));
    for attempt in 0..ATTEMPTS_MAX {
        pause(attempt).await;
        let work = Rc::new(RefCell::new(Work::default()));
        let over = Rc::new(Cell::new(false));
        let tx =
            lua.create_userdata(Tx { shared: shared.clone(), work: work.clone(), over: over.clone() })?;
        let answer: Value = function.call_async(tx).await?;
        over.set(true);
        if let (Some("reject"), Value::Table(table)) = (results::kind(&answer).as_deref(), answer) {
            return Ok(table);
        }
        let work = work.take();
        if work.emitted.is_empty() {
            return accepted(lua, &[], None, false);
        }
        let named: Vec<&String> =
            work.emitted.iter().filter(|new| new.after.is_some()).map(|new| &new.subject).collect();
        let batch = batch(lua, shared, call, &work, number, seed)?;
        let ids: Vec<_> = batch.iter().map(|new| (new.id.clone(), new.kind.clone())).collect();
        match shared.publish(batch, call.token.as_deref()).await? {
            Ok(receipt) => return accepted(lua, &ids, Some(receipt.position()), receipt.is_duplicate()),
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
            }
            Err(error) if try_again(error.code()) && attempt < 20 => {}
            Err(error) => return Err(bus_error(error)),
        }
    }
    Err(mlua::Error::runtime("atomically: other writers kept winning"))
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
        let id = Uuid::new_v5(&seed, i.to_string().as_bytes()).to_string();
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

/// What an earlier delivery of the same event has already stored at this place.
async fn earlier(lua: &Lua, shared: &Shared, call: &Rc<Call>, number: u32) -> mlua::Result<Option<Table>> {
    let Some(cause) = &call.cause else { return Ok(None) };
    let filter = Filter { correlationid: Some(cause.correlationid.as_str().into()), ..Filter::default() };
    let mut ids = Vec::new();
    let mut last = Position::ZERO;
    let each = |event: std::sync::Arc<Event>| {
        let same_call = event
            .extensions
            .iter()
            .any(|(name, value)| name == CALL && *value == ExtensionValue::Integer(number as i32));
        let is_ours = event.sessionid.split('/').next() == Some(shared.definitions.borrow().name.as_str());
        if same_call && is_ours && event.causationid.as_ref() == Some(&cause.id) {
            ids.push((event.id.clone(), event.kind.clone()));
            last = event.position;
        }
        Ok::<_, daybook_client::ReadError>(())
    };
    shared.client()?.read_all(ReadQuery { filter, ..ReadQuery::default() }, each).await.map_err(bus_error)?;
    if ids.is_empty() { Ok(None) } else { accepted(lua, &ids, Some(last), true).map(Some) }
}
