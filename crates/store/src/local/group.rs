//! Requests that are written and answered together.

use std::sync::Arc;
use std::time::Instant;

use daybook_log::Draft;
use daybook_model::Position;

use super::placed::Placed;
use super::queue::BarrierShare;
use crate::planted::{Bug, has};
use crate::{AppendError, Reply, Stored};

/// What one group has decided, not yet durable.
pub(super) struct Group {
    /// Position of its first event.
    pub first: u64,
    pub placed: Vec<Arc<Placed>>,
    /// Events of all that is placed.
    pub events: usize,
    pub draft: Draft,
    pub verdicts: Vec<Verdict>,
    pub barriers: Vec<BarrierShare>,
    /// Bytes it has taken out of the queue.
    pub weight: usize,
}

/// An answer and what it rests on.
pub(super) struct Verdict {
    pub answer: Result<Vec<Stored>, AppendError>,
    pub rests: Rests,
    pub reply: Reply,
    /// When it was asked.
    pub begun: Instant,
}

/// Which events that are not durable yet a verdict looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rests {
    /// Events of its own group, stored by the verdict itself or found there.
    pub on_group: bool,
    /// Events of a group that is being written.
    pub on_flight: bool,
}

/// What became of a group.
#[derive(Debug)]
pub(super) enum Outcome {
    Durable,
    /// No room for it; the log is as it was.
    Refused(String),
    /// The group before was refused, and this one counted on its positions.
    RefusedBefore(String),
    /// The disk did not confirm it.
    Failed(String),
    /// The disk did not confirm the group before: this one was not written.
    FailedBefore(String),
}

impl Group {
    pub fn new(first: u64, draft: Draft) -> Self {
        let (placed, verdicts, barriers) = Default::default();
        Self { first, placed, events: 0, draft, verdicts, barriers, weight: 0 }
    }

    pub fn next(&self) -> u64 {
        self.first + self.events as u64
    }

    pub fn requests(&self) -> usize {
        self.verdicts.len() + self.barriers.len()
    }
}

impl Verdict {
    pub fn is_conflict(&self) -> bool {
        matches!(self.answer, Err(AppendError::Conflict { .. }))
    }

    /// What the publisher is told.
    pub fn told(self, outcome: &Outcome) -> (Result<Vec<Stored>, AppendError>, Reply) {
        let Self { answer, rests, reply, .. } = self;
        let unavailable = |reason: &str| Err(AppendError::Unavailable { reason: reason.to_owned() });
        let unknown = |reason: &str| Err(AppendError::UnknownOutcome { reason: reason.to_owned() });
        let told = match outcome {
            Outcome::Refused(reason) if rests.on_group => unavailable(reason),
            Outcome::RefusedBefore(reason) if rests.on_group || rests.on_flight => unavailable(reason),
            Outcome::Failed(_) if has(Bug::FailureAnswered) => answer,
            Outcome::Failed(reason) if rests.on_group => unknown(reason),
            Outcome::FailedBefore(reason) if rests.on_flight && !stores(&answer) => unknown(reason),
            Outcome::FailedBefore(reason) if rests.on_group => unavailable(reason),
            _ => answer,
        };
        (told, reply)
    }
}

/// Whether the answer speaks of events that the request itself stores.
fn stores(answer: &Result<Vec<Stored>, AppendError>) -> bool {
    answer.as_ref().is_ok_and(|stored| stored.iter().any(|stored| !stored.duplicate))
}

/// The head that a barrier is told once its group is settled.
pub(super) fn told_barrier(outcome: &Outcome, head: Position) -> Result<Position, AppendError> {
    match outcome {
        // Everything ordered before is settled: stored, or refused for good.
        Outcome::Durable | Outcome::Refused(_) | Outcome::RefusedBefore(_) => Ok(head),
        Outcome::Failed(reason) => Err(AppendError::UnknownOutcome { reason: reason.clone() }),
        Outcome::FailedBefore(reason) => Err(AppendError::Unavailable { reason: reason.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(answer: Result<Vec<Stored>, AppendError>, rests: Rests, outcome: &Outcome) -> String {
        let (reply, _) = Reply::awaited();
        match (Verdict { answer, rests, reply, begun: Instant::now() }).told(outcome).0 {
            Ok(_) => "stands".into(),
            Err(AppendError::Conflict { .. }) => "conflict".into(),
            Err(AppendError::Unavailable { .. }) => "unavailable".into(),
            Err(AppendError::UnknownOutcome { .. }) => "unknown".into(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_rests_on_a_failed_sync_is_unknown_and_what_was_never_written_is_unavailable() {
        let stored = || {
            Ok(vec![Stored {
                id: "a".into(),
                position: Position(7),
                sequence: None,
                recordedtime: daybook_model::Timestamp(0),
                duplicate: false,
            }])
        };
        let duplicate = || {
            stored().map(|mut all| {
                all[0].duplicate = true;
                all
            })
        };
        let conflict = || Err(AppendError::Conflict { subject: "k".into() });
        let durable = Rests::default();
        let group = Rests { on_group: true, on_flight: false };
        let flight = Rests { on_group: false, on_flight: true };
        let both = Rests { on_group: true, on_flight: true };
        let failed = || Outcome::Failed("eio".into());
        let failed_before = || Outcome::FailedBefore("eio".into());
        let refused = || Outcome::Refused("full".into());
        let refused_before = || Outcome::RefusedBefore("full".into());
        for (answer, rests, outcome, expected) in [
            (stored(), group, failed(), "unknown"),
            (conflict(), group, failed(), "unknown"),
            (conflict(), durable, failed(), "conflict"),
            // The sync before has returned, or this group would not have been written.
            (conflict(), flight, failed(), "conflict"),
            (stored(), group, failed_before(), "unavailable"),
            // Its key's head was under way: it is not stored all the same.
            (stored(), both, failed_before(), "unavailable"),
            (conflict(), flight, failed_before(), "unknown"),
            (duplicate(), flight, failed_before(), "unknown"),
            (duplicate(), both, failed_before(), "unknown"),
            (conflict(), durable, failed_before(), "conflict"),
            (duplicate(), durable, failed_before(), "stands"),
            (stored(), group, refused(), "unavailable"),
            (conflict(), flight, refused(), "conflict"),
            (conflict(), flight, refused_before(), "unavailable"),
            (stored(), both, Outcome::Durable, "stands"),
        ] {
            let shown = format!("{answer:?} resting on {rests:?}, {outcome:?}");
            assert_eq!(told(answer, rests, &outcome), expected, "{shown}");
        }
    }
}
