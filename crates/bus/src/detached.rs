//! Keys whose events wait in the log instead of in memory.
//!
//! A record {key, next} answers for all events of the key from `next` on, so
//! that the cursor can pass them and memory stays bounded: parked keys, and keys
//! with a backlog of their own. Their events are read by key, from `next`, and
//! the record goes only when that reading has caught up with the group's.

use std::collections::BTreeMap;
use std::sync::Arc;

use daybook_model::Position;
use serde::{Deserialize, Serialize};

use crate::LaneKey;
use crate::planted::{Bug, has};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Detached {
    /// The key's first event that is not settled.
    pub next: Position,
    /// It failed for good at `next` and waits for an operator.
    pub parked: Option<Parked>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parked {
    pub attempts: u32,
    pub reason: Arc<str>,
    /// Its session said so, before the policy did.
    #[serde(default)]
    pub by_session: bool,
}

/// The records, and which of the keys want to be read.
#[derive(Debug, Default)]
pub(crate) struct DetachedKeys {
    records: BTreeMap<LaneKey, Detached>,
    /// Keys whose lane has run dry, with the position to read from.
    wanted: BTreeMap<LaneKey, Position>,
    /// The last one read: the others take their turn first.
    last: Option<LaneKey>,
}

impl DetachedKeys {
    pub fn restore(records: Vec<(LaneKey, Detached)>) -> Self {
        let kept = |(_, record): &(LaneKey, Detached)| record.parked.is_none() || !has(Bug::ParkedForgotten);
        let records: BTreeMap<_, _> = records.into_iter().filter(kept).collect();
        let going_on = records.iter().filter(|(_, record)| record.parked.is_none());
        let wanted = going_on.map(|(key, record)| (key.clone(), record.next)).collect();
        Self { records, wanted, last: None }
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn contains(&self, key: &LaneKey) -> bool {
        self.records.contains_key(key)
    }

    pub fn get(&self, key: &LaneKey) -> Option<&Detached> {
        self.records.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&LaneKey, &Detached)> {
        self.records.iter()
    }

    pub fn put(&mut self, key: LaneKey, record: Detached) {
        self.wanted.remove(&key);
        self.records.insert(key, record);
    }

    /// The operator lets the key go on from `next`; its events are to be read.
    pub fn unpark(&mut self, key: &LaneKey, next: Position) {
        if let Some(record) = self.records.get_mut(key) {
            *record = Detached { next, parked: None };
            self.wanted.insert(key.clone(), next);
        }
    }

    pub fn settled(&mut self, key: &LaneKey, position: Position) {
        if let Some(record) = self.records.get_mut(key).filter(|_| !has(Bug::RecordStandsStill)) {
            record.next = position.next();
        }
    }

    /// The group's own reading delivers this key again.
    pub fn reattach(&mut self, key: &LaneKey) {
        self.records.remove(key);
        self.wanted.remove(key);
    }

    pub fn want(&mut self, key: &LaneKey, from: Position) {
        self.wanted.insert(key.clone(), from);
    }

    pub fn wants(&self, key: &LaneKey) -> bool {
        self.wanted.contains_key(key)
    }

    /// The next key to read, in turn. It stays wanted until it was read.
    pub fn next_wanted(&mut self) -> Option<(LaneKey, Position)> {
        let after = self.last.as_ref().and_then(|last| {
            use std::ops::Bound::{Excluded, Unbounded};
            self.wanted.range((Excluded(last), Unbounded)).next()
        });
        let (key, from) = after.or_else(|| self.wanted.first_key_value())?;
        let found = (key.clone(), *from);
        self.last = Some(found.0.clone());
        Some(found)
    }

    pub fn was_read(&mut self, key: &LaneKey) {
        self.wanted.remove(key);
    }
}
