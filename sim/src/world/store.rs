//! A disk that takes its time, and keeps after a crash what it had promised.
//!
//! # Promises
//! 1. As every store: nothing is answered or read before it is durable.
//! 2. A crash keeps all that was answered, and of the rest a beginning that the
//!    seed chooses, batches whole; likewise with checkpoints.
//!
//! # Not here
//! The rules of the log itself: a [`MemoryStore`] orders and refuses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daybook_model::{Event, Position, Timestamp};
use daybook_store::memory::MemoryStore;
use daybook_store::{
    Answer, AppendError, Batch, CheckpointError, EventStore, Fence, Health, Page, Query, ReadError, Reply,
    Stats, SubjectInfo,
};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::sleep;

use super::mistake::Mistake;
use crate::entropy::Dice;
use crate::history::{Entry, Logged};

/// Milliseconds that a read takes at most.
const READ_MS: u64 = 3;

/// What outlives the server; clones share it.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

struct State {
    /// Everything ordered, durable or not.
    ordered: Arc<MemoryStore>,
    durable: Position,
    /// Where the batches after `durable` end.
    ends: Vec<Position>,
    checkpoints: BTreeMap<String, Vec<u8>>,
    /// What checkpoints were before, for a mistake to bring back.
    older: BTreeMap<String, Vec<u8>>,
    pending: Vec<(String, Vec<u8>)>,
    dice: Dice,
    /// Milliseconds that a sync takes at most.
    sync_ms: u64,
    /// The next sync fails.
    failing: bool,
    mistake: Option<Mistake>,
}

impl State {
    /// A beginning of what was written and not synced is there for good.
    fn decide_pending(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let kept = self.dice.below(pending.len() as u64 + 1) as usize;
        self.checkpoints.extend(pending.into_iter().take(kept));
    }
}

impl Disk {
    pub fn new(seed: u64, mistake: Option<Mistake>) -> Self {
        let ordered = MemoryStore::new(wall_clock);
        let believes = mistake == Some(Mistake::ClockBelieved);
        let ordered = if believes { ordered.believing_the_clock() } else { ordered };
        Self(Arc::new(Mutex::new(State {
            ordered: Arc::new(ordered),
            durable: Position::ZERO,
            ends: Vec::new(),
            checkpoints: BTreeMap::new(),
            older: BTreeMap::new(),
            pending: Vec::new(),
            dice: Dice::new(seed, "disk"),
            sync_ms: 4,
            failing: false,
            mistake,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_sync_ms(&self, sync_ms: u64) {
        self.lock().sync_ms = sync_ms;
    }

    pub fn fail_next_sync(&self) {
        self.lock().failing = true;
    }

    /// The machine of the server lost its power. Tells how many events that
    /// nobody had been told of were lost, and how many kept.
    pub fn crash(&self) -> (u64, u64) {
        let mut state = self.lock();
        let ends = state.ends.len() as u64;
        let keep = state.dice.below(ends + 1) as usize;
        let head = keep.checked_sub(1).map_or(state.durable, |last| state.ends[last]);
        let (durable, ordered) = (state.durable, *state.ordered.head().borrow());
        state.ordered = Arc::new(state.ordered.up_to(head));
        state.durable = head;
        state.ends.clear();
        state.failing = false;
        state.decide_pending();
        if state.mistake == Some(Mistake::CheckpointFromBefore) {
            state.checkpoints = state.older.clone();
        }
        (ordered.0 - head.0, head.0 - durable.0)
    }

    /// The durable log.
    pub fn logged(&self) -> Logged {
        let (store, until) = {
            let state = self.lock();
            (state.ordered.clone(), state.durable)
        };
        let all = Query {
            from: Position::ZERO,
            until: Some(until),
            filter: Default::default(),
            reverse: false,
            max_events: usize::MAX,
            max_bytes: usize::MAX,
        };
        let page = answered(store.read(all)).and_then(Result::ok).unwrap_or_default();
        Logged::new(page.events.iter().map(|event| Entry::of(event)).collect())
    }
}

/// The memory store answers at once.
fn answered<T>(answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match answer.as_mut().poll(&mut context) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    }
}

/// As the real store reads it: that of the server's host, right or wrong.
fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_micros() as i64)
}

/// Told whether a sync has made durable what it waits for.
type Waiting = Box<dyn FnOnce(bool) + Send>;

/// What one process of the server opens of the [`Disk`].
pub struct SimStore {
    disk: Disk,
    ordered: Arc<MemoryStore>,
    head: watch::Sender<Position>,
    health: watch::Sender<Health>,
    waiting: Arc<Mutex<Vec<Waiting>>>,
    work: Arc<Notify>,
}

impl SimStore {
    /// To be called on the server's host: its sync runs there and dies with it.
    pub fn open(disk: &Disk) -> Arc<Self> {
        let (ordered, durable) = {
            let mut state = disk.lock();
            // What a process before could not sync must not turn up after this one
            // has read the checkpoints without it.
            state.decide_pending();
            (state.ordered.clone(), state.durable)
        };
        let store = Arc::new(Self {
            disk: disk.clone(),
            ordered,
            head: watch::Sender::new(durable),
            health: watch::Sender::new(Health::Ok),
            waiting: Arc::default(),
            work: Arc::new(Notify::new()),
        });
        tokio::spawn(store.clone().sync());
        store
    }

    async fn sync(self: Arc<Self>) {
        loop {
            self.work.notified().await;
            let pause = {
                let mut state = self.disk.lock();
                let most = state.sync_ms;
                state.dice.below(most + 1)
            };
            sleep(Duration::from_millis(pause)).await;
            self.sync_now();
        }
    }

    /// Everything ordered by now becomes durable, or the disk fails for good.
    fn sync_now(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut state = self.disk.lock();
        if state.failing || self.is_poisoned() {
            drop(state);
            self.health.send_replace(Health::Poisoned("a sync failed".into()));
            waiting.into_iter().for_each(|tell| tell(false));
            return;
        }
        let head = *self.ordered.head().borrow();
        state.durable = head;
        state.ends.clear();
        let pending = std::mem::take(&mut state.pending);
        for (group, bytes) in pending {
            if let Some(old) = state.checkpoints.insert(group.clone(), bytes) {
                state.older.insert(group, old);
            }
        }
        drop(state);
        self.head.send_replace(head);
        waiting.into_iter().for_each(|tell| tell(true));
    }

    fn is_poisoned(&self) -> bool {
        matches!(*self.health.borrow(), Health::Poisoned(_))
    }

    fn has(&self, mistake: Mistake) -> bool {
        self.disk.lock().mistake == Some(mistake)
    }

    /// Resolves to true once everything ordered before the call is durable.
    fn durable(&self) -> oneshot::Receiver<bool> {
        let (answer, durable) = oneshot::channel();
        self.once_durable(move |is_durable| {
            // Nobody waits any more: it is durable or not all the same.
            let _ = answer.send(is_durable);
        });
        durable
    }

    fn once_durable(&self, tell: impl FnOnce(bool) + Send + 'static) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(tell));
        self.work.notify_one();
    }

    fn unavailable(&self) -> Option<AppendError> {
        self.is_poisoned().then(|| AppendError::Unavailable { reason: "a sync failed".into() })
    }

    fn capped(&self, mut query: Query) -> Query {
        let head = *self.head.borrow();
        query.until = Some(query.until.map_or(head, |until| until.min(head)));
        query
    }
}

fn now<T: Send + 'static>(value: T) -> Answer<T> {
    Box::pin(std::future::ready(value))
}

fn lost<T>() -> Result<T, AppendError> {
    Err(AppendError::UnknownOutcome { reason: "a sync failed".into() })
}

impl EventStore for SimStore {
    fn submit(&self, mut batch: Batch, reply: Reply) {
        if let Some(error) = self.unavailable() {
            return reply.tell(Err(error));
        }
        if self.has(Mistake::FencesIgnored) {
            batch.fence = None;
        }
        // The memory store orders before it returns.
        let ordered = answered(self.ordered.append(batch)).unwrap_or_else(lost);
        let end = *self.ordered.head().borrow();
        {
            let mut state = self.disk.lock();
            if state.ends.last().copied().unwrap_or(state.durable) < end {
                state.ends.push(end);
            }
        }
        if self.has(Mistake::ReadBeforeDurable) {
            self.head.send_replace(end);
        }
        if self.has(Mistake::AnsweredBeforeDurable) {
            reply.tell(ordered);
            return self.once_durable(|_| {});
        }
        // A refusal speaks of events too, and waits for them.
        self.once_durable(move |is_durable| reply.tell(if is_durable { ordered } else { lost() }));
    }

