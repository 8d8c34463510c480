//! What a session's reader hands to its outbox.
//!
//! Both run in one task, and whoever polls them polls the outbox after the
//! reader (`session::run`): nobody has to be woken, which would poll the whole
//! task once more for every request.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use daybook_model::wire::ServerMessage;
use futures_util::Stream;

use super::outgoing::Outgoing;

/// Jobs the outbox has not looked at. More than this: the client sends nonsense
/// faster than it reads the refusals.
pub(super) const JOBS: usize = 16_384;

pub(super) type Answer = Pin<Box<dyn Future<Output = Option<ServerMessage>> + Send>>;
pub(super) type Pushes = Pin<Box<dyn Stream<Item = Outgoing> + Send>>;

pub(super) enum Job {
    Now(ServerMessage),
    /// Answered when the future is done; `None` for one-way messages.
    Later(Answer),
    Stream(Pushes),
    Ping,
    /// The answer to a client's ping, which carries back what came with it.
    Pong(Vec<u8>),
    /// Finish the answers, then say goodbye.
    Close {
        code: u16,
        reason: String,
    },
}

#[derive(Clone, Default)]
pub(super) struct Jobs(Arc<Queue>);

#[derive(Default)]
struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    /// How many there are: whoever finds none, as mostly, takes no lock for it.
    waiting: AtomicUsize,
}

impl Jobs {
    /// False if there are too many.
    #[must_use]
    pub fn push(&self, job: Job) -> bool {
        let mut jobs = self.lock();
        let has_room = jobs.len() < JOBS;
        if has_room {
            jobs.push_back(job);
            self.0.waiting.store(jobs.len(), Relaxed);
        }
        has_room
    }

    pub fn pop(&self) -> Option<Job> {
        if self.is_empty() {
            return None;
        }
        let mut jobs = self.lock();
        let job = jobs.pop_front();
        self.0.waiting.store(jobs.len(), Relaxed);
        job
    }

    pub fn is_empty(&self) -> bool {
        self.0.waiting.load(Relaxed) == 0
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.0.jobs.lock().expect("no code panics while it holds this lock")
    }
}
