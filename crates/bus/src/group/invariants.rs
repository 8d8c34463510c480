//! What is true of a group between any two steps.

use std::collections::BTreeMap;

use super::Group;
use crate::LaneKey;
use crate::lane::LaneState;

impl Group {
    /// Panics if the group contradicts itself. Looks at everything.
    pub fn check_invariants(&self) {
        self.check_lanes();
        self.check_queues();
        self.check_ownership();
    }

    fn check_lanes(&self) {
        let (mut events, mut bytes, mut in_flight) = (0, 0, 0);
        for (key, lane) in self.lanes.iter() {
            assert!(!lane.queue.is_empty(), "{key:?} has a lane without events");
            let positions: Vec<_> = lane.queue.iter().map(|event| event.position).collect();
            assert!(positions.is_sorted_by(|a, b| a < b), "{key:?} is out of order: {positions:?}");
            assert_eq!(lane.detached.is_some(), self.detached.contains(key), "{key:?} is half detached");
            for position in positions {
                // Exactly one of cursor and record answers for an event.
                assert_eq!(
                    self.cursor.is_unsettled(position),
                    lane.detached.is_none(),
                    "{position} of {key:?}"
                );
            }
            events += lane.queue.len();
            bytes += lane.queue.iter().map(|event| event.weight()).sum::<usize>();
            assert!(lane.in_flight().count() <= lane.queue.len(), "{key:?} has more out than it has");
            for delivery in lane.in_flight() {
                in_flight += 1;
                assert_eq!(self.deliveries.get(&delivery.token.serial), Some(key));
                assert!(lane.fence.is_none(), "{key:?} went out before its old claim was fenced");
            }
        }
        assert_eq!((events, bytes), (self.lanes.events, self.lanes.bytes));
        assert_eq!(in_flight, self.deliveries.len());
        for (_, lane) in self.lanes.iter() {
            let first = lane.in_flight().next();
            assert!(first.is_none_or(|first| !first.acked), "an acked head is not settled");
        }
    }

    fn check_queues(&self) {
        let mut queued: BTreeMap<&LaneKey, usize> = BTreeMap::new();
        let seats = self.members.seats.values().flat_map(|seat| seat.ready.keys());
        for key in seats.chain(self.unrouted.keys()).chain(&self.suspects) {
            *queued.entry(key).or_default() += 1;
        }
        for (key, times) in &queued {
            assert_eq!(*times, 1, "{key:?} is queued {times} times");
            let state = self.lanes.get(key).map(|lane| &lane.state);
            assert_eq!(state, Some(&LaneState::Queued), "{key:?} is in a queue");
        }
        let waiting = self.lanes.iter().filter(|(_, lane)| lane.state == LaneState::Queued).count();
        assert_eq!(waiting, queued.len(), "a lane is in no queue");
    }

    fn check_ownership(&self) {
        for (id, seat) in self.members.instances() {
            let owned = self.slots.iter().filter(|(_, slot)| slot.owner == Some(id)).count();
            assert_eq!(owned, seat.slots, "slots of {id:?}");
            let mut bytes = 0;
            for (serial, key) in &seat.in_flight {
                let lane = self.lanes.get(key).expect("a delivery has a lane");
                let delivery = lane.in_flight().find(|delivery| delivery.token.serial == *serial);
                let delivery = delivery.expect("a delivery is in flight");
                assert_eq!(Some(delivery.token.member), seat.member(), "{key:?} is with another session");
                assert_eq!(self.slots.owner(lane.slot), Some(id), "{key:?} moved while in flight");
                bytes += delivery.weight;
            }
            assert_eq!(bytes, seat.bytes);
            assert!(seat.in_flight.len() <= seat.credit, "{id:?} holds more than its credit");
        }
        for (id, slot) in self.slots.iter() {
            let lanes = self.lanes.iter().filter(|(_, lane)| lane.slot == id).count();
            assert_eq!(lanes, slot.lanes, "lanes of {id:?}");
        }
    }
}
