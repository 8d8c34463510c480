//! What waits for the committer, bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

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
    sleeping: bool,
}

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
        let wake = state.sleeping;
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Everything that waits; sleeps until there is something. `None` once
    /// closed and empty.
    pub(super) fn take(&self) -> Option<VecDeque<Work>> {
        let mut state = self.lock();
        loop {
            if !state.work.is_empty() {
                state.bytes = 0;
                return Some(std::mem::take(&mut state.work));
            }
            if state.closed.is_some() {
                return None;
            }
            state.sleeping = true;
            state = self.arrived.wait(state).expect("no code panics while it holds this lock");
            state.sleeping = false;
        }
    }

    /// What has come in the meantime, without sleeping.
    pub(super) fn take_more(&self, into: &mut VecDeque<Work>) {
        let mut state = self.lock();
        state.bytes = 0;
        into.append(&mut state.work);
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
