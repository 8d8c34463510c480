//! From a client's events to a batch for the store: form and limits. That no id
//! occurs twice in a batch is the store's to check.

use std::sync::Arc;

use daybook_model::{Invalid, Limits, NewEvents};
use daybook_store::{Batch, Fence};
use uuid::Uuid;

/// Who publishes.
#[derive(Clone)]
pub(crate) struct Publisher {
    pub session: Arc<str>,
    pub principal: Option<Arc<str>>,
    pub default_source: Arc<str>,
}

/// Checks `events` and makes them a batch; also tells what the batch weighs.
pub(crate) fn batch(
    events: NewEvents,
    publisher: &Publisher,
    fence: Option<Fence>,
    limits: &Limits,
) -> Result<(Batch, usize), Invalid> {
    if events.is_empty() {
        return Err(Invalid::new("events", "must hold at least one event"));
    }
    let too_large = |reason| Invalid { member: "events".into(), reason, too_large: true };
    if events.len() > limits.batch_events {
        return Err(too_large(format!(
            "{} events, at most {} are allowed",
            events.len(),
            limits.batch_events
        )));
    }
    let mut weight = 0;
    for (i, event) in events.iter().enumerate() {
        event.validate(limits).map_err(|invalid| invalid.within(&format!("events[{i}]")))?;
        weight += event.weight();
    }
    if weight > limits.batch_bytes.max(limits.event_bytes) + 1024 * events.len() {
        return Err(too_large(format!("{weight} bytes, at most {} are allowed", limits.batch_bytes)));
    }
    let batch = Batch {
        events,
        session: publisher.session.clone(),
        principal: publisher.principal.clone(),
        default_source: publisher.default_source.clone(),
        fallback_correlation: fresh_correlation(),
        fence,
    };
    Ok((batch, weight))
}

/// One for each publish: not by way of `Display`.
fn fresh_correlation() -> String {
    Uuid::now_v7().hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
}
