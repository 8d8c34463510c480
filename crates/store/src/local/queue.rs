//! What waits for the committers, bounded in bytes, and whose turn it is.
//!
//! Two committers take turns: one at a time orders and encodes what waits, one
//! at a time writes, so that the next batch is made while the last one syncs.
//!
//! # Promises
//! 1. Whoever begins is alone until it says [`Queue::sequenced`]; whoever may
//!    write is alone until it says [`Queue::written`].
//! 2. What is taken counts until [`Queue::release`]: a batch held back for a
//!    look-up still fills the room it was admitted to.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use daybook_model::Position;
use tokio::sync::oneshot;

use super::lookup::{Facts, Returned};
use crate::{AppendError, Batch, Fence, Stored};

pub(super) type Reply = oneshot::Sender<Result<Vec<Stored>, AppendError>>;

/// A batch on its way to its place.
pub(super) struct Append {
    pub batch: Box<Batch>,
    pub weight: usize,
    pub reply: Reply,
    /// What was found out about it on disk; nothing at first.
    pub facts: Facts,
}

impl Append {
    pub fn new(batch: Batch, reply: Reply) -> Self {
        let weight = batch.events.iter().map(|event| event.weight()).sum();
        Self { batch: Box::new(batch), weight, reply, facts: Facts::default() }
    }
}

/// Whoever drops the last share of a barrier answers it.
pub(super) type BarrierShare = Arc<oneshot::Sender<Result<Position, AppendError>>>;

pub(super) enum Work {
    Append(Append),
    Barrier {
        fences: Vec<Fence>,
        share: BarrierShare,
    },
    /// A look-up is done.
    Returned(Returned),
}

impl Work {
    fn weight(&self) -> usize {
        match self {
            Self::Append(append) | Self::Returned(Returned { append, .. }) => append.weight,
            Self::Barrier { .. } => 0,
        }
    }
}

pub(crate) struct Queue {
    state: Mutex<State>,
    /// Somebody may begin.
    turn: Condvar,
    /// The one who sequences has more to take, or may write.
    more: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    /// Of what waits in `work`.
    waiting: usize,
    /// Of everything admitted and not yet released.
    bytes: usize,
    /// Batches that a look-up will bring back.
    away: usize,
    /// Why nothing more is taken.
    closed: Option<String>,
    sequencing: bool,
    writing: bool,
    /// When the last batch was written, if nothing proves yet that it was durable.
    unproven: Option<Instant>,
    /// The one who sequences sleeps until so many requests wait; 0 while it is awake.
    wanted: usize,
    /// Or so many bytes.
    wanted_bytes: usize,
    /// Those who wait to begin, and whether one of them was woken.
    idle: usize,
    called: bool,
}

impl State {
    /// Little work is not worth a wake while the disk is busy: it is taken when
    /// the disk is free.
    fn worth_beginning(&self) -> bool {
        !self.sequencing && !self.work.is_empty() && (!self.writing || self.has_chunk())
    }

    fn has_chunk(&self) -> bool {
        self.work.len() >= CHUNK || self.waiting >= CHUNK_BYTES
    }

    fn has_wanted(&self) -> bool {
        self.wanted > 0 && (self.work.len() >= self.wanted || self.waiting >= self.wanted_bytes)
    }

    fn drained(&self) -> bool {
        self.closed.is_some() && self.work.is_empty() && self.away == 0
    }
}

/// What a committer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// Sequence a group.
    Group,
    /// Nothing came for a while: prove that the last batch was durable. The
    /// disk is held for the caller.
    Idle,
    /// The queue is closed, and everything admitted has been taken.
    Closed,
}

/// What there is to do for the one who sequences.
pub(super) struct Taken {
    pub work: VecDeque<Work>,
    /// The disk is free and held for the caller: after this `work` it writes.
    pub write: bool,
}

/// Damage to the last batch cannot be told from a torn tail until something
/// proves that it was durable. Busy writers prove it by their next batch.
const IDLE: Duration = Duration::from_millis(10);
/// Requests that are checked and encoded together while the disk is busy.
const CHUNK: usize = 16;
/// Or fewer that are as much work: one batch of a hundred events is worth a wake.
const CHUNK_BYTES: usize = 16 << 10;
/// A pause without an arrival that ends the wait for more.
const GATHER_STEP: Duration = Duration::from_micros(100);
/// The longest wait for more, however many keep coming.
const GATHER_MAX: Duration = Duration::from_millis(2);

