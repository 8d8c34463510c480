//! What a group must not forget: its options and how far it has come.
//!
//! Sessions, slots and timers are not here: they end with the process, and a
//! crash of the server counts as an attempt for nobody.

use std::sync::Arc;

use daybook_model::Position;
use serde::{Deserialize, Serialize};

use crate::detached::Detached;
use crate::{LaneKey, Options};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub options: Options,
    /// Everything below is settled, except what the next members name.
    pub top: Position,
    pub unsettled: Vec<Position>,
    /// Events that failed at least once and are not settled.
    pub failed: Vec<Failed>,
    pub(crate) detached: Vec<(LaneKey, Detached)>,
    /// The `stop` policy applied at this key.
    pub stopped: Option<Stopped>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub position: Position,
    pub attempts: u32,
    /// It was in flight when a session crashed, and may be what killed it.
    pub suspect: bool,
    /// Why the last attempt failed.
    #[serde(default)]
    pub reason: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    pub key: LaneKey,
    pub position: Position,
    pub attempts: u32,
    pub reason: Arc<str>,
}

impl Checkpoint {
    /// A group that begins at `start`.
    pub fn new(options: Options, start: Position) -> Self {
        Self {
            options,
            top: start,
            unsettled: Vec::new(),
            failed: Vec::new(),
            detached: Vec::new(),
            stopped: None,
        }
    }

    /// The position after the last that it knows of. A log that ends before it
    /// is not the log that it was written beside: what comes there next would
    /// count as settled.
    pub fn end(&self) -> Position {
        let events = self.unsettled.iter().copied();
        let events = events.chain(self.failed.iter().map(|failed| failed.position));
        let events = events.chain(self.stopped.iter().map(|stopped| stopped.position));
        // Where a key goes on may be where its next event will be.
        let going_on = self.detached.iter().map(|(_, detached)| detached.next);
        events.map(Position::next).chain(going_on).fold(self.top, Position::max)
    }
}
