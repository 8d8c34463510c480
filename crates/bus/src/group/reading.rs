//! Reading the log: one read at a time, so that a key read on its own meets the
//! group's reading at a place that stands still.

use std::collections::BTreeSet;
use std::sync::Arc;

use daybook_model::{Event, Position};

use super::Group;
use crate::detached::Detached;
use crate::lane::LaneState;
use crate::planted::{Bug, has};
use crate::{Effect, LaneKey, Millis};

#[derive(Debug, Default)]
pub(super) struct Reading {
    under_way: Option<Read>,
    /// The group's own reading and single keys take turns.
    was_key: bool,
    not_before: Option<Millis>,
}

#[derive(Clone, Debug)]
enum Read {
    Log,
    Key(LaneKey),
}

impl Reading {
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    pub fn failed(&mut self, retry: Millis) {
        if self.under_way.take().is_some() {
            self.not_before = Some(retry);
        }
    }

    pub fn retry_at(&self) -> Option<Millis> {
        self.not_before
    }
}

impl Group {
    /// Asks for more if there is more and room for it.
    pub(super) fn read(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if self.reading.not_before.is_some_and(|at| at > now) {
            return;
        }
        self.reading.not_before = None;
        let full = self.lanes.events >= self.settings.buffered_events
            || self.lanes.bytes >= self.settings.buffered_bytes;
        if self.reading.is_busy() || self.draining || full || self.members.present() == 0 {
            return;
        }
        self.shorten_lag(now);
        let top = self.cursor.top();
        let lag = top.0 - self.cursor.low().0;
        // Below `top` the group reads again what it had read before a restart.
        let may_go_on = self.cursor.read < top
            || (lag < self.settings.lag_positions && self.detached.len() < self.settings.detached_keys);
        let log = self.cursor.read < self.head && may_go_on;
        let key = if log && self.reading.was_key { None } else { self.next_key_to_read() };
        let max_events = self.settings.page_events.min(self.settings.buffered_events - self.lanes.events);
        let max_bytes = self.settings.page_bytes;
        if let Some((key, from)) = key {
            let until = match &key {
                LaneKey::Event(position) => position.next(),
                LaneKey::Text(_) | LaneKey::All => top,
            };
            self.reading.was_key = true;
            self.reading.under_way = Some(Read::Key(key.clone()));
            let max_events = max_events.min(self.settings.lane_events);
            out.push(Effect::ReadKey { key, from, until, max_events, max_bytes });
        } else if log {
            self.reading.was_key = false;
            self.reading.under_way = Some(Read::Log);
            out.push(Effect::Read { from: self.cursor.read, until: self.head, max_events, max_bytes });
        }
    }

    /// A record restored after its last event was settled has nothing to read.
    fn next_key_to_read(&mut self) -> Option<(LaneKey, Position)> {
        loop {
            let (key, from) = self.detached.next_wanted()?;
            if from < self.cursor.top() {
                return Some((key, from));
            }
            self.detached.reattach(&key);
        }
    }

    pub(super) fn page(&mut self, now: Millis, next: Position, events: Vec<Arc<Event>>) {
        if self.reading.under_way.take_if(|read| matches!(read, Read::Log)).is_none() {
            return;
        }
        let from = self.cursor.read;
        let mut wanted = BTreeSet::new();
        for event in events {
            let position = event.position;
            if position < from || !self.options.wants(&event) || !self.cursor.is_open(position) {
                continue;
            }
            let key = self.options.key_of(&event);
            self.detach_if_full(now, &key);
            if self.detached.contains(&key) {
                continue;
            }
            wanted.insert(position);
            self.cursor.open(position);
            self.push(now, &key, event);
        }
        self.cursor.passed(next, &wanted);
        self.saves.moved(now);
    }

    pub(super) fn key_page(&mut self, now: Millis, next: Position, events: Vec<Arc<Event>>) {
        let Some(Read::Key(key)) = self.reading.under_way.take_if(|read| matches!(read, Read::Key(_))) else {
            return;
        };
        if !self.detached.wants(&key) {
            return;
        }
        self.detached.was_read(&key);
        if has(Bug::BacklogForgotten) {
            return;
        }
        // An operator may have skipped the first one while it was being read.
        let from = self.detached.get(&key).map_or(next, |record| record.next);
        let mut any = false;
        for event in events {
            let due = (event.position >= from || has(Bug::KeyPageFromTheStart)) && self.options.wants(&event);
            if due && self.options.key_of(&event) == key {
                any = true;
                // After a restart the cursor may have named it as well.
                self.cursor.cover(event.position);
                self.push(now, &key, event);
            }
        }
        match self.lanes.get_mut(&key).filter(|_| any) {
            Some(lane) => lane.detached = Some(next),
            None => self.resume_detached(&key, next),
        }
    }

    /// The key's lane has run dry: read on by key from `from`, or let the
    /// group's own reading have it again once nothing lies between.
    pub(super) fn resume_detached(&mut self, key: &LaneKey, from: Position) {
        let alone_and_done = matches!(key, LaneKey::Event(position) if from > *position);
        if from >= self.cursor.top() || alone_and_done || has(Bug::ReattachTooEarly) {
            self.detached.reattach(key);
        } else {
            self.detached.want(key, from);
        }
    }

    fn push(&mut self, now: Millis, key: &LaneKey, event: Arc<Event>) {
        if !self.lanes.push(key, event) {
            return;
        }
        let fence = self.pending_fence(key);
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.fence = fence;
        self.slots.lane_added(lane.slot);
        lane.state = LaneState::Held { until: now };
        self.release(now, key);
    }

    /// One key with a long backlog must not fill the memory of all.
    fn detach_if_full(&mut self, now: Millis, key: &LaneKey) {
        let full = self.lanes.get(key).is_some_and(|lane| lane.queue.len() >= self.settings.lane_events);
        if full && self.detached.len() < self.settings.detached_keys {
            self.detach(now, key);
        }
    }

    /// One stuck event must not make a restart read everything again.
    fn shorten_lag(&mut self, now: Millis) {
        while self.cursor.top().0 - self.cursor.low().0 >= self.settings.lag_positions
            && self.detached.len() < self.settings.detached_keys
        {
            let low = self.cursor.low();
            let at_low = |lane: &crate::lane::Lane| lane.head().position == low && lane.detached.is_none();
            let stuck = self.lanes.iter().find(|(_, lane)| at_low(lane)).map(|(key, _)| key.clone());
            match stuck {
                Some(key) if key != LaneKey::All => self.detach(now, &key),
                _ => return,
            }
        }
    }

    fn detach(&mut self, now: Millis, key: &LaneKey) {
        if *key == LaneKey::All {
            return;
        }
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.detached.is_none()) else { return };
        let next = lane.head().position;
        lane.detached = lane.queue.back().map(|event| event.position.next());
        for event in &lane.queue {
            self.cursor.cover(event.position);
        }
        self.detached.put(key.clone(), Detached { next, parked: None });
        self.saves.change(now);
    }
}
