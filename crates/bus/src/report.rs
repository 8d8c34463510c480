//! A group as an operator sees it, and what a rebuilding service asks it.

use std::collections::{BTreeMap, BTreeSet};

use daybook_model::{Event, Position};
use serde::Serialize;

use crate::{LaneKey, Options};

#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    #[serde(flatten)]
    pub options: Options,
    /// The earliest event not known settled.
    pub low: Position,
    /// Where the group reads on.
    pub read: Position,
    pub members: Vec<MemberReport>,
    pub in_flight: usize,
    /// Events read and waiting.
    pub waiting: usize,
    pub parked: usize,
    /// Keys whose events wait in the log, parked ones not counted.
    pub behind: usize,
    pub stopped: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct MemberReport {
    pub instance: String,
    /// False: lost, its keys wait for it.
    pub connected: bool,
    pub slots: usize,
    pub in_flight: usize,
    pub credit: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct ParkedReport {
    #[serde(skip)]
    pub key: LaneKey,
    /// The key, or the position of an event that has none.
    pub subject: String,
    /// The event that failed.
    pub position: Position,
    pub attempts: u32,
    pub reason: String,
    /// The whole group waits here.
    pub stopped: bool,
}

/// What a group had settled at one moment.
#[derive(Clone, Debug)]
pub struct Settled {
    pub(crate) options: Options,
    pub(crate) top: Position,
    pub(crate) unsettled: BTreeSet<Position>,
    pub(crate) detached: BTreeMap<LaneKey, Position>,
}

impl Settled {
    /// Takes the event, not its position: what waits in a parked key can only be
    /// told by its key, and an event the group never wanted was never settled.
    pub fn contains(&self, event: &Event) -> bool {
        event.position < self.top
            && !self.unsettled.contains(&event.position)
            && self.options.wants(event)
            && self.detached.get(&self.options.key_of(event)).is_none_or(|next| event.position < *next)
    }
}

impl LaneKey {
    /// How an operator names it.
    pub fn name(&self) -> String {
        match self {
            Self::All => "*".into(),
            Self::Text(text) => text.to_string(),
            Self::Event(position) => position.to_string(),
        }
    }
}
