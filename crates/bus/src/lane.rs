//! One key with work to do. A lane exists only while it has events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use daybook_model::{Event, Position};

use crate::key::SlotId;
use crate::{BarrierId, LaneKey, Millis, Token};

#[derive(Debug)]
pub(crate) struct Lane {
    pub slot: SlotId,
    /// The head first, also while it is in flight. Never empty.
    pub queue: VecDeque<Arc<Event>>,
    pub state: LaneState,
    /// Old claims on the key whose fence is not confirmed yet.
    pub fence: Option<BarrierId>,
    /// A record answers for this key, not the cursor. What comes after the
    /// queue is read by key from here.
    pub detached: Option<Position>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LaneState {
    /// Waits in a queue for its turn.
    Queued,
    /// A session has the head, and after it as many as its window allows.
    InFlight(Flight),
    /// Waits for time, for a fence or for a checkpoint.
    Held { until: Millis },
    /// Its session is gone and may come back.
    Reserved,
    /// Here the group stopped.
    Stopped,
}

/// Deliveries of the first events of a lane, in order; never empty.
pub(crate) type Flight = VecDeque<Delivery>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub token: Token,
    pub weight: usize,
    /// Since when the session can work on it: sent, and all before it settled.
    pub since: Millis,
    pub due: Millis,
    /// The session was asked whether it still works.
    pub asked: bool,
    /// Acked while one before it is not: settled as soon as that is.
    pub acked: bool,
}

impl Lane {
    pub fn head(&self) -> &Arc<Event> {
        self.queue.front().expect("a lane without events is removed in the same step")
    }

    /// What a session has of it; the head's delivery first.
    pub fn in_flight(&self) -> impl Iterator<Item = &Delivery> {
        let flight = match &self.state {
            LaneState::InFlight(flight) => Some(flight),
            _ => None,
        };
        flight.into_iter().flatten()
    }

    /// The delivery that its session works on.
    pub fn at_work(&mut self) -> Option<&mut Delivery> {
        match &mut self.state {
            LaneState::InFlight(flight) => flight.front_mut(),
            _ => None,
        }
    }
}

/// All lanes, and what they hold.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    map: BTreeMap<LaneKey, Lane>,
    pub events: usize,
    pub bytes: usize,
}

impl Lanes {
    pub fn get(&self, key: &LaneKey) -> Option<&Lane> {
        self.map.get(key)
    }

    pub fn get_mut(&mut self, key: &LaneKey) -> Option<&mut Lane> {
        self.map.get_mut(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&LaneKey, &Lane)> {
        self.map.iter()
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Appends to the key's lane; true if that made one.
    pub fn push(&mut self, key: &LaneKey, event: Arc<Event>) -> bool {
        self.events += 1;
        self.bytes += event.weight();
        if let Some(lane) = self.map.get_mut(key) {
            lane.queue.push_back(event);
            return false;
        }
        let lane = Lane {
            slot: key.slot(),
            queue: VecDeque::from([event]),
            state: LaneState::Held { until: Millis::default() },
            fence: None,
            detached: None,
        };
        self.map.insert(key.clone(), lane);
        true
    }

    pub fn pop_head(&mut self, key: &LaneKey) -> Option<Arc<Event>> {
        let event = self.map.get_mut(key)?.queue.pop_front()?;
        self.events -= 1;
        self.bytes -= event.weight();
        Some(event)
    }

    pub fn remove(&mut self, key: &LaneKey) -> Option<Lane> {
        let lane = self.map.remove(key)?;
        self.events -= lane.queue.len();
        self.bytes -= lane.queue.iter().map(|event| event.weight()).sum::<usize>();
        Some(lane)
    }
}
