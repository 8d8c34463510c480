//! Sessions come, go, vanish and come back.

use std::collections::BTreeSet;

use super::Group;
use super::settling::Failure;
use crate::lane::LaneState;
use crate::members::{Presence, Seat, SeatId};
use crate::planted::{Bug, has};
use crate::timers::Timer;
use crate::{Effect, LaneKey, MemberId, Millis};

/// Why a seat is given up, and so whose events count an attempt.
enum Gone<'a> {
    Left,
    Crashed,
    /// Only the event that took too long counts.
    Overdue(&'a LaneKey),
}

/// What a session will hold.
pub(super) struct Holds {
    pub credit: usize,
    pub credit_bytes: usize,
    pub window: usize,
}

impl Group {
    pub(super) fn join(
        &mut self,
        now: Millis,
        member: MemberId,
        (instance, boot): (String, Option<String>),
        holds: Holds,
        out: &mut Vec<Effect>,
    ) {
        let Holds { credit, credit_bytes, window } = holds;
        for seat in self.members.superseded(&instance, boot.as_deref()) {
            self.give_up(now, seat, Gone::Crashed, out);
        }
        let Some(id) = self.members.resumable(&instance, boot.as_deref()) else {
            let seat = Seat {
                instance,
                boot,
                presence: Presence::Here(member),
                credit,
                credit_bytes,
                window,
                in_flight: Default::default(),
                bytes: 0,
                slots: 0,
                ready: Default::default(),
                lost: Vec::new(),
                given_back: Default::default(),
            };
            self.members.add(member, seat);
            self.slots.rebalance(&mut self.members);
            return;
        };
        // The process knows better than we do that its old connection is dead.
        if let Some(old) = self.members.seat(id).and_then(Seat::member) {
            self.take_back(id, out);
            self.members.reserve(id, now);
            let reason = "the same process has joined with a newer connection".into();
            out.push(Effect::Revoke { member: old, reason });
        }
        self.members.resume(id, member);
        let Some(seat) = self.members.seat_mut(id) else { return };
        (seat.credit, seat.credit_bytes, seat.window) = (credit, credit_bytes, window);
        for (key, _) in std::mem::take(&mut seat.lost) {
            self.hold(&key);
            self.release(now, &key);
        }
    }

    pub(super) fn leave(&mut self, now: Millis, member: MemberId, out: &mut Vec<Effect>) {
        if let Some(seat) = self.members.seat_of(member).filter(|_| !has(Bug::LeaverKeepsKeys)) {
            self.give_up(now, seat, Gone::Left, out);
        }
    }

    pub(super) fn lost(&mut self, now: Millis, member: MemberId, out: &mut Vec<Effect>) {
        let Some(id) = self.members.seat_of(member) else { return };
        let can_resume = self.members.seat(id).is_some_and(|seat| seat.boot.is_some());
        // The next process is often here before the end of the last one's
        // connection is noticed: there is nobody to wait for.
        if !can_resume || self.members.has_successor(id) {
            return self.give_up(now, id, Gone::Crashed, out);
        }
        self.take_back(id, out);
        let until = now + self.settings.grace_ms;
        self.members.reserve(id, until);
        self.timers.set(until, Timer::Grace(id));
    }

    pub(super) fn grace_over(&mut self, now: Millis, id: SeatId, out: &mut Vec<Effect>) {
        let over = |seat: &Seat| matches!(seat.presence, Presence::Reserved { until } if until <= now);
        if self.members.seat(id).is_some_and(over) {
            self.give_up(now, id, Gone::Crashed, out);
        }
    }

    pub(super) fn revoke_overdue(&mut self, now: Millis, id: SeatId, key: &LaneKey, out: &mut Vec<Effect>) {
        let member = self.members.seat(id).and_then(Seat::member);
        self.give_up(now, id, Gone::Overdue(key), out);
        if let Some(member) = member {
            let reason = "a delivery was overdue and the session did not answer".into();
            out.push(Effect::Revoke { member, reason });
        }
    }

    /// Ends all deliveries of a seat and fences them. Its keys wait for what is
    /// decided about the seat.
    fn take_back(&mut self, id: SeatId, out: &mut Vec<Effect>) {
        let Some(seat) = self.members.seat(id) else { return };
        let keys: BTreeSet<LaneKey> = seat.in_flight.values().cloned().collect();
        let (mut tokens, mut lost) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        for key in &keys {
            let its = self.end_flight(id, key);
            if let Some(lane) = self.lanes.get_mut(key) {
                lane.state = LaneState::Reserved;
            }
            lost.push((key.clone(), its.len()));
            tokens.extend(its);
        }
        self.fence(tokens, &Vec::from_iter(keys), out);
        if let Some(seat) = self.members.seat_mut(id) {
            seat.lost.extend(lost);
        }
    }

    /// Nobody sits here any more; its keys are for the others.
    fn give_up(&mut self, now: Millis, id: SeatId, gone: Gone<'_>, out: &mut Vec<Effect>) {
        self.take_back(id, out);
        let Some(mut seat) = self.members.remove(id) else { return };
        self.slots.release_all(id);
        for (key, events) in seat.lost {
            self.hold(&key);
            let reason = match gone {
                Gone::Crashed if !has(Bug::CrashCountsNothing) => "the session crashed",
                Gone::Overdue(overdue) if *overdue == key => "the session took too long",
                Gone::Crashed | Gone::Overdue(_) | Gone::Left => {
                    self.release(now, &key);
                    continue;
                }
            };
            let suspect = matches!(gone, Gone::Crashed);
            // Whichever of a window it died of: all of them are suspects.
            let which = 0..if suspect { events } else { 1 };
            let failure = Failure { reason: reason.into(), delay_ms: Some(0), jitter: 0, suspect };
            self.fail(now, &key, which, failure);
        }
        for (ticket, key) in seat.ready.drain() {
            self.unrouted.push(ticket, key);
        }
    }

    fn hold(&mut self, key: &LaneKey) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.state = LaneState::Held { until: Millis::default() };
        }
    }
}
