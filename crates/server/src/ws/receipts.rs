//! Answers to the publishes of one session, from the store to the outbox.
//!
//! The store notes down here what became of each, on whatever thread it is, and
//! wakes the session once for all it finds: no task, no channel and no future
//! for each publish.
//!
//! # Promises
//! 1. Every publish that was [`asked`](Receipts::asked) for is owed an answer
//!    until the outbox has taken it; its room is kept until then.
//! 2. Whoever polls in vain is woken by the next answer.
//!
//! # After a failure
//! The store tells every [`Reply`], also one that it drops. Answers to a session
//! that is gone are dropped with the last of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use daybook_model::wire::{self, ServerMessage};
use daybook_store::{Outcome, Reply};

use super::inflight::Permit;
use crate::error::append_problem;

/// Shared by the reader, which asks, the store, which tells, and the outbox.
#[derive(Clone, Default)]
pub(super) struct Receipts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    told: Mutex<Told>,
    /// Asked for and not taken; counted by the session's task alone.
    owed: AtomicUsize,
}

#[derive(Default)]
struct Told {
    answers: VecDeque<Answer>,
    /// Of whoever polled last.
    waker: Option<Waker>,
}

struct Answer {
    id: u64,
    outcome: Outcome,
    permit: Permit,
}

impl Receipts {
    /// Where the store tells what became of the publish `id`.
    pub fn asked(&self, id: u64, permit: Permit) -> Reply {
        self.0.owed.fetch_add(1, Relaxed);
        let shared = self.0.clone();
        Reply::new(move |outcome| shared.tell(Answer { id, outcome, permit }))
    }

    /// Nothing is owed: neither told and not taken, nor still to be told.
    pub fn is_settled(&self) -> bool {
        self.0.owed.load(Relaxed) == 0
    }

    /// The next answer, in the order in which they were told.
    pub fn poll_next(&self, context: &Context<'_>) -> Poll<ServerMessage> {
        if self.is_settled() {
            return Poll::Pending;
        }
        let answer = {
            let mut told = self.0.lock();
            match told.answers.pop_front() {
                Some(answer) => answer,
                None => {
                    told.wake_by(context.waker());
                    return Poll::Pending;
                }
            }
        };
        self.0.owed.fetch_sub(1, Relaxed);
        Poll::Ready(answer.message())
    }
}

impl Shared {
    fn tell(&self, answer: Answer) {
        let mut told = self.lock();
        told.answers.push_back(answer);
        // Who was woken and has not come yet finds this one too.
        if told.answers.len() == 1
            && let Some(waker) = &told.waker
        {
            waker.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no code panics while it holds this lock")
    }
}

impl Told {
    fn wake_by(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }
}

impl Answer {
    /// Gives the room back.
    fn message(self) -> ServerMessage {
        let Self { id, outcome, permit } = self;
        drop(permit);
        match outcome {
            Ok(stored) => {
                let receipted = |s: daybook_store::Stored| wire::Receipted {
                    id: s.id,
                    position: s.position,
                    sequence: s.sequence,
                    recordedtime: s.recordedtime,
                    duplicate: s.duplicate,
                };
                wire::Receipt { id, events: stored.into_iter().map(receipted).collect() }.into()
            }
            Err(error) => {
                ServerMessage::Error(Box::new(wire::Error { id: Some(id), problem: append_problem(error) }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use daybook_model::Limits;
    use daybook_store::AppendError;

    use super::super::inflight::Inflight;
    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn answered(polled: Poll<ServerMessage>) -> Option<u64> {
        match polled {
            Poll::Ready(ServerMessage::Receipt(m)) => Some(m.id),
            Poll::Ready(ServerMessage::Error(m)) => m.id,
            Poll::Ready(other) => panic!("{other:?}"),
            Poll::Pending => None,
        }
    }

    #[test]
    fn answers_come_as_they_were_told_and_keep_their_room_until_they_are_taken() {
        let limits = Limits { inflight_events: 2, ..Limits::default() };
        let (receipts, inflight) = (Receipts::default(), Inflight::new(&limits));
        let ask = |id| receipts.asked(id, inflight.admit(1, 1, None).unwrap());
        let (first, second) = (ask(1), ask(2));
        let context = Context::from_waker(Waker::noop());
        assert_eq!(answered(receipts.poll_next(&context)), None);
        second.tell(Ok(Vec::new()));
        // The store was stopped hard.
        drop(first);
        assert!(inflight.admit(1, 1, None).is_err(), "nobody has taken them yet");
        let taken = [(); 2].map(|()| answered(receipts.poll_next(&context)));
        assert_eq!(taken, [Some(2), Some(1)]);
        assert!(receipts.is_settled());
        assert!(inflight.admit(2, 1, None).is_ok());
    }

    #[test]
    fn who_polled_in_vain_is_woken_once_for_all_that_is_there_when_it_comes() {
        let (receipts, inflight) = (Receipts::default(), Inflight::new(&Limits::default()));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let context = Context::from_waker(&waker);
        let tell = |id| {
            let reply = receipts.asked(id, inflight.admit(1, 1, None).unwrap());
            assert_eq!(answered(receipts.poll_next(&context)), None);
            reply
        };
        for round in 1..=2 {
            let replies = [tell(1), tell(2), tell(3)];
            replies.into_iter().for_each(|reply| reply.tell(Err(AppendError::Fenced)));
            assert_eq!(wakes.0.load(Relaxed), round);
            let taken = [(); 4].map(|()| answered(receipts.poll_next(&context)));
            assert_eq!(taken, [Some(1), Some(2), Some(3), None]);
        }
    }

    #[test]
    fn answers_to_a_session_that_is_gone_give_their_room_back() {
        let inflight = Inflight::new(&Limits::default());
        let receipts = Receipts::default();
        let replies = [1, 2].map(|id| receipts.asked(id, inflight.admit(1, 1, Some("t")).unwrap()));
        drop(receipts);
        let [told, dropped] = replies;
        told.tell(Ok(Vec::new()));
        drop(dropped);
        assert!(!inflight.is_publishing(&["t".into()]));
        assert_eq!(Arc::strong_count(&inflight), 1, "nothing else holds it");
    }
}
