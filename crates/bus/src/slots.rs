//! Which session a key sticks to.
//!
//! A slot is owned from its first event until its owner is gone, or until it is
//! idle and its owner has more than its fair share. It never changes hands while
//! one of its keys is in flight.

use std::collections::BTreeMap;

use crate::key::SlotId;
use crate::members::{Members, SeatId};

#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub owner: Option<SeatId>,
    /// Keys of this slot with work to do.
    pub lanes: usize,
}

/// Slots that are owned or have work; all others are unassigned and idle.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    map: BTreeMap<SlotId, Slot>,
    owned: usize,
}

impl Slots {
    pub fn owner(&self, slot: SlotId) -> Option<SeatId> {
        self.map.get(&slot)?.owner
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        self.map.iter().map(|(id, slot)| (*id, slot))
    }

    pub fn lane_added(&mut self, slot: SlotId) {
        self.map.entry(slot).or_default().lanes += 1;
    }

    /// The key has no more work; an idle slot may go back.
    pub fn lane_removed(&mut self, slot: SlotId, members: &mut Members) {
        let Some(entry) = self.map.get_mut(&slot) else { return };
        entry.lanes -= 1;
        if entry.lanes == 0 {
            self.rebalance_idle(slot, members);
        }
    }

    pub fn assign(&mut self, slot: SlotId, seat: SeatId, members: &mut Members) {
        self.map.entry(slot).or_default().owner = Some(seat);
        self.owned += 1;
        if let Some(seat) = members.seat_mut(seat) {
            seat.slots += 1;
        }
    }

    /// Takes all slots from a seat that goes.
    pub fn release_all(&mut self, seat: SeatId) {
        for slot in self.map.values_mut().filter(|slot| slot.owner == Some(seat)) {
            slot.owner = None;
            self.owned -= 1;
        }
        self.map.retain(|_, slot| slot.owner.is_some() || slot.lanes > 0);
    }

    /// A session came: idle slots of those above their share are free for it.
    pub fn rebalance(&mut self, members: &mut Members) {
        let idle: Vec<_> = self.map.iter().filter(|(_, slot)| slot.lanes == 0).map(|(id, _)| *id).collect();
        for slot in idle {
            self.rebalance_idle(slot, members);
        }
    }

    fn rebalance_idle(&mut self, id: SlotId, members: &mut Members) {
        let fair_share = self.owned.div_ceil(members.seats.len().max(1));
        let Some(slot) = self.map.get(&id) else { return };
        let above = |seat: &SeatId| members.seats.get(seat).is_some_and(|seat| seat.slots > fair_share);
        match slot.owner {
            None => {
                self.map.remove(&id);
            }
            Some(owner) if above(&owner) => {
                self.map.remove(&id);
                self.owned -= 1;
                if let Some(seat) = members.seat_mut(owner) {
                    seat.slots -= 1;
                }
            }
            Some(_) => {}
        }
    }
}
