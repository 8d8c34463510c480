//! What a session says of its deliveries.

use std::ops::Range;
use std::sync::Arc;

use daybook_model::wire::{NackAction, Poison};

use super::Group;
use crate::backoff;
use crate::detached::Parked;
use crate::lane::LaneState;
use crate::planted::{Bug, has};
use crate::timers::Timer;
use crate::{Effect, LaneKey, MemberId, Millis, ReplyId, Token};

/// Why an event's delivery failed.
pub(super) struct Failure {
    pub reason: Arc<str>,
    /// Wait before the next attempt; by the number of failures if not said.
    pub delay_ms: Option<u64>,
    pub jitter: u64,
    /// The session died, perhaps of this.
    pub suspect: bool,
}

impl Group {
    pub(super) fn ack(&mut self, now: Millis, member: MemberId, tokens: Vec<Token>, reply: Option<ReplyId>) {
        let (mut acked, mut stale) = (Vec::new(), Vec::new());
        for token in tokens {
            match self.held_by(member, token) {
                Some((seat, key)) => {
                    self.acked(now, seat, &key, token);
                    acked.push(token);
                }
                None if self.acked_before(member, token) => {}
                None => stale.push(token),
            }
        }
        if let Some(reply) = reply {
            self.answer(reply, &acked, stale);
        }
    }

    pub(super) fn nack(
        &mut self,
        now: Millis,
        member: MemberId,
        token: Token,
        (action, delay_ms, reason, jitter): (NackAction, Option<u64>, Option<String>, u64),
        out: &mut Vec<Effect>,
    ) {
        // A nack of a claim already lost changes nothing: the key went on without it.
        let Some((id, key)) = self.held_by(member, token) else { return };
        let place = self.lanes.get(&key).and_then(|lane| lane.in_flight().position(|d| d.token == token));
        let Some(place) = place else { return };
        let longest = self.settings.reason_bytes;
        let given = |default: &str| shortened(reason.as_deref().unwrap_or(default), longest).into();
        if let Some(seat) = self.members.seat_mut(id) {
            seat.give_back(token.serial);
        }
        let skipped = action == NackAction::Skip && place == 0;
        if skipped {
            let attempts = self.attempts_of(&key).saturating_add(1);
            self.gave_up(&key, Poison::Skip, attempts, given("skipped by the session"));
            self.gate_skip(now, &key);
        }
        if skipped && (self.is_alone(&key) || has(Bug::WindowOutlivesSkip)) {
            // Like an ack: the session itself lets go of the event for good.
            return self.acked(now, id, &key, token);
        }
        if has(Bug::RetrySettles) {
            return self.acked(now, id, &key, token);
        }
        // Go back: whatever the session has of the key comes again after this one.
        let mut tokens = self.end_flight(id, &key);
        if let Some(seat) = self.members.seat_mut(id) {
            tokens.iter().for_each(|token| seat.give_back(token.serial));
        }
        if has(Bug::LaterNotFenced) {
            tokens.truncate(1);
        }
        self.fence(tokens, std::slice::from_ref(&key), out);
        if skipped {
            return self.settle_head(now, &key);
        }
        // What is not the key's first event can be given up only once it is: it
        // comes again, and its session may say so then.
        if action == NackAction::Park && place == 0 {
            let attempts = self.attempts_of(&key).saturating_add(1);
            let reason = given("parked by the session");
            return self.park(now, &key, Parked { attempts, reason, by_session: true });
        }
        let delay_ms = delay_ms.map(|ms| ms.min(self.settings.delay_max_ms));
        let reason = given("the session asked for a retry");
        self.fail(now, &key, place..place + 1, Failure { reason, delay_ms, jitter, suspect: false });
    }

    pub(super) fn progress(&mut self, now: Millis, member: MemberId, token: Token) {
        let Some((_, key)) = self.held_by(member, token) else { return };
        let allowed = self.options.max_processing_ms;
        let longest = allowed.saturating_mul(self.settings.longest_factor);
        let at_work = self.lanes.get_mut(&key).and_then(|lane| lane.at_work());
        let Some(delivery) = at_work.filter(|delivery| delivery.token == token) else { return };
        let end = delivery.since + longest;
        // "Still working" is believed only so long.
        if now >= end {
            return;
        }
        self.timers.unset(delivery.due, Timer::Due(token.serial));
        delivery.due = (now + allowed).min(end);
        delivery.asked = false;
        self.timers.set(delivery.due, Timer::Due(token.serial));
    }

    /// A delivery has taken its time: first the session is asked, then it loses its claim.
    pub(super) fn due(&mut self, now: Millis, serial: u64, out: &mut Vec<Effect>) {
        let Some(key) = self.deliveries.get(&serial).cloned() else { return };
        let Some(delivery) = self.lanes.get_mut(&key).and_then(|lane| lane.at_work()) else { return };
        if delivery.due > now || delivery.token.serial != serial {
            return;
        }
        if !delivery.asked {
            delivery.asked = true;
            delivery.due = now + self.settings.overdue_answer_ms;
            self.timers.set(delivery.due, Timer::Due(serial));
            out.push(Effect::Overdue(delivery.token));
            return;
        }
        let member = delivery.token.member;
        if let Some(seat) = self.members.seat_of(member) {
            self.revoke_overdue(now, seat, &key, out);
        }
    }

