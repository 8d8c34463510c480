//! A group: the only way it changes is [`Group::step`].
//!
//! Each file beside this one holds what one kind of input does; all of them
//! leave the lanes in one of the states of `lane.rs`, and the end of the step
//! sends what can be sent, reads what there is room for, saves what is due.

mod delivering;
mod in_flight;
mod invariants;
mod parking;
mod reading;
mod reports;
mod sessions;
mod settling;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use daybook_model::{Invalid, Position, wire};

use crate::checkpoint::{Checkpoint, Failed, Stopped};
use crate::cursor::Cursor;
use crate::detached::DetachedKeys;
use crate::lane::Lanes;
use crate::members::Members;
use crate::planted::{Bug, has};
use crate::queue::TurnQueue;
use crate::saves::Saves;
use crate::slots::Slots;
use crate::timers::{Timer, Timers};
use crate::{BarrierId, Effect, Input, LaneKey, Millis, Options, Settings};
use in_flight::HeldReply;
use reading::Reading;
use sessions::Holds;

pub struct Group {
    options: Options,
    settings: Settings,
    cursor: Cursor,
    /// The log's durable head, as far as told.
    head: Position,
    lanes: Lanes,
    slots: Slots,
    members: Members,
    /// Queued lanes whose slot nobody owns.
    unrouted: TurnQueue,
    /// Queued lanes that wait because another suspect is in flight.
    suspects: VecDeque<LaneKey>,
    suspect_in_flight: Option<LaneKey>,
    /// Attempts of events that failed and are not settled.
    failed: BTreeMap<Position, Attempts>,
    detached: DetachedKeys,
    stopped: Option<Stopped>,
    /// Which lane a delivery (by serial) belongs to.
    deliveries: BTreeMap<u64, LaneKey>,
    /// Acks to be answered once what comes before them in their keys is settled.
    held_replies: Vec<HeldReply>,
    /// Fences not yet confirmed, and the keys that wait for them.
    barriers: BTreeMap<BarrierId, Vec<LaneKey>>,
    timers: Timers,
    saves: Saves,
    reading: Reading,
    draining: bool,
    /// Effects of this step that go on record.
    records: Vec<Effect>,
    next_serial: u64,
    next_barrier: u64,
    next_ticket: u64,
}

#[derive(Clone, Debug, Default)]
struct Attempts {
    failed: u32,
    suspect: bool,
    /// Why the last one failed.
    reason: Option<Arc<str>>,
}

/// Whether a member that names other options may change the group.
#[derive(Debug)]
pub enum Amendable {
    Yes,
    /// Answers are on their way; ask again after the next step.
    NotYet,
    No(Invalid),
}

