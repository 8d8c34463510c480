//! Sessions and their seats.
//!
//! A seat is a place in the group; slots belong to seats. It outlives its
//! session for a few seconds, so that the same process of the same instance can
//! come back to its keys. A session never outlives its seat.

use std::collections::{BTreeMap, BTreeSet};

use crate::queue::TurnQueue;
use crate::{LaneKey, MemberId, Millis};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SeatId(pub u64);

#[derive(Debug)]
pub(crate) struct Seat {
    pub instance: String,
    pub boot: Option<String>,
    pub presence: Presence,
    pub credit: usize,
    pub credit_bytes: usize,
    /// Deliveries of one key it takes at once.
    pub window: usize,
    /// Deliveries this session holds, by serial.
    pub in_flight: BTreeMap<u64, LaneKey>,
    pub bytes: usize,
    /// Slots owned.
    pub slots: usize,
    pub ready: TurnQueue,
    /// Keys that were in flight when the session got lost, and how many events of each.
    pub lost: Vec<(LaneKey, usize)>,
    /// Tokens this session gave back unsettled, newest ones.
    pub given_back: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Here(MemberId),
    /// Lost; the same boot may take the seat until then.
    Reserved {
        until: Millis,
    },
}

/// Tokens remembered as given back: beyond this a late ack of one goes untold.
const GIVEN_BACK_MAX: usize = 10_000;

impl Seat {
    pub fn member(&self) -> Option<MemberId> {
        match self.presence {
            Presence::Here(member) => Some(member),
            Presence::Reserved { .. } => None,
        }
    }

    /// A session with nothing in flight always has room: one event larger than
    /// its credit in bytes must not wait for ever.
    pub fn has_room(&self, weight: usize) -> bool {
        self.member().is_some()
            && self.in_flight.len() < self.credit
            && (self.in_flight.is_empty() || self.bytes.saturating_add(weight) <= self.credit_bytes)
    }

    pub fn give_back(&mut self, serial: u64) {
        self.given_back.insert(serial);
        if self.given_back.len() > GIVEN_BACK_MAX {
            self.given_back.pop_first();
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Members {
    pub seats: BTreeMap<SeatId, Seat>,
    by_member: BTreeMap<MemberId, SeatId>,
    last_seat: u64,
    /// Where round robin goes on.
    last_chosen: SeatId,
}

impl Members {
    pub fn seat_of(&self, member: MemberId) -> Option<SeatId> {
        self.by_member.get(&member).copied()
    }

    pub fn seat(&self, seat: SeatId) -> Option<&Seat> {
        self.seats.get(&seat)
    }

    pub fn seat_mut(&mut self, seat: SeatId) -> Option<&mut Seat> {
        self.seats.get_mut(&seat)
    }

    /// Sessions that are here.
    pub fn present(&self) -> usize {
        self.by_member.len()
    }

    /// The seat that this process held or still holds.
    pub fn resumable(&self, instance: &str, boot: Option<&str>) -> Option<SeatId> {
        let boot = boot?;
        let same = |seat: &Seat| seat.instance == instance && seat.boot.as_deref() == Some(boot);
        self.seats.iter().find(|(_, seat)| same(seat)).map(|(id, _)| *id)
    }

    /// Seats that wait for a process which can no longer come: another one of
    /// the same instance is here.
    pub fn superseded(&self, instance: &str, boot: Option<&str>) -> Vec<SeatId> {
        let gone = |seat: &Seat| {
            seat.member().is_none() && seat.instance == instance && seat.boot.as_deref() != boot
        };
        self.seats.iter().filter(|(_, seat)| gone(seat)).map(|(id, _)| *id).collect()
    }

    /// Whether a later process of the same instance has taken a seat: then the
    /// one that sits here is lost for good once its connection is.
    pub fn has_successor(&self, id: SeatId) -> bool {
        let Some(seat) = self.seats.get(&id) else { return false };
        let later = self.seats.range((std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded));
        later.into_iter().any(|(_, other)| other.instance == seat.instance && other.boot != seat.boot)
    }

    pub fn add(&mut self, member: MemberId, seat: Seat) -> SeatId {
        self.last_seat += 1;
        let id = SeatId(self.last_seat);
        self.seats.insert(id, seat);
        self.by_member.insert(member, id);
        id
    }

    pub fn remove(&mut self, seat: SeatId) -> Option<Seat> {
        let gone = self.seats.remove(&seat)?;
        if let Some(member) = gone.member() {
            self.by_member.remove(&member);
        }
        Some(gone)
    }

    pub fn reserve(&mut self, seat: SeatId, until: Millis) {
        if let Some(seat) = self.seats.get_mut(&seat) {
            if let Some(member) = seat.member() {
                self.by_member.remove(&member);
            }
            seat.presence = Presence::Reserved { until };
        }
    }

    /// No session is here: those that might come back find nothing kept for them.
    pub fn forget_reserved(&mut self) {
        self.seats.retain(|_, seat| seat.member().is_some());
    }

    pub fn resume(&mut self, seat: SeatId, member: MemberId) {
        if let Some(there) = self.seats.get_mut(&seat) {
            there.presence = Presence::Here(member);
            there.given_back.clear();
            self.by_member.insert(member, seat);
        }
    }

    /// Sticky round robin: of the sessions with room the one with the fewest
    /// slots, and among equals the one after the last chosen. Equal sessions
    /// take turns; a new one catches up.
    pub fn choose(&mut self, weight: usize) -> Option<SeatId> {
        let last = self.last_chosen;
        let free = self.seats.iter().filter(|(_, seat)| seat.has_room(weight));
        let chosen = free.min_by_key(|(id, seat)| (seat.slots, **id <= last, **id)).map(|(id, _)| *id)?;
        self.last_chosen = chosen;
        Some(chosen)
    }

    pub fn instances(&self) -> impl Iterator<Item = (SeatId, &Seat)> {
        self.seats.iter().map(|(id, seat)| (*id, seat))
    }
}
