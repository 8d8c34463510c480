//! Recent events, decoded: those who follow the log do not read the disk, and
//! an event published twice in a row is known without it.

use std::collections::VecDeque;
use std::sync::Arc;

use daybook_model::{Event, Position};

use super::codec::Defaulted;

pub(crate) struct Tail {
    /// Consecutive positions.
    events: VecDeque<(Arc<Event>, Defaulted)>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub fn new(bytes_max: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub fn push(&mut self, event: Arc<Event>, defaulted: Defaulted) {
        self.bytes += event.weight();
        self.events.push_back((event, defaulted));
        while self.bytes > self.bytes_max {
            let Some((oldest, _)) = self.events.pop_front() else { break };
            self.bytes -= oldest.weight();
        }
    }

    /// The oldest position that is here.
    pub fn first(&self) -> Option<u64> {
        Some(self.events.front()?.0.position.0)
    }

    pub fn get(&self, position: Position) -> Option<&Arc<Event>> {
        self.stored(position).map(|(event, _)| event)
    }

    /// With what the server had filled in.
    pub fn stored(&self, position: Position) -> Option<&(Arc<Event>, Defaulted)> {
        let first = self.first()?;
        self.events.get(usize::try_from(position.0.checked_sub(first)?).ok()?)
    }
}
