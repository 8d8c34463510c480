//! When a checkpoint is written, and who waits for it.
//!
//! Changes are numbered. One save is on its way at a time and carries all
//! changes so far; what waits for change n goes on once a save ≥ n is durable:
//! a key whose attempt failed, so that no crash of the server forgets the
//! attempt, and a key whose event was given up, so that the event does not come
//! back behind what followed it.

use std::collections::{BTreeMap, VecDeque};

use crate::planted::{Bug, has};
use crate::{LaneKey, Millis, ReplyId, Settings, Token};

#[derive(Debug, Default)]
pub(crate) struct Saves {
    changes: u64,
    durable: u64,
    /// The change that the save on its way carries.
    saving: Option<u64>,
    last_start: Option<Millis>,
    /// Since when something settled is not saved.
    dirty_since: Option<Millis>,
    /// Since when the cursor has only passed over unwanted events.
    moved_since: Option<Millis>,
    settled: u32,
    /// No new attempt before this, after a failed one.
    not_before: Millis,
    replies: VecDeque<(u64, ReplyId, Vec<Token>)>,
    gated: VecDeque<(u64, LaneKey)>,
    /// The newest change that each key in `gated` waits for.
    gates: BTreeMap<LaneKey, u64>,
}

/// What a durable save has set free.
pub(crate) struct Released {
    pub replies: Vec<(ReplyId, Vec<Token>)>,
    pub lanes: Vec<LaneKey>,
}

impl Saves {
    /// Something changed that must not be forgotten; returns its number.
    pub fn change(&mut self, now: Millis) -> u64 {
        self.changes += 1;
        self.dirty_since.get_or_insert(now);
        self.changes
    }

    pub fn settled(&mut self, now: Millis) {
        self.change(now);
        self.settled += 1;
    }

    pub fn moved(&mut self, now: Millis) {
        self.moved_since.get_or_insert(now);
    }

    /// Answers `reply` when all changes so far are durable.
    pub fn reply_when_durable(&mut self, reply: ReplyId, stale: Vec<Token>) {
        let change = if has(Bug::AnswerBeforeDurable) { 0 } else { self.changes };
        self.replies.push_back((change, reply, stale));
    }

    /// Nothing of the key goes out before all changes so far are durable, also if
    /// it has no event now.
    pub fn gate(&mut self, key: &LaneKey) {
        self.gated.push_back((self.changes, key.clone()));
        self.gates.insert(key.clone(), self.changes);
    }

    pub fn is_gated(&self, key: &LaneKey) -> bool {
        self.gates.get(key).is_some_and(|change| *change > self.durable)
    }

    pub fn has_gates(&self) -> bool {
        !self.gates.is_empty()
    }

    /// Everything that waits for what is durable already.
    pub fn release(&mut self) -> Released {
        let durable = self.durable;
        let mut released = Released { replies: Vec::new(), lanes: Vec::new() };
        while let Some((_, reply, stale)) = self.replies.pop_front_if(|(change, ..)| *change <= durable) {
            released.replies.push((reply, stale));
        }
        while let Some((_, lane)) = self.gated.pop_front_if(|(change, _)| *change <= durable) {
            if self.gates.get(&lane).is_some_and(|change| *change <= durable) {
                self.gates.remove(&lane);
                released.lanes.push(lane);
            }
        }
        released
    }

    /// The time at which to save; `None` if there is nothing to save or a save is on its way.
    pub fn due_at(&self, settings: &Settings, at_once: bool) -> Option<Millis> {
        if self.saving.is_some() {
            return None;
        }
        let moved = self.moved_since.map(|at| at + settings.save_idle_ms);
        let dirty = self.dirty_since.map(|at| at + settings.save_after_ms);
        let mut due = [moved, dirty].into_iter().flatten().min()?;
        let awaited = !self.replies.is_empty() || !self.gated.is_empty();
        if at_once || self.settled >= settings.save_after_acks {
            due = Millis::default();
        } else if awaited {
            let after_gap = self.last_start.map_or(Millis::default(), |at| at + settings.save_gap_ms);
            due = due.min(after_gap);
        }
        Some(due.max(self.not_before))
    }

    /// A save starts now; returns the change it carries.
    pub fn start(&mut self, now: Millis) -> u64 {
        self.saving = Some(self.changes);
        self.last_start = Some(now);
        self.dirty_since = None;
        self.moved_since = None;
        self.settled = 0;
        self.changes
    }

    pub fn saved(&mut self, number: u64) {
        if self.saving == Some(number) {
            self.saving = None;
            self.durable = self.durable.max(number);
        }
    }

    pub fn failed(&mut self, number: u64, now: Millis, settings: &Settings) {
        if has(Bug::FailedSaveCounts) {
            return self.saved(number);
        }
        if self.saving == Some(number) {
            self.saving = None;
            self.dirty_since.get_or_insert(now);
            self.not_before = now + settings.retry_ms;
        }
    }

    pub fn is_clean(&self) -> bool {
        self.saving.is_none() && self.dirty_since.is_none() && self.moved_since.is_none()
    }
}
