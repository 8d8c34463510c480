//! Whether events are taken just now.
//!
//! # Promises
//! 1. While something is short (the disk, the index's memory), publishes are
//!    refused before anything of them is written; reads, acks and shutdown go on.
//! 2. Every cause is taken back by the thread that looks after what is short, so
//!    that publishing resumes by itself.
//! 3. A failed write of the log is for good: the health stays `Poisoned`.
//!
//! # Not here
//! Looking at the disk (`room.rs`), writing the index (`index/worker.rs`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::{AppendError, Health};

/// Why nothing is taken. Those who write give one too; taken back is `Space` and
/// `Segment` by the preparer, `Index` and `Backlog` by the indexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Less is free than what comes next needs.
    Space,
    /// The next segment cannot be made.
    Segment,
    /// The index cannot be written, and memory holds no more of it.
    Index,
    /// The same, but only because the disk is slower than the publishers.
    Backlog,
}

const CAUSES: usize = 4;

pub(crate) struct Gate {
    /// Whether any cause is given: looked at for every batch.
    closed: AtomicBool,
    causes: Mutex<[Option<String>; CAUSES]>,
    health: watch::Sender<Health>,
}

impl Gate {
    pub fn new() -> Self {
        Self {
            closed: AtomicBool::new(false),
            causes: Mutex::default(),
            health: watch::Sender::new(Health::Ok),
        }
    }

    /// Err if an event that is not stored yet must not be taken.
    pub fn check(&self) -> Result<(), AppendError> {
        if !self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let causes = self.lock();
        match reason(&causes) {
            Some(reason) => Err(AppendError::Unavailable { reason }),
            None if causes[Cause::Backlog as usize].is_some() => Err(AppendError::Overloaded),
            None => Ok(()),
        }
    }

    pub fn close(&self, cause: Cause, reason: String) {
        self.set(cause, Some(reason));
    }

    pub fn open(&self, cause: Cause) {
        if self.closed.load(Ordering::Acquire) {
            self.set(cause, None);
        }
    }

    /// The log takes no more until it is opened again.
    pub fn poison(&self, reason: &str) {
        self.health.send_replace(Health::Poisoned(reason.to_owned()));
    }

    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn set(&self, cause: Cause, why: Option<String>) {
        let mut causes = self.lock();
        let was = reason(&causes);
        causes[cause as usize] = why;
        self.closed.store(causes.iter().any(Option::is_some), Ordering::Release);
        let is = reason(&causes);
        if was.is_some() != is.is_some() {
            match &is {
                Some(reason) => tracing::warn!(reason, "publishes are refused"),
                None => tracing::warn!("publishes are taken again"),
            }
        }
        self.health.send_if_modified(|health| {
            let new = is.map_or(Health::Ok, Health::Degraded);
            let changes = *health != new && !matches!(health, Health::Poisoned(_));
            if changes {
                *health = new;
            }
            changes
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [Option<String>; CAUSES]> {
        self.causes.lock().expect("no code panics while it holds this lock")
    }
}

/// What an operator has to do something about; a backlog passes.
fn reason(causes: &[Option<String>; CAUSES]) -> Option<String> {
    [Cause::Space, Cause::Segment, Cause::Index].iter().find_map(|cause| causes[*cause as usize].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_when_the_last_cause_is_taken_back_and_never_after_a_poisoning() {
        let gate = Gate::new();
        gate.close(Cause::Space, "full".into());
        gate.close(Cause::Index, "cannot be written".into());
        gate.open(Cause::Space);
        assert!(
            matches!(gate.check(), Err(AppendError::Unavailable { reason }) if reason.contains("written"))
        );
        gate.open(Cause::Index);
        assert_eq!((gate.check(), gate.health().borrow().clone()), (Ok(()), Health::Ok));
        gate.poison("EIO");
        gate.close(Cause::Space, "full".into());
        gate.open(Cause::Space);
        assert_eq!(*gate.health().borrow(), Health::Poisoned("EIO".into()));
    }

    #[test]
    fn a_backlog_asks_to_wait_and_is_no_illness() {
        let gate = Gate::new();
        gate.close(Cause::Backlog, "behind".into());
        assert_eq!(gate.check(), Err(AppendError::Overloaded));
        assert_eq!(*gate.health().borrow(), Health::Ok);
    }
}