impl Group {
    /// `head` is the log's durable head.
    pub fn new(checkpoint: Checkpoint, settings: Settings, head: Position) -> Self {
        let failed = |f: &Failed| {
            (f.position, Attempts { failed: f.attempts, suspect: f.suspect, reason: f.reason.clone() })
        };
        Self {
            cursor: Cursor::new(checkpoint.top, checkpoint.unsettled),
            options: checkpoint.options,
            settings,
            head,
            lanes: Lanes::default(),
            slots: Slots::default(),
            members: Members::default(),
            unrouted: TurnQueue::default(),
            suspects: VecDeque::new(),
            suspect_in_flight: None,
            failed: checkpoint.failed.iter().map(failed).collect(),
            detached: DetachedKeys::restore(checkpoint.detached),
            stopped: checkpoint.stopped,
            deliveries: BTreeMap::new(),
            held_replies: Vec::new(),
            barriers: BTreeMap::new(),
            timers: Timers::default(),
            saves: Saves::default(),
            reading: Reading::default(),
            draining: false,
            records: Vec::new(),
            next_serial: 1,
            next_barrier: 1,
            next_ticket: 1,
        }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The only way a group changes. `now` never goes back.
    pub fn step(&mut self, now: Millis, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Join { member, instance, boot, credit, credit_bytes, window } => {
                self.join(now, member, (instance, boot), Holds { credit, credit_bytes, window }, out);
            }
            Input::Leave(member) => self.leave(now, member, out),
            // It was told to go, and its work comes again anyway: that is no crash.
            Input::Lost(member) if self.draining => self.leave(now, member, out),
            Input::Lost(member) => self.lost(now, member, out),
            Input::Ack { member, tokens, reply } => self.ack(now, member, tokens, reply),
            Input::Nack { member, token, action, delay_ms, reason, jitter } => {
                self.nack(now, member, token, (action, delay_ms, reason, jitter), out);
            }
            Input::Progress { member, token } => self.progress(now, member, token),
            Input::Head(head) => self.head = self.head.max(head),
            Input::Page { next, events } => self.page(now, next, events),
            Input::KeyPage { next, events } => self.key_page(now, next, events),
            Input::ReadFailed => self.reading.failed(now + self.settings.retry_ms),
            Input::Fenced(barrier) => self.fenced(now, barrier),
            Input::Saved(number) => self.saves.saved(number),
            Input::SaveFailed(number) => self.saves.failed(number, now, &self.settings),
            Input::Retry(key) => self.operator_retry(now, &key),
            Input::Skip(key) => self.operator_skip(now, &key),
            Input::Sync(reply) => self.saves.reply_when_durable(reply, Vec::new()),
            Input::Drain => self.draining = true,
            Input::Tick => self.tick(now, out),
        }
        self.send(now, out);
        self.read(now, out);
        self.save(now, out);
        out.append(&mut self.records);
        // Looking at everything costs as much as everything: enough for tests,
        // too much for a debug build under load.
        if cfg!(debug_assertions) && self.lanes.len() < 64 && self.slots.len() < 256 {
            self.check_invariants();
        }
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn wake_at(&self) -> Option<Millis> {
        let save = self.saves.due_at(&self.settings, self.draining);
        [self.timers.next(), save, self.reading.retry_at()].into_iter().flatten().min()
    }

    /// Everything that must not be forgotten, as it is now.
    pub fn checkpoint(&self) -> Checkpoint {
        let least = self.stopped.as_ref().map_or(Position::ZERO, |stopped| stopped.position.next());
        let (top, unsettled) = self.cursor.saved(least);
        let failed = self.failed.iter().map(|(position, attempts)| Failed {
            position: *position,
            attempts: attempts.failed,
            suspect: attempts.suspect,
            reason: attempts.reason.clone(),
        });
        Checkpoint {
            options: self.options.clone(),
            top,
            unsettled,
            failed: if has(Bug::AttemptsForgotten) { Vec::new() } else { failed.collect() },
            detached: self.detached.iter().map(|(key, record)| (key.clone(), record.clone())).collect(),
            stopped: self.stopped.clone(),
        }
    }

    /// No save on its way and none needed.
    pub fn is_saved(&self) -> bool {
        self.saves.is_clean()
    }

    pub fn may_amend(&self, join: &wire::Join) -> Amendable {
        let Some(contradiction) = self.options.contradiction(join) else { return Amendable::Yes };
        if self.members.present() > 0 {
            return Amendable::No(contradiction);
        }
        let keys_change = join.key.is_some_and(|key| key != self.options.key)
            || join.mode.is_some_and(|mode| mode != self.options.mode);
        if keys_change && (self.detached.len() > 0 || self.stopped.is_some()) {
            let reason = "cannot change while keys are parked or behind: they are known by the old one";
            return Amendable::No(Invalid::new(contradiction.member, reason));
        }
        // Keys fenced or gated under the old options could not be told from others.
        if !self.barriers.is_empty() || self.saves.has_gates() || self.reading.is_busy() {
            Amendable::NotYet
        } else {
            Amendable::Yes
        }
    }

    /// Takes other options; only after [`Self::may_amend`] has said yes. A new
    /// filter holds from where the group has read. All that is not settled is
    /// read again.
    pub fn amend(&mut self, now: Millis, options: Options) {
        if options == self.options {
            return;
        }
        self.options = options;
        self.saves.change(now);
        let checkpoint = self.checkpoint();
        let watched = self.cursor.is_watched();
        self.cursor = Cursor::new(checkpoint.top, checkpoint.unsettled);
        self.cursor.watch(watched);
        self.lanes = Lanes::default();
        self.slots = Slots::default();
        self.members.forget_reserved();
        self.unrouted = TurnQueue::default();
        self.suspects.clear();
        self.detached = DetachedKeys::restore(checkpoint.detached);
        self.timers = Timers::default();
    }

    /// Begins anew at `to`: everything before counts as settled, everything from
    /// there on comes (again). Fails with the reason why not now.
    pub fn reset(&mut self, now: Millis, to: Position) -> Result<(), &'static str> {
        if self.members.present() > 0 {
            return Err("it has members; stop them first");
        }
        if !self.barriers.is_empty() || self.reading.is_busy() {
            return Err("it is still settling what its last members left; try again");
        }
        let options = self.options.clone();
        let begin = Self::new(Checkpoint::new(options, to), self.settings.clone(), self.head);
        // What was promised to be saved is promised still, and numbers go on.
        let old = std::mem::replace(self, begin);
        self.cursor.watch(old.cursor.is_watched());
        self.saves = old.saves;
        self.next_serial = old.next_serial;
        self.next_barrier = old.next_barrier;
        self.saves.change(now);
        Ok(())
    }

    /// From now on every settling is told by [`Self::take_settled`], or no more.
    pub fn watch_settled(&mut self, on: bool) {
        self.cursor.watch(on);
    }

    /// Positions settled since the last call, in the order of settling.
    pub fn take_settled(&mut self) -> Vec<Position> {
        self.cursor.take_settled()
    }

    fn tick(&mut self, now: Millis, out: &mut Vec<Effect>) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Due(serial) => self.due(now, serial, out),
                Timer::Retry(key) => self.release(now, &key),
                Timer::Grace(seat) => self.grace_over(now, seat, out),
            }
        }
    }

    fn save(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let released = self.saves.release();
        for key in &released.lanes {
            self.release(now, key);
        }
        out.extend(released.replies.into_iter().map(|(reply, stale)| Effect::Reply { reply, stale }));
        if !released.lanes.is_empty() {
            self.send(now, out);
        }
        if self.saves.due_at(&self.settings, self.draining).is_some_and(|due| due <= now) {
            let number = self.saves.start(now);
            out.push(Effect::Save { number, checkpoint: Box::new(self.checkpoint()) });
        }
    }
}
