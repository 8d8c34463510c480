//! What belongs together: the key of an event, and the slot of a key.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use daybook_model::wire;
use daybook_model::{Event, Filter, Pattern, Position};
use serde::{Deserialize, Serialize};

/// The events of one `LaneKey` are delivered one after the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LaneKey {
    /// `exclusive`: everything is one key.
    All,
    Text(Arc<str>),
    /// An event without key waits for nobody and nobody waits for it.
    Event(Position),
}

/// The unit of stickiness: keys of one slot go to the same session. It is never
/// the unit of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotId(pub u16);

impl LaneKey {
    pub(crate) fn of(event: &Event, mode: wire::Mode, kind: wire::Key) -> Self {
        if mode == wire::Mode::Exclusive {
            return Self::All;
        }
        match kind {
            wire::Key::Subject => match &event.subject {
                Some(subject) => Self::Text(subject.as_str().into()),
                None => Self::Event(event.position),
            },
            wire::Key::CorrelationId => Self::Text(event.correlationid.as_str().into()),
            wire::Key::SessionId => Self::Text(event.sessionid.as_str().into()),
        }
    }

    /// Never written down, so another hash may take its place at any time.
    pub(crate) fn slot(&self) -> SlotId {
        // Zero keys: the same key has the same slot in every run.
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        SlotId((hasher.finish() >> 48) as u16)
    }

    /// A filter that lets at least this key's events pass. Not exact: a key that
    /// ends in `*` reads as a prefix, so what comes back is compared again.
    pub fn filter(&self, kind: wire::Key) -> Filter {
        let Self::Text(text) = self else { return Filter::default() };
        let pattern = Pattern::from(&**text);
        match kind {
            wire::Key::Subject => Filter { subjects: Some(vec![pattern]), ..Filter::default() },
            wire::Key::CorrelationId => Filter { correlationid: Some(pattern), ..Filter::default() },
            wire::Key::SessionId => Filter { sessionid: Some(pattern), ..Filter::default() },
        }
    }
}
