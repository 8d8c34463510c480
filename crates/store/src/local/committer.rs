//! Who orders and writes: two threads that take turns.
//!
//! One takes what waits, has it checked and encoded, writes the batch, syncs,
//! makes it visible and answers everybody. While it writes, the other makes the
//! next batch, and writes that when the sync has returned. With little to do
//! one thread does it all: no hop between the request's arrival and its answer.
//! Threads that are lent (`loan.rs`) do the same, one group at a time.
//!
//! # Promises
//! 1. Only one batch is being written: the next is written after the sync of the
//!    last has returned, so that a valid later batch proves an earlier one durable.
//! 2. Batches become visible, and are answered, in their order.
//!
//! # After a failure
//! `Outcome` in `group.rs` tells what each publisher learns. A failed write or
//! sync poisons the log; nothing more is written.

use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use daybook_log::{Draft, Log, Place};
use daybook_model::{Position, Timestamp};

use super::gate::Cause;
use super::group::{Group, Outcome, told_barrier};
use super::index::Worker;
use super::lookup::Lookups;
use super::queue::{Begun, Taken};
use super::room::Room;
use super::sequencer::Sequencer;
use super::tail::{Chunk, Records};
use super::{Inner, query};
use crate::ReadError;
use crate::planted::{Bug, has};

/// One sequences while the other writes.
const THREADS: usize = 2;

/// Bytes of one group: bounds the time between its first request and the answer.
const GROUP_BYTES: usize = 8 << 20;

/// Drafts larger than this are not kept for the next group.
const DRAFT_KEPT_BYTES: usize = 1 << 20;

pub(super) struct Committer {
    inner: Arc<Inner>,
    sequencer: Mutex<Sequencer>,
    writer: Mutex<Writer>,
    publisher: Mutex<Publisher>,
    drafts: Mutex<Vec<Draft>>,
}

/// The committer with its threads, and with those that help it.
pub(super) struct Committers {
    committer: RwLock<Option<Arc<Committer>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Committers {
    pub fn start(committer: Committer) -> std::io::Result<Arc<Self>> {
        let committer = Arc::new(committer);
        let start = |i| {
            let committer = committer.clone();
            std::thread::Builder::new().name(format!("committer-{i}")).spawn(move || committer.run())
        };
        let threads = (0..THREADS).map(start).collect::<std::io::Result<_>>()?;
        Ok(Arc::new(Self { committer: RwLock::new(Some(committer)), threads: Mutex::new(threads) }))
    }

    /// See [`Committer::help`]; nothing after the end.
    pub fn help(&self) -> usize {
        let committer = self.committer.read().expect("no code panics while it holds this lock");
        committer.as_ref().map_or(0, |committer| committer.help())
    }

    /// Waits until everything is answered. The queue is closed.
    pub fn join(&self) {
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            let _ = thread.join();
        }
        // After this nothing touches the directory.
        *self.committer.write().expect("no code panics while it holds this lock") = None;
    }
}

struct Writer {
    log: Log,
    room: Room,
    /// Why the last group was refused.
    refused: String,
    /// How long the sync of the last write took.
    sync: Option<Duration>,
}

/// Makes groups visible, one after the other.
struct Publisher {
    indexer: Worker,
    chunk: Chunk,
}

impl Committer {
    pub fn new(
        inner: Arc<Inner>,
        log: Log,
        indexer: Worker,
        lookups: Lookups,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> Result<Self, ReadError> {
        let near = inner.visible().index.last_time();
        let last_time = match (near, log.next().checked_sub(1)) {
            _ if has(Bug::TimeForgotten) => Timestamp(i64::MIN),
            (Some(time), _) => time,
            (None, Some(last)) => query::event(&inner, Position(last))?.recordedtime,
            (None, None) => Timestamp(i64::MIN),
        };
        let room = Room::start(&log, inner.clone());
        let sequencer = Sequencer::new(inner.clone(), lookups, clock, last_time, log.next());
        Ok(Self {
            inner,
            sequencer: Mutex::new(sequencer),
            writer: Mutex::new(Writer { log, room, refused: String::new(), sync: None }),
            publisher: Mutex::new(Publisher { indexer, chunk: Chunk::default() }),
            drafts: Mutex::default(),
        })
    }

    /// One thread's part, until the queue is closed and everything is answered.
    pub fn run(&self) {
        loop {
            match self.inner.queue.begin() {
                Begun::Group => self.commit(None),
                Begun::Idle => {
                    let mut writer = lock(&self.writer);
                    writer.vouch(&self.inner);
                    self.inner.queue.written(true, None);
                }
                Begun::Closed => break,
            }
        }
        // Whoever ends last has seen the last batch.
        lock(&self.writer).vouch(&self.inner);
    }

    /// A lent thread's part: one group, if nobody is at it. Tells of how many requests.
    pub fn help(&self) -> usize {
        let Some(taken) = self.inner.queue.begin_lent(GROUP_BYTES) else { return 0 };
        let requests = taken.work.len();
        self.commit(Some(taken));
        requests
    }

    fn commit(&self, begun: Option<Taken>) {
        let mut sequencer = lock(&self.sequencer);
        let mut group = self.gather(&mut sequencer, begun);
        // Taken before anybody else may begin: groups are written in their order.
        let mut writer = lock(&self.writer);
        let before = match writer.log.poisoned() {
            Some(since) => {
                sequencer.poison(since);
                Some(Outcome::FailedBefore(since.to_owned()))
            }
            None if writer.log.next() != group.first => {
                sequencer.go_back(writer.log.next());
                Some(Outcome::RefusedBefore(writer.refused.clone()))
            }
            None => None,
        };
        let contested = sequencer.is_contested();
        drop(sequencer);
        self.inner.queue.sequenced(contested);
        let (places, outcome) = match before {
            Some(outcome) => (Vec::new(), outcome),
            None => writer.write(&mut group, &self.inner),
        };
        // Taken before anybody else may write: groups become visible in their order.
        let mut publisher = lock(&self.publisher);
        let proven = writer.log.is_vouched() || writer.log.poisoned().is_some();
        let sync = writer.sync.take();
        drop(writer);
        self.inner.queue.written(proven, sync);
        publisher.publish(&self.inner, group, places, outcome, |draft| self.keep(draft));
    }

    /// Takes work until the disk is free; `begun` is what was taken already.
    fn gather(&self, sequencer: &mut Sequencer, mut begun: Option<Taken>) -> Group {
        let draft = lock(&self.drafts).pop().unwrap_or_default();
        let mut group = sequencer.group(draft);
        loop {
            let room = GROUP_BYTES.saturating_sub(group.weight);
            let taken = match begun.take() {
                Some(taken) => taken,
                None => self.inner.queue.take(group.requests(), room, sequencer.answered),
            };
            sequencer.land();
            for work in taken.work {
                sequencer.take(work, &mut group);
            }
            if taken.write {
                break;
            }
        }
        sequencer.complete(&group);
        self.inner.queue.release(group.weight);
        group
    }

    fn keep(&self, mut draft: Draft) {
        if draft.len() <= DRAFT_KEPT_BYTES {
            draft.clear();
            lock(&self.drafts).push(draft);
        }
    }
}

impl Writer {
    /// Proves that the last batch was durable. Nobody waits for this, so its
    /// failure is nobody's answer.
    fn vouch(&mut self, inner: &Inner) {
        if self.log.poisoned().is_none()
            && let Err(error) = self.log.vouch()
        {
            fail(inner, &error.to_string());
        }
    }