impl Queue {
    pub fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), turn: Condvar::new(), more: Condvar::new(), bytes_max }
    }

    /// Takes its place in the order, or is refused at once.
    pub(super) fn push(&self, work: Work) -> Result<(), AppendError> {
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Err(AppendError::Unavailable { reason: reason.clone() });
        }
        // Barriers always pass: a fence must not wait for room.
        if let Work::Append(append) = &work {
            if state.bytes > 0 && state.bytes + append.weight > self.bytes_max {
                return Err(AppendError::Overloaded);
            }
            state.bytes += append.weight;
        }
        self.add(state, work);
        Ok(())
    }

    /// Brings back a batch that [`Self::sent_away`] was said of, closed or not.
    pub(super) fn bring_back(&self, returned: Returned) {
        let mut state = self.lock();
        state.away -= 1;
        self.add(state, Work::Returned(returned));
    }

    fn add(&self, mut state: MutexGuard<'_, State>, work: Work) {
        state.waiting += work.weight();
        state.work.push_back(work);
        if state.has_wanted() {
            state.wanted = 0;
            drop(state);
            self.more.notify_one();
        } else {
            self.call(state);
        }
    }

    fn call(&self, mut state: MutexGuard<'_, State>) {
        if state.worth_beginning() && state.idle > 0 && !state.called {
            state.called = true;
            drop(state);
            self.turn.notify_one();
        }
    }

    /// Sleeps until there is something to do that nobody else does.
    pub(super) fn begin(&self) -> Begun {
        let mut state = self.lock();
        while !state.worth_beginning() {
            if state.drained() {
                return Begun::Closed;
            }
            let patience = match state.unproven {
                Some(since) if !state.sequencing && !state.writing => {
                    let patience = IDLE.saturating_sub(since.elapsed());
                    if patience.is_zero() {
                        state.writing = true;
                        return Begun::Idle;
                    }
                    Some(patience)
                }
                _ => None,
            };
            state.idle += 1;
            state = match patience {
                None => self.turn.wait(state).expect("no code panics while it holds this lock"),
                Some(patience) => {
                    let waited = self.turn.wait_timeout(state, patience);
                    waited.expect("no code panics while it holds this lock").0
                }
            };
            state.idle -= 1;
            state.called = false;
        }
        state.sequencing = true;
        Begun::Group
    }

    /// More work for the group that has `have` requests, or leave to write it.
    /// No work is taken beyond `room` bytes.
    ///
    /// Writers answered together come back together: `answered` of them are
    /// likely to, so a moment's patience for half of all makes two waves, of
    /// which one computes while the other syncs. It ends when nobody came for a step.
    pub(super) fn take(&self, have: usize, room: usize, answered: usize) -> Taken {
        let mut state = self.lock();
        while state.writing && (room == 0 || !state.has_chunk()) {
            // With no room left only the end of the writing is of interest.
            let nothing = (usize::MAX, usize::MAX);
            (state.wanted, state.wanted_bytes) = if room == 0 { nothing } else { (CHUNK, CHUNK_BYTES) };
            state = self.more.wait(state).expect("no code panics while it holds this lock");
        }
        let wave = (answered + have + state.work.len()) / 2;
        let begun = Instant::now();
        while !state.writing
            && have + state.work.len() < wave
            && room > 0
            && state.closed.is_none()
            && begun.elapsed() < GATHER_MAX
        {
            let before = state.work.len();
            (state.wanted, state.wanted_bytes) = (wave - have, usize::MAX);
            let waited = self.more.wait_timeout(state, GATHER_STEP);
            state = waited.expect("no code panics while it holds this lock").0;
            if state.work.len() == before {
                break;
            }
        }
        state.wanted = 0;
        let write = !state.writing;
        state.writing = true;
        let work = take_bytes(&mut state.work, room);
        state.waiting -= work.iter().map(Work::weight).sum::<usize>();
        Taken { work, write }
    }

    /// The group is complete: somebody else may begin the next one.
    pub(super) fn sequenced(&self) {
        let mut state = self.lock();
        state.sequencing = false;
        if state.drained() {
            drop(state);
            self.turn.notify_all();
        } else {
            self.call(state);
        }
    }

    /// The disk is free again; the end of the log is `proven` durable, or not yet.
    pub(super) fn written(&self, proven: bool) {
        let mut state = self.lock();
        state.writing = false;
        state.unproven = (!proven).then(Instant::now);
        if state.wanted > 0 {
            state.wanted = 0;
            drop(state);
            self.more.notify_one();
        } else {
            self.call(state);
        }
    }

    /// A batch leaves for a look-up and will be brought back.
    pub(super) fn sent_away(&self) {
        self.lock().away += 1;
    }

    /// Gives room back for what has its place, or was refused one.
    pub(super) fn release(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    pub fn close(&self) {
        self.close_because("the log is closed");
    }

    pub fn close_because(&self, reason: &str) {
        let mut state = self.lock();
        state.closed.get_or_insert_with(|| reason.to_owned());
        drop(state);
        self.turn.notify_all();
        self.more.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

/// From the front, until `room` is used up; at least one if there is any room.
fn take_bytes(work: &mut VecDeque<Work>, room: usize) -> VecDeque<Work> {
    let mut bytes = 0;
    let beyond = work.iter().position(|work| {
        let full = bytes >= room;
        bytes += work.weight();
        full
    });
    match beyond {
        None => std::mem::take(work),
        Some(at) => {
            let rest = work.split_off(at);
            std::mem::replace(work, rest)
        }
    }
}
