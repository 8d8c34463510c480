//! Events that failed for good, and what an operator does about them.

use std::sync::Arc;

use daybook_model::wire::Poison;

use super::Group;
use crate::LaneKey;
use crate::Millis;
use crate::checkpoint::Stopped;
use crate::detached::{Detached, Parked};
use crate::lane::LaneState;
use crate::planted::{Bug, has};

impl Group {
    /// The head of a held lane waits for an operator, and the key behind it: one
    /// record in memory, however long the key's backlog grows.
    pub(super) fn park(&mut self, now: Millis, key: &LaneKey, parked: Parked) {
        // All events are one key here: to park it is to stop.
        if *key == LaneKey::All {
            return self.stop(now, key, parked.attempts, parked.reason);
        }
        self.gave_up(key, Poison::Park, parked.attempts, parked.reason.clone());
        let Some(lane) = self.lanes.get(key) else { return };
        let next = lane.head().position;
        for event in &lane.queue {
            self.cursor.cover(event.position);
        }
        self.failed.remove(&next);
        self.saves.change(now);
        self.detached.put(key.clone(), Detached { next, parked: Some(parked) });
        self.drop_lane(key);
    }

    /// The whole group waits for an operator; what is in flight may still settle.
    pub(super) fn stop(&mut self, now: Millis, key: &LaneKey, attempts: u32, reason: Arc<str>) {
        self.gave_up(key, Poison::Stop, attempts, reason.clone());
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.state = LaneState::Stopped;
        self.saves.change(now);
        let position = lane.head().position;
        // Two keys may fail for good before the first is looked at: the second
        // stops the group again once the first was dealt with.
        if self.stopped.is_none() {
            self.stopped = Some(Stopped { key: key.clone(), position, attempts, reason });
        }
    }

    pub(super) fn operator_retry(&mut self, now: Millis, key: &LaneKey) {
        if let Some(stopped) = self.stopped.take_if(|stopped| stopped.key == *key) {
            self.failed.remove(&stopped.position);
            self.go_on(now);
        } else if let Some(record) = self.detached.get(key).filter(|record| record.parked.is_some()) {
            let next = record.next;
            self.saves.change(now);
            self.detached.unpark(key, next);
            self.resume_detached(key, next);
        }
    }

    pub(super) fn operator_skip(&mut self, now: Millis, key: &LaneKey) {
        if let Some(stopped) = self.stopped.take_if(|stopped| stopped.key == *key) {
            self.failed.remove(&stopped.position);
            self.gate_skip(now, key);
            // After a restart it may not have been read again yet.
            let at_head = self.lanes.get(key).is_some_and(|lane| lane.head().position == stopped.position);
            if at_head {
                self.unqueue(key);
                self.settle_head(now, key);
            } else {
                self.cursor.settle(stopped.position);
                self.detached.settled(key, stopped.position);
            }
            self.go_on(now);
        } else if let Some(record) = self.detached.get(key).filter(|record| record.parked.is_some()) {
            let next = record.next;
            if has(Bug::SkipDoesNotSettle) {
                return self.operator_retry(now, key);
            }
            self.gate_skip(now, key);
            self.cursor.settle(next);
            self.saves.settled(now);
            self.detached.unpark(key, next.next());
            self.resume_detached(key, next.next());
        }
    }

    /// The group runs again: lanes that stopped it may be tried.
    fn go_on(&mut self, now: Millis) {
        self.saves.change(now);
        let stopped = self.lanes.iter().filter(|(_, lane)| lane.state == LaneState::Stopped);
        let keys: Vec<LaneKey> = stopped.map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.state = LaneState::Held { until: Millis::default() };
            }
            self.release(now, &key);
        }
    }
}
