//! Sending: which lane's head goes to which session, and when.

use daybook_model::Event;

use super::Group;
use super::settling::attempts_failed;
use crate::lane::{Delivery, Flight, LaneState};
use crate::members::SeatId;
use crate::planted::{Bug, has};
use crate::timers::Timer;
use crate::{BarrierId, Effect, LaneKey, Millis, Token};

impl Group {
    /// Puts a held lane into its queue, if nothing holds it any more.
    pub(super) fn release(&mut self, now: Millis, key: &LaneKey) {
        let Some(lane) = self.lanes.get(key) else { return };
        let LaneState::Held { until } = lane.state else { return };
        if until > now || lane.fence.is_some() || self.saves.is_gated(key) {
            return;
        }
        match self.failed.get(&lane.head().position) {
            // All attempts were made, but what follows from it is not on disk:
            // read again after a restart, or waiting behind another stop.
            Some(attempts)
                if attempts.failed >= self.options.max_attempts + u32::from(has(Bug::OneAttemptTooMany)) =>
            {
                let failed = attempts.failed;
                let reason = attempts_failed(failed, attempts.reason.as_deref().unwrap_or("unknown"));
                self.poisoned(now, key, failed, reason);
            }
            _ => self.enqueue(key),
        }
    }

    fn enqueue(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.state = LaneState::Queued;
        let owner = self.slots.owner(lane.slot);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        match owner.and_then(|owner| self.members.seat_mut(owner)) {
            Some(seat) => seat.ready.push(ticket, key.clone()),
            None => self.unrouted.push(ticket, key.clone()),
        }
    }

    /// Takes a queued lane out of whichever queue it is in.
    pub(super) fn unqueue(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.state != LaneState::Queued {
            return;
        }
        lane.state = LaneState::Held { until: Millis::default() };
        if let Some(seat) = self.slots.owner(lane.slot).and_then(|owner| self.members.seat_mut(owner)) {
            seat.ready.remove(key);
        }
        self.unrouted.remove(key);
        self.suspects.retain(|other| other != key);
    }

    /// Sends all that can be sent. Lanes of owned slots and those of slots that
    /// nobody owns take their turns by age, so that neither starves the other.
    pub(super) fn send(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if self.draining || self.stopped.is_some() {
            return;
        }
        loop {
            let mut progress = false;
            if self.suspect_in_flight.is_none()
                && let Some(next) = self.suspects.pop_front()
            {
                self.enqueue(&next);
            }
            let seats: Vec<SeatId> = self.members.instances().map(|(id, _)| id).collect();
            for seat in seats {
                while let Some(key) = self.next_of(seat) {
                    self.deliver(now, seat, key, out);
                    progress = true;
                }
            }
            progress |= self.route_one(now, out);
            if !progress {
                return;
            }
        }
    }

    /// The seat's next lane, if it has room and no unrouted lane is older.
    fn next_of(&mut self, id: SeatId) -> Option<LaneKey> {
        let oldest_unrouted = self.unrouted.front().map_or(u64::MAX, |(ticket, _)| ticket);
        let seat = self.members.seat_mut(id)?;
        let (ticket, key) = seat.ready.front()?;
        let weight = self.lanes.get(key)?.head().weight();
        if ticket > oldest_unrouted || !seat.has_room(weight) {
            return None;
        }
        seat.ready.pop().map(|(_, key)| key)
    }

    /// Finds an owner for the slot of the oldest unrouted lane.
    fn route_one(&mut self, now: Millis, out: &mut Vec<Effect>) -> bool {
        let Some((_, key)) = self.unrouted.front() else { return false };
        let Some(lane) = self.lanes.get(key) else { return false };
        let (slot, weight) = (lane.slot, lane.head().weight());
        if let Some(owner) = self.slots.owner(slot) {
            // Another key of the slot has found an owner meanwhile.
            if let (Some((ticket, key)), Some(seat)) = (self.unrouted.pop(), self.members.seat_mut(owner)) {
                seat.ready.push(ticket, key);
            }
            return true;
        }
        let Some(seat) = self.members.choose(weight) else { return false };
        self.slots.assign(slot, seat, &mut self.members);
        if let Some((_, key)) = self.unrouted.pop() {
            self.deliver(now, seat, key, out);
        }
        true
    }

    fn deliver(&mut self, now: Millis, id: SeatId, key: LaneKey, out: &mut Vec<Effect>) {
        debug_assert!(!self.saves.is_gated(&key), "{key:?} goes out before what came of it is durable");
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        let attempts = self.failed.get(&lane.head().position).cloned().unwrap_or_default();
        if attempts.suspect && self.suspect_in_flight.is_some() {
            // One suspect at a time: when a session dies of it, it is known.
            self.suspects.push_back(key);
            return;
        }
        let Some(seat) = self.members.seat_mut(id) else { return };
        let Some(member) = seat.member() else { return };
        if attempts.suspect {
            self.suspect_in_flight = Some(key.clone());
        }
        let due = now + self.options.max_processing_ms;
        let mut flight = Flight::new();
        for event in &lane.queue {
            let weight = event.weight();
            // What has failed before goes alone.
            let fails =
                |event: &Event| self.failed.contains_key(&event.position) && !has(Bug::FailedInCompany);
            let follows = || flight.len() < seat.window && seat.has_room(weight) && !fails(event);
            if !flight.is_empty() && (fails(lane.head()) || !follows()) {
                break;
            }
            let token = Token { member, serial: self.next_serial };
            self.next_serial += 1;
            seat.in_flight.insert(token.serial, key.clone());
            seat.bytes += weight;
            self.deliveries.insert(token.serial, key.clone());
            flight.push_back(Delivery { token, weight, since: now, due, asked: false, acked: false });
            let attempt = attempts.failed.saturating_add(1);
            out.push(Effect::Deliver { token, attempt, event: event.clone() });
        }
        if let Some(first) = flight.front() {
            self.timers.set(first.due, Timer::Due(first.token.serial));
        }
        lane.state = LaneState::InFlight(flight);
    }

    /// Old claims on `keys` must be fenced before anybody gets them again: what
    /// the old session has published is then in the log, in order, and what it
    /// still publishes is refused.
    pub(super) fn fence(&mut self, tokens: Vec<Token>, keys: &[LaneKey], out: &mut Vec<Effect>) {
        if tokens.is_empty() {
            return;
        }
        let id = BarrierId(self.next_barrier);
        self.next_barrier += 1;
        for key in keys {
            if let Some(lane) = self.lanes.get_mut(key).filter(|_| !has(Bug::NoFence)) {
                lane.fence = Some(id);
            }
        }
        self.barriers.insert(id, keys.to_vec());
        out.push(Effect::Fence { id, tokens });
    }

    pub(super) fn fenced(&mut self, now: Millis, id: BarrierId) {
        for key in self.barriers.remove(&id).unwrap_or_default() {
            if let Some(lane) = self.lanes.get_mut(&key)
                && lane.fence == Some(id)
            {
                lane.fence = None;
                self.release(now, &key);
            }
        }
    }

    /// The newest fence that a key still waits for, when its lane is new.
    pub(super) fn pending_fence(&self, key: &LaneKey) -> Option<BarrierId> {
        self.barriers.iter().rev().find(|(_, keys)| keys.contains(key)).map(|(id, _)| *id)
    }
}
