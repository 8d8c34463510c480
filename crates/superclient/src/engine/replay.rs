//! The service's own table: which events it holds, and filling it again.
//!
//! # Promises
//! 1. What a handler wrote is committed with the sequence of its key; an event at
//!    or below that sequence was handled, and is not handled again.
//! 2. A replay runs the handlers on what the service type has settled (paper
//!    §7), with all effects suppressed: `send` and `atomically` answer what the
//!    log says they did then.
//!
//! # After a failure
//! A handler that fails in a replay is skipped: its event was settled by an
//! operator who skipped it, or by a script that could take it.
//!
//! # Not here
//! The order between keys: handlers of different keys ran side by side, so a
//! table that depends on it is not the same twice.

use std::rc::Rc;
use std::time::{Duration, Instant};

use daybook_client::{Item, SubscribeError};
use daybook_model::wire::Start;
use daybook_model::{Code, Event, Filter};

use super::bus_error;
use super::instance::run_handler;
use super::progress::Progress;
use crate::machine::{CALL, Call, Kind, Machine, Overlay, describe};
use crate::state::{Error, Tables, Write};

pub(crate) const SEEN: &[u8] = b"seen/";
const SEEN_WITHOUT_KEY: &[u8] = b"seen-position/";

/// Events whose rows are committed together.
const BATCH: usize = 1_000;
/// How long acks may be under way that the bus has not settled yet.
const ACKS_UNDER_WAY: Duration = Duration::from_secs(1);

/// The row that says: handled up to here.
pub(crate) fn seen(event: &Event) -> Write {
    match (&event.subject, event.sequence) {
        (Some(subject), Some(sequence)) => {
            ([SEEN, subject.as_bytes()].concat(), Some(sequence.to_string().into_bytes()))
        }
        _ => ([SEEN_WITHOUT_KEY, format!("{:020}", event.position.0).as_bytes()].concat(), Some(Vec::new())),
    }
}

pub(crate) fn is_seen(tables: &Tables, event: &Event) -> Result<bool, Error> {
    let (key, value) = seen(event);
    let Some(known) = tables.get(&key)? else { return Ok(false) };
    Ok(value.is_none_or(|value| number(&value) <= number(&known)))
}

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Replays into `tables` until everything is there that the type has settled,
/// and everything that `old` holds.
pub(crate) async fn fill(
    machine: &Machine,
    tables: &Tables,
    old: Option<&Tables>,
    progress: &mut Progress,
) -> mlua::Result<()> {
    let (service, kinds) = {
        let definitions = machine.shared.definitions.borrow();
        (definitions.name.clone(), definitions.handlers.keys().cloned().collect::<Vec<_>>())
    };
    if kinds.is_empty() || !machine.shared.own_table {
        return Ok(());
    }
    progress.phase("handlers");
    let filter = Filter { settled_by: Some(service), ..Filter::types(&kinds) };
    let subscribed = machine.shared.client()?.subscribe(Start::START, filter).await;
    let mut settled = match subscribed {
        Ok(settled) => settled,
        // Nobody has handled anything yet.
        Err(SubscribeError::Refused(problem)) if problem.code == Code::NotFound => return Ok(()),
        Err(error) => return Err(bus_error(error)),
    };
    let mut overlay = Overlay::new();
    let mut waiting = 0;
    let mut last = Instant::now();
    let mut caught_up = false;
    loop {
        let item = match tokio::time::timeout(Duration::from_millis(20), settled.next()).await {
            Ok(Some(item)) => Some(item),
            Ok(None) => {
                let why = settled.ended().map_or("the bus is gone".into(), ToString::to_string);
                return Err(mlua::Error::runtime(why));
            }
            Err(_) => None,
        };
        match item {
            Some(Item::Event(event)) => {
                overlay = replayed(machine, tables, &event, overlay).await?;
                waiting += 1;
                progress.event(event.position);
                last = Instant::now();
            }
            Some(Item::CaughtUp(_)) => caught_up = true,
            None => {}
        }
        if waiting >= BATCH || item_is_last(caught_up, &overlay) {
            let writes: Vec<Write> = std::mem::take(&mut overlay).into_iter().collect();
            tables.commit_leader(&writes).map_err(mlua::Error::external)?;
            waiting = 0;
        }
        if caught_up && overlay.is_empty() && complete(machine, tables, old, last)? {
            return Ok(());
        }
    }
}

fn item_is_last(caught_up: bool, overlay: &Overlay) -> bool {
    caught_up && !overlay.is_empty()
}

/// Whether nothing is missing that was handled before.
fn complete(machine: &Machine, tables: &Tables, old: Option<&Tables>, last: Instant) -> mlua::Result<bool> {
    // Tables that were lost cannot say what they held: acks of that time may be under way.
    let Some(old) = old else {
        return Ok(!machine.shared.state()?.is_shared() || last.elapsed() > ACKS_UNDER_WAY);
    };
    let mut missing = false;
    let known = old.scan(SEEN).map_err(mlua::Error::external)?;
    for (key, value) in known {
        let there = tables.get(&key).map_err(mlua::Error::external)?;
        missing |= there.is_none_or(|there| number(&there) < number(&value));
    }
    let known = old.scan(SEEN_WITHOUT_KEY).map_err(mlua::Error::external)?;
    for (key, _) in known {
        missing |= tables.get(&key).map_err(mlua::Error::external)?.is_none();
    }
    Ok(!missing)
}

/// One event on top of `overlay`; an event that is there already changes nothing.
pub(crate) async fn replayed(
    machine: &Machine,
    tables: &Tables,
    event: &std::sync::Arc<Event>,
    mut overlay: Overlay,
) -> mlua::Result<Overlay> {
    let (key, value) = seen(event);
    let known = match overlay.get(&key) {
        Some(known) => known.clone(),
        None => tables.get(&key).map_err(mlua::Error::external)?,
    };
    if known.is_some_and(|known| value.as_ref().is_none_or(|value| number(value) <= number(&known))) {
        return Ok(overlay);
    }
    let before = overlay.clone();
    let call = Rc::new(Call {
        cause: Some(event.clone()),
        correlation: Some(event.correlationid.clone()),
        position: Some(event.position),
        overlay: overlay.into(),
        tables: Some(tables.clone()),
        replaying: true,
        ..Call::new(Kind::Handler, event.id.clone(), event.recordedtime)
    });
    match CALL.scope(call.clone(), run_handler(machine, &call, event)).await {
        Ok(None) => {
            overlay = call.overlay.take();
            if overlay != before {
                overlay.insert(key, value);
            }
            Ok(overlay)
        }
        Ok(Some(_)) => Ok(before),
        Err(error) => {
            tracing::warn!(event = event.id, reason = describe(&error), "a handler failed in a replay");
            overlay = before;
            overlay.insert(key, value);
            Ok(overlay)
        }
    }
}
