//! Whom a store tells what became of a batch.
//!
//! # Promises
//! It is told exactly once. Who drops a [`Reply`] without a word says that the
//! outcome is unknown: so ends what a store had taken when it was stopped hard.

use tokio::sync::oneshot;

use crate::{AppendError, Stored};

/// What became of a batch.
pub type Outcome = Result<Vec<Stored>, AppendError>;

/// Told from any thread, while locks of the store are held: whoever listens only
/// notes it down.
pub struct Reply(Option<Box<dyn FnOnce(Outcome) + Send>>);

impl Reply {
    pub fn new(listen: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self(Some(Box::new(listen)))
    }

    /// For somebody who waits. Who has stopped waiting is told nothing.
    pub fn awaited() -> (Self, oneshot::Receiver<Outcome>) {
        let (reply, answer) = oneshot::channel();
        (Self::new(|outcome| drop(reply.send(outcome))), answer)
    }

    pub fn tell(mut self, outcome: Outcome) {
        self.tell_once(outcome);
    }

    fn tell_once(&mut self, outcome: Outcome) {
        if let Some(listen) = self.0.take() {
            listen(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.tell_once(Err(stopped()));
        }
    }
}

pub(crate) fn stopped() -> AppendError {
    AppendError::UnknownOutcome { reason: "the log was closed hard".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_told_once_and_one_that_is_dropped_says_that_the_outcome_is_unknown() {
        let (told, mut answer) = Reply::awaited();
        told.tell(Err(AppendError::Fenced));
        assert_eq!(answer.try_recv(), Ok(Err(AppendError::Fenced)));
        let (dropped, mut answer) = Reply::awaited();
        drop(dropped);
        assert_eq!(answer.try_recv(), Ok(Err(stopped())));
    }
}