    fn barrier(&self, fences: Vec<Fence>) -> Answer<Result<Position, AppendError>> {
        if let Some(error) = self.unavailable() {
            return now(Err(error));
        }
        let raised = self.ordered.barrier(fences);
        let durable = self.durable();
        Box::pin(async move { if durable.await.unwrap_or(false) { raised.await } else { lost() } })
    }

    /// What is there when it is asked for, a moment later.
    fn read(&self, query: Query) -> Answer<Result<Page, ReadError>> {
        let page = self.ordered.read(self.capped(query));
        let pause = self.disk.lock().dice.below(READ_MS + 1);
        Box::pin(async move {
            sleep(Duration::from_millis(pause)).await;
            page.await
        })
    }

    fn event_by_id(&self, id: &str) -> Answer<Result<Option<Arc<Event>>, ReadError>> {
        let (found, head) = (self.ordered.event_by_id(id), *self.head.borrow());
        Box::pin(async move { Ok(found.await?.filter(|event| event.position < head)) })
    }

    fn position_at(&self, time: Timestamp) -> Answer<Result<Position, ReadError>> {
        let (found, head) = (self.ordered.position_at(time), *self.head.borrow());
        Box::pin(async move { Ok(found.await?.min(head)) })
    }

    fn subjects(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Answer<Result<Vec<SubjectInfo>, ReadError>> {
        self.ordered.up_to(*self.head.borrow()).subjects(prefix, after, limit)
    }

    fn subject(&self, subject: &str) -> Answer<Result<Option<SubjectInfo>, ReadError>> {
        self.ordered.up_to(*self.head.borrow()).subject(subject)
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    fn save_checkpoint(&self, group: &str, bytes: Vec<u8>) -> Answer<Result<(), CheckpointError>> {
        let failed = CheckpointError { group: group.to_owned(), reason: "a sync failed".into() };
        if self.is_poisoned() {
            return now(Err(failed));
        }
        self.disk.lock().pending.push((group.to_owned(), bytes));
        let durable = self.durable();
        if self.has(Mistake::CheckpointBeforeDurable) {
            return now(Ok(()));
        }
        Box::pin(async move { if durable.await.unwrap_or(false) { Ok(()) } else { Err(failed) } })
    }

    fn checkpoints(&self) -> Answer<Result<Vec<(String, Vec<u8>)>, CheckpointError>> {
        now(Ok(self.disk.lock().checkpoints.clone().into_iter().collect()))
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn stats(&self) -> Stats {
        self.ordered.stats()
    }

    fn close(&self) -> Answer<()> {
        self.sync_now();
        now(())
    }
}
