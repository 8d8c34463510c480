//! What waits for the committer, bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use daybook_model::Position;
use tokio::sync::oneshot;

use crate::{AppendError, Batch, Fence, Stored};

pub(super) enum Work {
    Append { batch: Box<Batch>, reply: oneshot::Sender<Result<Vec<Stored>, AppendError>> },
    Barrier { fences: Vec<Fence>, reply: oneshot::Sender<Result<Position, AppendError>> },
}

impl Work {
    fn weight(&self) -> usize {
        match self {
            Self::Append { batch, .. } => batch.events.iter().map(|event| event.weight()).sum(),
            Self::Barrier { .. } => 64,
        }
    }
}

pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    bytes: usize,
    /// Why nothing more is taken.
    closed: Option<String>,
    /// The committer sleeps until this much waits; 0 while it is awake.
    wanted: usize,
}

/// A pause without an arrival that ends the wait for more.
const GATHER_STEP: Duration = Duration::from_micros(100);
/// The longest wait for more, however many keep coming.
const GATHER_MAX: Duration = Duration::from_millis(2);

impl Queue {
    pub fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), bytes_max }
    }

    /// Takes its place in the order, or is refused at once.
    pub(super) fn push(&self, work: Work) -> Result<(), AppendError> {
        let weight = work.weight();
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Err(AppendError::Unavailable { reason: reason.clone() });
        }
        // Barriers always pass: a fence must not wait for room.
        if state.bytes > 0 && state.bytes + weight > self.bytes_max && matches!(work, Work::Append { .. }) {
            return Err(AppendError::Overloaded);
        }
        state.bytes += weight;
        state.work.push_back(work);
        let wake = state.wanted > 0 && state.work.len() >= state.wanted;
        if wake {
            state.wanted = 0;
        }
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Everything that waits; sleeps until there is something, or `idle` has
    /// passed: then it is nothing. `None` once closed and empty.
    ///
    /// Writers answered together come back together: if `expected` of them are
    /// likely, a moment's patience for half of them makes two waves, of which
    /// one computes while the other syncs. It ends when nobody came for a step.
    pub(super) fn take(&self, expected: usize, idle: Option<Duration>) -> Option<VecDeque<Work>> {
        let mut state = self.lock();
        while state.work.is_empty() {
            if state.closed.is_some() {
                return None;
            }
            state.wanted = 1;
            state = match idle {
                None => self.arrived.wait(state).expect("no code panics while it holds this lock"),
                Some(idle) => {
                    let waited = self.arrived.wait_timeout(state, idle);
                    let (mut state, waited) = waited.expect("no code panics while it holds this lock");
                    if waited.timed_out() && state.work.is_empty() && state.closed.is_none() {
                        state.wanted = 0;
                        return Some(VecDeque::new());
                    }
                    state
                }
            };
        }
        let wave = expected / 2;
        let begun = Instant::now();
        while state.work.len() < wave && state.closed.is_none() && begun.elapsed() < GATHER_MAX {
            let before = state.work.len();
            state.wanted = wave;
            let waited = self.arrived.wait_timeout(state, GATHER_STEP);
            state = waited.expect("no code panics while it holds this lock").0;
            if state.work.len() == before {
                break;
            }
        }
        state.wanted = 0;
        state.bytes = 0;
        Some(std::mem::take(&mut state.work))
    }

    /// Requests that wait now.
    pub(super) fn len(&self) -> usize {
        self.lock().work.len()
    }

    pub fn close(&self) {
        self.close_because("the log is closed");
    }

    pub fn close_because(&self, reason: &str) {
        let mut state = self.lock();
        state.closed.get_or_insert_with(|| reason.to_owned());
        drop(state);
        self.arrived.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}
