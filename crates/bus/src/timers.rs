//! What shall happen at which time. A timer that fires too early or for
//! something past is harmless: whoever handles it looks again.

use std::collections::BTreeSet;

use crate::members::SeatId;
use crate::{LaneKey, Millis};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A delivery (by serial) takes too long.
    Due(u64),
    /// A failed event may be tried again.
    Retry(LaneKey),
    /// A lost session did not come back.
    Grace(SeatId),
}

#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Millis, Timer)>);

impl Timers {
    pub fn set(&mut self, at: Millis, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub fn unset(&mut self, at: Millis, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    pub fn next(&self) -> Option<Millis> {
        self.0.first().map(|(at, _)| *at)
    }

    pub fn pop_due(&mut self, now: Millis) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }
}
