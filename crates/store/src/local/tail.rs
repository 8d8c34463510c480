//! Recent events, decoded: those who follow the log do not read the disk.

use std::collections::VecDeque;
use std::sync::Arc;

use daybook_model::{Event, Position};

pub(crate) struct Tail {
    /// Consecutive positions.
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub fn new(bytes_max: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.weight();
        self.events.push_back(event);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.weight();
        }
    }

    /// The oldest position that is here.
    pub fn first(&self) -> Option<u64> {
        Some(self.events.front()?.position.0)
    }

    pub fn get(&self, position: Position) -> Option<&Arc<Event>> {
        let first = self.events.front()?.position.0;
        self.events.get(usize::try_from(position.0.checked_sub(first)?).ok()?)
    }
}
