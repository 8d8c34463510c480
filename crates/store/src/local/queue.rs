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

use super::loan::Loan;
use super::lookup::{Facts, Returned};
use super::patience::{Patience, Wait};
use crate::{AppendError, Batch, Call, Fence, Lender, Reply};

/// A batch on its way to its place.
pub(super) struct Append {
    pub batch: Box<Batch>,
    pub weight: usize,
    pub reply: Reply,
    pub begun: Instant,
    /// What was found out about it on disk; nothing at first.
    pub facts: Facts,
}

impl Append {
    pub fn new(batch: Batch, reply: Reply) -> Self {
        let weight = batch.events.iter().map(|event| event.weight()).sum();
        Self { batch: Box::new(batch), weight, reply, begun: Instant::now(), facts: Facts::default() }
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

    fn refuse(self, error: AppendError) {
        match self {
            Self::Append(append) | Self::Returned(Returned { append, .. }) => append.reply.tell(Err(error)),
            Self::Barrier { share, .. } => {
                // Nobody else has a share of it yet.
                if let Some(reply) = Arc::into_inner(share) {
                    let _ = reply.send(Err(error));
                }
            }
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
    /// One of them wakes by itself, to see what becomes of the last batch.
    watched: bool,
    /// Threads of others, which are called before our own.
    loan: Loan,
    /// Most of what comes is in conflict: to wait for more of it gains nothing.
    contested: bool,
    patience: Patience,
    /// Of what waits, how many requests were there when the last batch was written.
    early: usize,
}

impl State {
    /// Little work is not worth a wake while the disk is busy: it is taken when
    /// the disk is free. Still more so if a lent thread writes, which comes back
    /// for it: the core of another is better used for the sockets.
    fn worth_beginning(&self) -> bool {
        let enough = match self.writing {
            false => !self.work.is_empty(),
            true if self.loan.is_writing() => self.is_large(),
            true => self.has_chunk(),
        };
        !self.sequencing && enough
    }

    fn has_chunk(&self) -> bool {
        self.work.len() >= CHUNK || self.waiting >= CHUNK_BYTES
    }

    /// Few requests that are much work: nothing for a lent thread, whose sockets wait.
    fn is_large(&self) -> bool {
        self.waiting >= CHUNK_BYTES && self.waiting / self.work.len().max(1) >= LARGE_BYTES
    }

    fn has_wanted(&self) -> bool {
        self.wanted > 0 && (self.work.len() >= self.wanted || self.waiting >= self.wanted_bytes)
    }

    fn take(&mut self, room: usize) -> VecDeque<Work> {
        let work = take_bytes(&mut self.work, room);
        self.waiting -= work.iter().map(Work::weight).sum::<usize>();
        work
    }

    /// Whoever sequences may still have to take the disk.
    fn drained(&self) -> bool {
        self.closed.is_some() && self.work.is_empty() && self.away == 0 && !self.sequencing
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
/// Bytes of a request that is more than an event or two.
const LARGE_BYTES: usize = 2 << 10;
/// The wait for half of all.
const GATHER_STEP: Duration = Duration::from_micros(100);
const GATHER_MAX: Duration = Duration::from_millis(2);

impl Queue {
    pub fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), turn: Condvar::new(), more: Condvar::new(), bytes_max }
    }

    /// Takes its place in the order, or is refused at once.
    pub(super) fn push(&self, work: Work) {
        let mut state = self.lock();
        let refused = match &state.closed {
            Some(reason) => Some(AppendError::Unavailable { reason: reason.clone() }),
            // Barriers always pass: a fence must not wait for room.
            None => match &work {
                Work::Append(append) if state.bytes > 0 && state.bytes + append.weight > self.bytes_max => {
                    Some(AppendError::Overloaded)
                }
                _ => None,
            },
        };
        if let Some(error) = refused {
            drop(state);
            return work.refuse(error);
        }
        state.bytes += work.weight();
        let now = match &work {
            Work::Append(append) => append.begun,
            _ => Instant::now(),
        };
        self.add(state, work, now);
    }

    /// Brings back a batch that [`Self::sent_away`] was said of, closed or not.
    pub(super) fn bring_back(&self, returned: Returned) {
        let mut state = self.lock();
        state.away -= 1;
        self.add(state, Work::Returned(returned), Instant::now());
    }

    fn add(&self, mut state: MutexGuard<'_, State>, work: Work, now: Instant) {
        state.waiting += work.weight();
        state.work.push_back(work);
        if state.has_wanted() {
            state.wanted = 0;
            drop(state);
            self.more.notify_one();
        } else {
            self.call(state, now);
        }
    }

    fn call(&self, mut state: MutexGuard<'_, State>, now: Instant) {
        if !state.worth_beginning() || state.called {
            return;
        }
        if !state.writing && state.loan.is_called(now) {
            return;
        }
        let lender = if state.writing || state.is_large() { None } else { state.loan.call(now) };
        // Somebody of ours must be awake to see that a lent thread does not come.
        let ours = state.idle > 0 && (lender.is_none() || !state.watched);
        state.called = ours;
        let call = if state.contested { Call::AtOnce } else { Call::Soon };
        drop(state);
        if let Some(lender) = lender {
            lender.call(call);
        }
        if ours {
            self.turn.notify_one();
        }
    }

    pub fn borrow_threads(&self, lender: Arc<dyn Lender>) {
        self.lock().loan.begin(lender);
    }

    /// What waits, up to `room` bytes, for a lent thread that sequences and
    /// writes it alone. It does not wait for more: the disk is held for it.
    pub(super) fn begin_lent(&self, room: usize) -> Option<Taken> {
        let mut state = self.lock();
        state.loan.came();
        if state.sequencing || state.writing || state.work.is_empty() {
            return None;
        }
        state.sequencing = true;
        state.writing = true;
        state.loan.writes(Instant::now());
        Some(Taken { work: state.take(room), write: true })
    }

    /// Sleeps until there is something to do that nobody else does.
    pub(super) fn begin(&self) -> Begun {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.worth_beginning() && (state.writing || !state.loan.is_called(now)) {
                break state.loan.overtaken(now);
            }
            if state.drained() {
                return Begun::Closed;
            }
            if let Some(lender) = state.loan.missing(now) {
                drop(state);
                lender.miss();
                state = self.lock();
                continue;
            }
            let mut patience = state.loan.look_after(now);
            if let Some(since) = state.unproven
                && !state.sequencing
                && !state.writing
            {
                let left = IDLE.saturating_sub(now.saturating_duration_since(since));
                if left.is_zero() {
                    state.writing = true;
                    return Begun::Idle;
                }
                patience = Some(patience.map_or(left, |patience| patience.min(left)));
            }
            // One who looks is enough.
            let patience = patience.filter(|_| !state.watched);
            state.idle += 1;
            state = match patience {
                None => self.turn.wait(state).expect("no code panics while it holds this lock"),
                Some(patience) => {
                    state.watched = true;
                    let waited = self.turn.wait_timeout(state, patience);
                    let mut state = waited.expect("no code panics while it holds this lock").0;
                    state.watched = false;
                    state
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
    /// likely to. Are they back before a sync would be over, they make one wave
    /// with all others (`patience.rs`). Else a moment's patience for half of all
    /// makes two waves, of which one computes while the other syncs; it ends when
    /// nobody came for a step. There is none where most would be refused anyway.
    pub(super) fn take(&self, have: usize, room: usize, answered: usize) -> Taken {
        let mut state = self.lock();
        while state.writing && (room == 0 || !state.has_chunk()) {
            // With no room left only the end of the writing is of interest.
            let nothing = (usize::MAX, usize::MAX);
            (state.wanted, state.wanted_bytes) = if room == 0 { nothing } else { (CHUNK, CHUNK_BYTES) };
            state = self.more.wait(state).expect("no code panics while it holds this lock");
        }
        // Nobody sleeps any more who would have to be woken.
        state.wanted = 0;
        let here = have + state.work.len();
        let all = answered + have + state.early;
        if !state.writing && room > 0 && !state.contested && state.closed.is_none() {
            let sync = state.loan.average_sync();
            let whole = if here < all { state.patience.whole(all, sync) } else { None };
            let half = Wait { requests: (answered + here) / 2, pause: GATHER_STEP, longest: GATHER_MAX };
            state = self.gather(state, have, whole.unwrap_or(half));
            if whole.is_some() {
                let together = have + state.work.len() >= all;
                state.patience.waited(together);
            }
        }
        let write = !state.writing;
        state.writing = true;
        Taken { work: state.take(room), write }
    }

    /// Waits for more than the `have` requests of a group and what waits already.
    fn gather<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        have: usize,
        wait: Wait,
    ) -> MutexGuard<'a, State> {
        let begun = Instant::now();
        while have + state.work.len() < wait.requests
            && state.closed.is_none()
            && begun.elapsed() < wait.longest
        {
            let before = state.work.len();
            (state.wanted, state.wanted_bytes) = (wait.requests - have, usize::MAX);
            let waited = self.more.wait_timeout(state, wait.pause);
            state = waited.expect("no code panics while it holds this lock").0;
            if state.work.len() == before {
                break;
            }
        }
        state.wanted = 0;
        state
    }

    /// The group is complete: somebody else may begin the next one. Tells whether
    /// its requests were `contested`.
    pub(super) fn sequenced(&self, contested: bool) {
        let mut state = self.lock();
        state.contested = contested;
        state.sequencing = false;
        if state.drained() {
            drop(state);
            self.turn.notify_all();
        } else {
            self.call(state, Instant::now());
        }
    }

    /// The disk is free again; the end of the log is `proven` durable, or not yet.
    /// `sync` is how long it took, if there was one.
    pub(super) fn written(&self, proven: bool, sync: Option<Duration>) {
        let mut state = self.lock();
        if let Some(took) = sync {
            state.loan.synced(took);
        }
        let now = Instant::now();
        state.writing = false;
        state.early = state.work.len();
        state.loan.written(now);
        state.unproven = (!proven).then_some(now);
        if state.wanted > 0 {
            state.wanted = 0;
            drop(state);
            self.more.notify_one();
        } else {
            self.call(state, now);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Calls(Mutex<Vec<Call>>);

    impl Lender for Calls {
        fn call(&self, call: Call) {
            self.0.lock().unwrap().push(call);
        }

        fn miss(&self) {}
    }

    fn append() -> Work {
        let batch = Batch {
            events: Vec::new().into(),
            session: "test/1/s".into(),
            principal: None,
            default_source: "/test".into(),
            fallback_correlation: "c".into(),
            fence: None,
        };
        Work::Append(Append::new(batch, Reply::awaited().0))
    }

    #[test]
    fn a_lent_thread_is_told_to_come_at_once_where_writers_contend() {
        for (contested, expected) in [(false, Call::Soon), (true, Call::AtOnce)] {
            let (queue, calls) = (Queue::new(1 << 20), Arc::new(Calls::default()));
            queue.borrow_threads(calls.clone());
            queue.sequenced(contested);
            queue.push(append());
            assert_eq!(*calls.0.lock().unwrap(), [expected]);
        }
    }

    #[test]
    fn a_group_waits_for_all_who_were_answered_while_a_sync_takes_longer_than_they() {
        let queue = Queue::new(1 << 20);
        // Until the average is long enough for any machine.
        (0..400).for_each(|_| queue.written(true, Some(Duration::from_secs(600))));
        // Two came while the last batch was written, whose three are answered now.
        (0..2).for_each(|_| queue.push(append()));
        queue.written(true, None);
        let taken = std::thread::scope(|scope| {
            scope.spawn(|| (0..3).for_each(|_| queue.push(append())));
            queue.take(0, usize::MAX, 3)
        });
        assert_eq!((taken.work.len(), taken.write), (5, true));
    }

    #[test]
    fn a_wait_in_vain_is_remembered_and_where_writers_contend_there_is_none() {
        for contested in [false, true] {
            let queue = Queue::new(1 << 20);
            queue.sequenced(contested);
            queue.push(append());
            // Three were answered; syncs take no time, in which nobody comes back.
            let taken = queue.take(0, usize::MAX, 3);
            assert_eq!((taken.work.len(), taken.write), (1, true));
            let next = queue.lock().patience.whole(3, Duration::ZERO);
            assert_eq!(next.is_some(), contested, "contested: {contested}");
        }
    }
}
