//! Storing a batch that was decided, and what is known once it is stored.
//!
//! # Promises
//! The same batch is published until its fate is known: after `unknown-outcome`
//! its ids are asked for before anything is decided again.

use std::sync::Arc;
use std::time::Duration;

use daybook_client::{PublishError, ReadQuery, Receipt};
use daybook_model::{Code, Event, ExtensionValue, Filter, NewEvent, Position, Sequence};

use super::bus_error;
use crate::machine::{Call, Shared};

/// Tries of one batch whose fate is open; then the bus is taken for lost.
const TRIES: u32 = 40;

/// A sequence that no key ever reaches: what names it is refused, unless its id is known.
const NEVER: Sequence = Sequence(u64::MAX >> 1);

pub(crate) async fn publish(
    shared: &Shared,
    call: &Call,
    batch: &[NewEvent],
) -> mlua::Result<Result<Receipt, PublishError>> {
    let mut tries = 0;
    loop {
        match shared.publish(batch.to_vec(), call.token.as_deref()).await? {
            Err(error) if error.is_retryable() && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(u64::from(tries.min(20)) * 10)).await;
            }
            outcome => return Ok(outcome),
        }
    }
}

/// Whether the log has an event of this id, asked without storing anything.
pub(crate) async fn is_known(shared: &Shared, id: &str, subject: &str) -> mlua::Result<bool> {
    // A shadow's events were never published.
    if shared.outlet.until().is_some() {
        return Ok(false);
    }
    // Checks run in this order: id known, then sequence.
    let probe = NewEvent::new(id, "Probe").subject(subject).sequence(NEVER);
    for tries in 0..TRIES {
        match shared.client()?.publish(vec![probe.clone()]).await {
            Err(error) if error.code() == Code::IdConflict => return Ok(true),
            Err(error) if error.code() == Code::Conflict => return Ok(false),
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(Duration::from_millis(u64::from(tries.min(20)) * 10)).await;
            }
            Err(error) => return Err(bus_error(error)),
            Ok(_) => return Err(mlua::Error::runtime("the bus stored what it had to refuse")),
        }
    }
    Err(mlua::Error::runtime("the bus does not tell whether an id is known"))
}

/// The batch as the log holds it now. `None` if this cannot be told: a reconnect
/// came between, or it was stored before. `decided_on` are the keys that were loaded for it.
pub(crate) fn stored(
    shared: &Shared,
    session: &Arc<str>,
    batch: Vec<NewEvent>,
    receipt: &Receipt,
    decided_on: impl Fn(&str) -> bool,
) -> mlua::Result<Option<Vec<Arc<Event>>>> {
    if receipt.is_duplicate() || *session != shared.client()?.session() {
        return Ok(None);
    }
    let size = batch.len() as u32;
    let first = receipt.events.first().map_or(Position::ZERO, |event| event.position);
    let source = format!("/{}", shared.definitions.borrow().name);
    let events = batch.into_iter().zip(&receipt.events).map(|(new, stored)| Event {
        id: new.id,
        source: new.source.unwrap_or_else(|| source.clone()),
        kind: new.kind,
        subject: new.subject,
        sequence: stored.sequence,
        correlationid: new.correlationid.unwrap_or_default(),
        causationid: new.causationid,
        sessionid: session.to_string(),
        authid: None,
        time: new.time.unwrap_or_else(|| stored.recordedtime.to_string()),
        recordedtime: stored.recordedtime,
        position: stored.position,
        batch: (size > 1).then_some((first, size)),
        datacontenttype: new.datacontenttype,
        dataschema: new.dataschema,
        traceparent: new.traceparent,
        extensions: new.extensions,
        data: new.data,
    });
    let events: Vec<Arc<Event>> = events.map(Arc::new).collect();
    shared.common()?.recent.add_wanted(&events, decided_on);
    Ok(Some(events))
}

/// What the log holds under a mark that this service put on its events.
pub(crate) struct Done {
    pub events: Vec<(String, String)>,
    pub position: Position,
    /// The value of the other extension that was asked for.
    pub other: Option<String>,
}

/// Events with `name = value` among those that `filter` selects, in order.
pub(crate) async fn marked(
    shared: &Shared,
    filter: Filter,
    accept: impl Fn(&Event) -> bool,
    other: &str,
) -> mlua::Result<Option<Done>> {
    let mut done = Done { events: Vec::new(), position: Position::ZERO, other: None };
    let each = |event: Arc<Event>| {
        if accept(&event) {
            done.events.push((event.id.clone(), event.kind.clone()));
            done.position = event.position;
            done.other = text(&event, other).map(str::to_owned);
        }
        Ok::<_, daybook_client::ReadError>(())
    };
    shared.client()?.read_all(ReadQuery { filter, ..ReadQuery::default() }, each).await.map_err(bus_error)?;
    Ok((!done.events.is_empty()).then_some(done))
}

pub(crate) fn text<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    event.extensions.iter().find_map(|(known, value)| match value {
        ExtensionValue::String(text) if known == name => Some(text.as_str()),
        _ => None,
    })
}