    /// This session had the delivery and settled it: saying so twice is fine.
    fn acked_before(&self, member: MemberId, token: Token) -> bool {
        let seat = self.members.seat_of(member).and_then(|id| self.members.seat(id));
        let own = |seat: &crate::members::Seat| {
            token.member == member
                && token.serial < self.next_serial
                && !seat.given_back.contains(&token.serial)
        };
        seat.is_some_and(own)
    }

    /// The head of a lane is done, and in nobody's hands; the next may follow.
    pub(super) fn settle_head(&mut self, now: Millis, key: &LaneKey) {
        let Some(event) = self.lanes.pop_head(key) else { return };
        if has(Bug::AckSettlesTwo)
            && let Some(next) = self.lanes.pop_head(key)
        {
            self.cursor.settle(next.position);
        }
        self.failed.remove(&event.position);
        self.cursor.settle(event.position);
        self.detached.settled(key, event.position);
        self.saves.settled(now);
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if !lane.queue.is_empty() {
            if lane.in_flight().next().is_none() {
                lane.state = LaneState::Held { until: Millis::default() };
                self.release(now, key);
            }
            return;
        }
        let detached = lane.detached;
        self.drop_lane(key);
        if let Some(from) = detached {
            self.resume_detached(key, from);
        }
    }

    pub(super) fn drop_lane(&mut self, key: &LaneKey) {
        if let Some(lane) = self.lanes.remove(key) {
            self.slots.lane_removed(lane.slot, &mut self.members);
        }
    }

    /// One attempt at these events of a held lane has failed.
    pub(super) fn fail(&mut self, now: Millis, key: &LaneKey, which: Range<usize>, failure: Failure) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        for event in lane.queue.range(which.start..which.end.min(lane.queue.len())) {
            let attempts = self.failed.entry(event.position).or_default();
            attempts.failed = attempts.failed.saturating_add(1);
            attempts.suspect |= failure.suspect;
            attempts.reason = Some(failure.reason.clone());
        }
        let failed = lane.queue.get(which.start).and_then(|event| self.failed.get(&event.position));
        let failed = failed.map_or(0, |attempts| attempts.failed);
        self.saves.change(now);
        if which.start == 0 && failed >= self.options.max_attempts + u32::from(has(Bug::OneAttemptTooMany)) {
            return self.poisoned(now, key, failed, attempts_failed(failed, &failure.reason));
        }
        let wait = match failure.delay_ms {
            Some(ms) => ms,
            None => backoff::delay_ms(&self.settings, failed, failure.jitter),
        };
        lane.state = LaneState::Held { until: now + wait };
        self.saves.gate(key);
        self.timers.set(now + wait, Timer::Retry(key.clone()));
    }

    pub(super) fn poisoned(&mut self, now: Millis, key: &LaneKey, attempts: u32, reason: Arc<str>) {
        match self.options.poison {
            Poison::Park => self.park(now, key, Parked { attempts, reason, by_session: false }),
            Poison::Skip => {
                self.gave_up(key, Poison::Skip, attempts, reason);
                self.gate_skip(now, key);
                self.settle_head(now, key);
            }
            Poison::Stop => self.stop(now, key, attempts, reason),
        }
    }

    /// What is skipped leaves nothing in the log that would tell it from an event
    /// never handled: were the skip forgotten by a crash, the event would be
    /// handled behind those that followed it. So these wait until it is on disk.
    pub(super) fn gate_skip(&mut self, now: Millis, key: &LaneKey) {
        if !has(Bug::SkipGoesOnAtOnce) {
            self.saves.change(now);
            self.saves.gate(key);
        }
    }

    /// The session has only the first event of the key.
    fn is_alone(&self, key: &LaneKey) -> bool {
        self.lanes.get(key).is_some_and(|lane| lane.in_flight().count() == 1)
    }

    fn attempts_of(&self, key: &LaneKey) -> u32 {
        let head = self.lanes.get(key).map(|lane| lane.head().position);
        head.and_then(|position| self.failed.get(&position)).map_or(0, |attempts| attempts.failed)
    }

    /// Puts on record what becomes of the head of a lane that is given up.
    pub(super) fn gave_up(&mut self, key: &LaneKey, how: Poison, attempts: u32, reason: Arc<str>) {
        if let Some(lane) = self.lanes.get(key) {
            let event = lane.head().clone();
            self.records.push(Effect::GaveUp { key: key.clone(), event, how, attempts, reason });
        }
    }
}

pub(super) fn attempts_failed(failed: u32, last: &str) -> Arc<str> {
    format!("{failed} attempts failed, the last: {last}").into()
}

/// The beginning of what a session gave as its reason, at a character's end.
fn shortened(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