    fn write(&mut self, group: &mut Group, inner: &Inner) -> (Vec<Place>, Outcome) {
        match self.try_write(group, inner) {
            Ok(places) => (places, Outcome::Durable),
            Err(error) if self.log.poisoned().is_some() => (Vec::new(), Outcome::Failed(error.to_string())),
            Err(error) => {
                // Whoever makes the next segment's file opens the gate again.
                inner.gate.close(Cause::Segment, error.to_string());
                self.room.ask();
                self.refused = error.to_string();
                (Vec::new(), Outcome::Refused(error.to_string()))
            }
        }
    }

    fn try_write(&mut self, group: &mut Group, inner: &Inner) -> Result<Vec<Place>, daybook_log::Error> {
        if group.draft.is_empty() {
            return Ok(Vec::new());
        }
        // The next segment was not made in time: perhaps for want of space.
        let claims = self.log.claims_for(&group.draft);
        if claims > 0
            && let Some(reason) = inner.space.shortage(claims)
        {
            return Err(self.log.no_room(reason));
        }
        let places = self.log.append_draft(&mut group.draft)?;
        let begun = Instant::now();
        if !has(Bug::AnsweredBeforeDurable) {
            self.log.sync()?;
        }
        let took = begun.elapsed();
        inner.syncs.took(took);
        self.sync = Some(took);
        let mut stats = inner.stats.lock().expect("no code panics while it holds this lock");
        stats.events += group.events as u64;
        stats.batches += 1;
        stats.bytes_written += group.draft.len() as u64;
        drop(stats);
        if self.log.wants_spare() {
            self.room.ask();
        }
        Ok(places)
    }
}

impl Publisher {
    fn publish(
        &mut self,
        inner: &Inner,
        group: Group,
        places: Vec<Place>,
        outcome: Outcome,
        keep: impl FnOnce(Draft),
    ) {
        match &outcome {
            Outcome::Durable => self.show(inner, &group, &places),
            Outcome::Failed(reason) => fail(inner, reason),
            Outcome::Refused(_) | Outcome::RefusedBefore(_) | Outcome::FailedBefore(_) => {}
        }
        keep(group.draft);
        let now = Instant::now();
        for verdict in group.verdicts {
            inner.appends.took(now.saturating_duration_since(verdict.begun));
            let (told, reply) = verdict.told(&outcome);
            reply.tell(told);
        }
        let head = *inner.head.borrow();
        for share in group.barriers {
            // Others may hold shares of it for what came before it and has no place yet.
            if let Some(reply) = Arc::into_inner(share) {
                let _ = reply.send(told_barrier(&outcome, head));
            }
        }
    }

    fn show(&mut self, inner: &Inner, group: &Group, places: &[Place]) {
        if places.is_empty() {
            return;
        }
        let size = (places.len(), group.draft.len());
        let records = Records::new(&mut self.chunk, group.first, size, group.draft.bodies());
        let mut visible = inner.visible.write().expect("no code panics while it holds this lock");
        debug_assert_eq!(visible.index.end(), group.first, "groups become visible in their order");
        let mut rest = places;
        for placed in &group.placed {
            let (places, next) = rest.split_at(placed.len());
            visible.index.memory().insert_all(placed.recordedtime, &**placed, places);
            rest = next;
        }
        visible.tail.push(records);
        let full = visible.index.freeze();
        // Under the lock, as the indexer does when it opens it again.
        if let Some((cause, reason)) = visible.index.crowded() {
            inner.gate.close(cause, reason);
        }
        let head = visible.index.end();
        drop(visible);
        if full {
            self.indexer.ask();
        }
        inner.head.send_replace(Position(head));
    }
}

/// The log takes no more.
fn fail(inner: &Inner, reason: &str) {
    inner.gate.poison(reason);
    inner.queue.close_because(reason);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}
