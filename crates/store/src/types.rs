//! What goes into a store and comes out of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Durations;
use daybook_model::{Event, Filter, Invalid, NewEvents, Position, Sequence, Timestamp};

/// Events to be stored together or not at all. Already validated.
#[derive(Clone, Debug)]
pub struct Batch {
    pub events: NewEvents,
    /// Becomes `sessionid`.
    pub session: Arc<str>,
    /// Becomes `authid`.
    pub principal: Option<Arc<str>>,
    /// Becomes `source` where an event names none.
    pub default_source: Arc<str>,
    /// Correlation of events that neither name one nor have a known cause;
    /// handed in because a store has no random source.
    pub fallback_correlation: String,
    /// The claim this batch is published under.
    pub fence: Option<Fence>,
}

/// A claim that can be withdrawn. It is raised by [`EventStore::barrier`] in
/// the store's own order: whatever is ordered later under it is refused.
///
/// [`EventStore::barrier`]: crate::EventStore::barrier
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<AtomicBool>);

impl Fence {
    pub fn new() -> Self {
        Self::default()
    }

    /// Called by stores only, at the barrier's place in the order.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether both are the same claim.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// One stored event, as its publisher learns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub id: String,
    pub position: Position,
    pub sequence: Option<Sequence>,
    pub recordedtime: Timestamp,
    /// It was stored before; this publish changed nothing.
    pub duplicate: bool,
}

/// Why a batch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Another writer took the value. The right one is not told (paper §4.2).
    #[error("the next event of `{subject}` does not take the expected sequence value")]
    Conflict { subject: String },
    #[error("event id `{id}` is known with other content")]
    IdConflict { id: String },
    #[error("only some ids of the batch are known, among them `{id}`")]
    PartlyKnown { id: String },
    /// Form that only the store can see, like an id twice in one batch.
    #[error("{0}")]
    Invalid(Invalid),
    #[error("the delivery is no longer this session's")]
    Fenced,
    #[error("too much is waiting to be written")]
    Overloaded,
    /// Not stored, and cannot be now.
    #[error("not stored: {reason}")]
    Unavailable { reason: String },
    /// Written, but the disk did not confirm: may or may not be stored.
    #[error("may or may not be stored: {reason}")]
    UnknownOutcome { reason: String },
}

/// Why a read gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Damage on disk: which file, at which offset.
    #[error("{0}")]
    Damaged(String),
    #[error("cannot read: {0}")]
    Unavailable(String),
}

/// Why a checkpoint was not written. The log is not affected.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot write the checkpoint of group `{group}`: {reason}")]
pub struct CheckpointError {
    pub group: String,
    pub reason: String,
}

/// Which events to read: [`from`, `until`) in order of position, or from the
/// top downwards if `reverse`.
#[derive(Clone, Debug)]
pub struct Query {
    pub from: Position,
    /// Exclusive; `None` is the durable head at the time of the call.
    pub until: Option<Position>,
    pub filter: Filter,
    pub reverse: bool,
    pub max_events: usize,
    /// At least one event is returned even if it is larger.
    pub max_bytes: usize,
}

/// A piece of a read.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub events: Vec<Arc<Event>>,
    /// Where to go on: `from` of the next query, or `until` if reversed.
    /// `None` when [`from`, `until`) is exhausted. A page may be empty and have one.
    pub next: Option<Position>,
}

/// A page as it is sent: the events as JSON, a comma between two.
#[derive(Clone, Debug, Default)]
pub struct WrittenPage {
    /// Begins with what the caller had written before.
    pub json: Vec<u8>,
    pub events: usize,
    /// As in [`Page`].
    pub next: Option<Position>,
}

impl Page {
    /// Appends the events to `json`.
    pub fn write(&self, mut json: Vec<u8>) -> WrittenPage {
        json.reserve(self.events.iter().map(|event| event.weight()).sum());
        for (i, event) in self.events.iter().enumerate() {
            if i > 0 {
                json.push(b',');
            }
            event.write_json(&mut json);
        }
        WrittenPage { json, events: self.events.len(), next: self.next }
    }
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectInfo {
    pub subject: String,
    pub events: u64,
    pub last: Position,
}

/// Whether the store takes events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Ok,
    /// Publishing is refused for now; reads go on.
    Degraded(String),
    /// A failed write: the process has to be started again.
    Poisoned(String),
}

/// Counters for `/metrics`; all only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub events: u64,
    pub batches: u64,
    pub bytes_written: u64,
    /// Each append, from its place in the order to its answer.
    pub append: Durations,
    pub fsync: Durations,
}

/// What a store takes at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub log_bytes: u64,
    pub index_bytes: u64,
    pub index_runs: u64,
    /// Events that only memory knows how to find.
    pub index_memory_events: u64,
    /// Left on the disk of the log.
    pub free_bytes: Option<u64>,
}
