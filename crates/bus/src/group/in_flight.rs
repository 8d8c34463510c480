//! Deliveries that are out, and how each ends.
//!
//! A session with a window holds several events of one key. They are settled in
//! the key's order only: an ack that comes before its time waits, and counts for
//! nothing if an earlier event fails, since then all of them come again.

use std::collections::BTreeSet;

use super::Group;
use crate::lane::LaneState;
use crate::members::SeatId;
use crate::planted::{Bug, has};
use crate::timers::Timer;
use crate::{LaneKey, MemberId, Millis, ReplyId, Token};

/// An ack whose sender waits, while some of it waits for earlier events.
#[derive(Debug)]
pub(super) struct HeldReply {
    reply: ReplyId,
    waiting: BTreeSet<Token>,
    stale: Vec<Token>,
}

impl Group {
    /// Whether the delivery is neither settled nor taken back.
    pub fn is_in_flight(&self, token: Token) -> bool {
        self.deliveries.contains_key(&token.serial)
    }

    /// The seat and key of a live delivery that is this session's.
    pub(super) fn held_by(&self, member: MemberId, token: Token) -> Option<(SeatId, LaneKey)> {
        let member = if has(Bug::AckOfOthersAccepted) { token.member } else { member };
        if token.member != member {
            return None;
        }
        let id = self.members.seat_of(member)?;
        let key = self.members.seat(id)?.in_flight.get(&token.serial)?;
        Some((id, key.clone()))
    }

    /// The session is done with it: settled, with all that were acked behind it,
    /// once everything before it is.
    pub(super) fn acked(&mut self, now: Millis, seat: SeatId, key: &LaneKey, token: Token) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let LaneState::InFlight(flight) = &mut lane.state else { return };
        if let Some(delivery) = flight.iter_mut().find(|delivery| delivery.token == token) {
            delivery.acked = true;
        }
        while self.lanes.get_mut(key).and_then(|lane| lane.at_work()).is_some_and(|first| {
            first.acked || (has(Bug::AckSettlesEarlier) && first.token.serial < token.serial)
        }) {
            self.settle_first(now, seat, key);
        }
    }

    /// The delivery its session works on is settled; it works on the next one.
    fn settle_first(&mut self, now: Millis, seat: SeatId, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let LaneState::InFlight(flight) = &mut lane.state else { return };
        let Some(first) = flight.pop_front() else { return };
        let next = flight.front_mut().map(|next| {
            next.since = now;
            next.due = now + self.options.max_processing_ms;
            (next.due, next.token.serial)
        });
        match next {
            Some((due, serial)) => self.timers.set(due, Timer::Due(serial)),
            None => lane.state = LaneState::Held { until: Millis::default() },
        }
        self.forget(seat, key, std::slice::from_ref(&first));
        self.answer_held(first.token, true);
        self.settle_head(now, key);
    }

    /// The session has none of the key's events any more. The lane is held, by
    /// nothing yet; what was acked before its time is not settled.
    pub(super) fn end_flight(&mut self, seat: SeatId, key: &LaneKey) -> Vec<Token> {
        let Some(lane) = self.lanes.get_mut(key) else { return Vec::new() };
        let held = LaneState::Held { until: Millis::default() };
        let flight = match std::mem::replace(&mut lane.state, held) {
            LaneState::InFlight(flight) => Vec::from(flight),
            other => {
                lane.state = other;
                return Vec::new();
            }
        };
        self.forget(seat, key, &flight);
        let tokens: Vec<Token> = flight.iter().map(|delivery| delivery.token).collect();
        for token in &tokens {
            self.answer_held(*token, false);
        }
        tokens
    }

    fn forget(&mut self, seat: SeatId, key: &LaneKey, over: &[crate::lane::Delivery]) {
        for delivery in over {
            let serial = delivery.token.serial;
            self.deliveries.remove(&serial);
            self.timers.unset(delivery.due, Timer::Due(serial));
            if let Some(seat) = self.members.seat_mut(seat) {
                seat.in_flight.remove(&serial);
                seat.bytes -= delivery.weight;
            }
        }
        if self.suspect_in_flight.as_ref() == Some(key) {
            self.suspect_in_flight = None;
        }
    }

    /// Answers the ack once it is durable, and not before all of it is settled.
    pub(super) fn answer(&mut self, reply: ReplyId, acked: &[Token], stale: Vec<Token>) {
        let waiting: BTreeSet<Token> =
            acked.iter().copied().filter(|token| self.is_in_flight(*token)).collect();
        if waiting.is_empty() {
            self.saves.reply_when_durable(reply, stale);
        } else {
            self.held_replies.push(HeldReply { reply, waiting, stale });
        }
    }

    fn answer_held(&mut self, token: Token, settled: bool) {
        let mut over = Vec::new();
        for held in &mut self.held_replies {
            if held.waiting.remove(&token) && !settled {
                held.stale.push(token);
            }
        }
        self.held_replies.retain_mut(|held| {
            let done = held.waiting.is_empty();
            if done {
                over.push((held.reply, std::mem::take(&mut held.stale)));
            }
            !done
        });
        for (reply, stale) in over {
            self.saves.reply_when_durable(reply, stale);
        }
    }
}
