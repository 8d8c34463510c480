//! Lanes waiting for their turn, oldest first. Tickets tell which of two queues
//! has the older one, so that neither can starve the other.

use std::collections::VecDeque;

use crate::LaneKey;

#[derive(Debug, Default)]
pub(crate) struct TurnQueue(VecDeque<(u64, LaneKey)>);

impl TurnQueue {
    pub fn push(&mut self, ticket: u64, key: LaneKey) {
        self.0.push_back((ticket, key));
    }

    pub fn front(&self) -> Option<(u64, &LaneKey)> {
        self.0.front().map(|(ticket, key)| (*ticket, key))
    }

    pub fn pop(&mut self) -> Option<(u64, LaneKey)> {
        self.0.pop_front()
    }

    pub fn keys(&self) -> impl Iterator<Item = &LaneKey> {
        self.0.iter().map(|(_, key)| key)
    }

    pub fn drain(&mut self) -> impl Iterator<Item = (u64, LaneKey)> + '_ {
        self.0.drain(..)
    }

    pub fn remove(&mut self, key: &LaneKey) {
        self.0.retain(|(_, other)| other != key);
    }
}
