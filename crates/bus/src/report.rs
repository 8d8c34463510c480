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
    /// The same with the keys that are read on their own, parked ones not counted.
    pub earliest: Position,
    /// Where the group reads on.
    pub read: Position,
    pub members: Vec<MemberReport>,
    pub in_flight: usize,
    /// Events read and waiting.
    pub waiting: usize,
    pub parked: usize,
    /// Those of them that a session gave up; the others had all their attempts.
    pub parked_by_session: usize,
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

/// Why a key is where it is.
#[derive(Clone, Debug, Serialize)]
pub struct KeyReport {
    pub subject: String,
    pub slot: u16,
    /// The instance that the key sticks to.
    pub owner: Option<String>,
    /// Whether that instance is connected; if not, the key waits for it.
    pub owner_connected: bool,
    #[serde(flatten)]
    pub state: KeyState,
    /// Events of the key in memory.
    pub waiting: usize,
    /// Earliest event not settled, as far as it was read.
    pub next: Option<Position>,
    /// Failed attempts at that event.
    pub failed_attempts: u32,
    /// Its event was in flight when a session crashed: such are sent one at a time.
    pub suspect: bool,
    /// Why the last of them failed.
    pub last_error: Option<String>,
    /// Where the group reads on: of later events it does not know.
    pub read: Position,
    /// Sessions that are here; without one nothing is delivered.
    pub members: usize,
    /// The group delivers nothing: it is stopped there.
    pub stopped_at: Option<Position>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum KeyState {
    /// Nothing of it waits, as far as the group has read.
    Absent,
    /// Waits for its turn: for a session with credit.
    Ready,
    /// A session has it.
    InFlight { instance: Option<String>, for_ms: u64, due_in_ms: u64, asked: bool },
    /// Waits after a failure.
    Backoff { next_in_ms: u64 },
    /// Waits until the old claim is fenced and what was published under it is durable.
    Fencing,
    /// Waits until its attempt is on disk.
    Saving,
    /// Its session is gone and may come back.
    Reserved,
    /// It failed for good and waits for an operator.
    Parked { attempts: u32, reason: String },
    /// The whole group waits here for an operator.
    Stopped { attempts: u32, reason: String },
    /// Its events wait in the log, not in memory, and are read by key.
    Behind,
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
    /// From here on nothing was settled.
    pub fn top(&self) -> Position {
        self.top
    }

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
