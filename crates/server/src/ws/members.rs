//! The groups this connection takes part in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use daybook_model::wire::{self, ServerMessage};
use daybook_model::{Code, Problem};
use daybook_store::Fence;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::{mpsc, oneshot};

use super::inflight::Inflight;
use super::jobs::{Answer, Job};
use super::outgoing::Outgoing;
use crate::groups::{Member, Membership, Push};
use crate::state::Shared;

/// Pushes waiting for the socket. The group's credit bounds what can be in
/// here, so this is for `overdue` and the like beside it.
const PUSHES: usize = 1_024;

const NOT_TAKEN: &str = "the session did not take what it was sent, or the group is closed";

/// A seat that a `join` has taken; empty until the group has answered.
type Seat = Arc<Mutex<Option<Membership>>>;

pub(super) struct Members {
    shared: Arc<Shared>,
    who: Member,
    seats: HashMap<u64, Seat>,
    /// The server goes down, and all seats were given back.
    left: bool,
}

impl Members {
    pub fn new(shared: Arc<Shared>, who: Member) -> Self {
        Self { shared, who, seats: HashMap::new(), left: false }
    }

    pub fn join(&mut self, subscription: u64, join: wire::Join) -> Result<Job, Problem> {
        if join.credit.0 == 0 {
            return Err(Problem::new(Code::Invalid, "a member without credit gets nothing").member("credit"));
        }
        let id = join.id;
        let seat = Seat::default();
        self.seats.insert(subscription, seat.clone());
        let (shared, who) = (self.shared.clone(), self.who.clone());
        let (push, pushed) = mpsc::channel(PUSHES);
        let still = Arc::downgrade(&seat);
        // First the answer, then the deliveries: one stream keeps that order.
        let answer = stream::once(async move {
            match shared.groups.join(who, join, push).await {
                Ok(membership) => {
                    let position = membership.position;
                    *lock(&seat) = Some(membership);
                    wire::Joined { id, subscription, position }.into()
                }
                Err(problem) => ServerMessage::Error(Box::new(wire::Error { id: Some(id), problem })),
            }
        });
        let pushes = stream::unfold(Some(pushed), move |pushed| {
            let still = still.clone();
            async move {
                let mut pushed = pushed?;
                match pushed.recv().await {
                    Some(over @ Push::Revoked(_)) => Some((over, None)),
                    Some(push) => Some((push, Some(pushed))),
                    // Without a word the group drops only who does not take what
                    // it is sent; whoever leaves has given up his seat's membership first.
                    None => {
                        let seat = still.upgrade().filter(|seat| lock(seat).is_some());
                        seat.map(|_| (Push::Revoked(NOT_TAKEN.into()), None))
                    }
                }
            }
        });
        let pushes = pushes.map(move |push| match push {
            Push::Deliver(deliveries) => wire::Deliver { subscription, deliveries }.into(),
            Push::Overdue(token) => wire::Overdue { subscription, token }.into(),
            Push::Revoked(reason) => wire::Revoked { subscription, reason }.into(),
        });
        Ok(Job::Stream(Box::pin(answer.chain(pushes).map(Outgoing::from))))
    }

    /// The fence of a delivery of this session; one already raised for any other token.
    pub fn fence(&self, token: &str) -> Fence {
        self.live(token).unwrap_or_else(|| {
            let raised = Fence::new();
            raised.raise();
            raised
        })
    }

    /// The fence of a delivery that this session has not settled and not lost.
    pub fn live(&self, token: &str) -> Option<Fence> {
        self.seats.values().find_map(|seat| lock(seat).as_ref()?.fence(token))
    }

    /// `None`: no such subscription. The ack waits for publishes under its tokens.
    pub fn ack(&self, ack: wire::Ack, inflight: &Arc<Inflight>) -> Option<Option<Answer>> {
        let seat = self.seats.get(&ack.subscription)?.clone();
        // Too late for a server that goes down is no error: it comes again, and is stale.
        if lock(&seat).is_none() && !self.left {
            return None;
        }
        let wire::Ack { id, tokens, .. } = ack;
        if id.is_none() && !inflight.is_publishing(&tokens) {
            if let Some(membership) = &*lock(&seat) {
                membership.ack(tokens, None);
            }
            return Some(None);
        }
        let inflight = inflight.clone();
        Some(Some(Box::pin(async move {
            inflight.settled(&tokens).await;
            let (reply, answer) = oneshot::channel();
            let all = tokens.clone();
            {
                let seat = lock(&seat);
                match &*seat {
                    Some(membership) => membership.ack(tokens, id.map(|_| reply)),
                    None => drop(reply),
                }
            }
            let id = id?;
            // A group that is gone has settled nothing of it.
            let stale = answer.await.unwrap_or(all);
            Some(wire::Done { id, stale: Some(stale) }.into())
        })))
    }

    pub fn nack(&self, nack: wire::Nack) -> bool {
        self.with(nack.subscription, |membership| {
            membership.nack(nack.token, nack.action, nack.delay_ms, nack.reason);
        })
    }

    pub fn progress(&self, progress: wire::Progress) -> bool {
        self.with(progress.subscription, |membership| membership.progress(progress.token))
    }

    pub fn leave(&mut self, id: u64, subscription: u64) -> Option<Answer> {
        let seat = self.seats.remove(&subscription)?;
        let membership = lock(&seat).take();
        Some(Box::pin(async move {
            if let Some(membership) = membership {
                membership.leave().await;
            }
            Some(wire::Done { id, stale: None }.into())
        }))
    }

    /// Everything that this connection was given is settled.
    pub fn are_idle(&self) -> bool {
        self.seats.values().all(|seat| lock(seat).as_ref().is_none_or(Membership::is_idle))
    }

    pub async fn leave_all(&mut self) {
        self.left = true;
        for seat in self.seats.values() {
            let membership = lock(seat).take();
            if let Some(membership) = membership {
                membership.leave().await;
            }
        }
    }

    fn with(&self, subscription: u64, act: impl FnOnce(&Membership)) -> bool {
        let Some(seat) = self.seats.get(&subscription) else { return false };
        match &*lock(seat) {
            Some(membership) => {
                act(membership);
                true
            }
            None => self.left,
        }
    }
}

fn lock(seat: &Seat) -> std::sync::MutexGuard<'_, Option<Membership>> {
    seat.lock().expect("no code panics while it holds this lock")
}

#[cfg(test)]
mod tests {
    use daybook_model::Timestamp;
    use daybook_store::memory::MemoryStore;

    use super::*;
    use crate::Config;

    #[tokio::test]
    async fn an_ack_too_late_for_a_server_that_goes_down_is_stale_and_no_error() {
        let config = Config::new("unused").listen(([127, 0, 0, 1], 0).into());
        let store = Arc::new(MemoryStore::new(|| Timestamp(1)));
        let server = crate::server::start_with(config, store).await.unwrap();
        let who = Member { instance: "i".into(), boot: None, session: "s/i/1".into() };
        let mut members = Members::new(server.shared.clone(), who);
        let join = serde_json::from_str(r#"{"op":"join","id":1,"group":"g","credit":1}"#).unwrap();
        let Ok(Job::Stream(mut pushes)) = members.join(1, join) else { panic!("it is let in") };
        let joined = pushes.next().await.unwrap();
        assert!(matches!(joined, Outgoing::Message(ServerMessage::Joined(_))));
        let inflight = Inflight::new(&server.shared.config.limits);
        let ack = |id| wire::Ack { id, subscription: 1, tokens: vec!["t".into()] };
        members.leave_all().await;
        assert!(matches!(members.ack(ack(None), &inflight), Some(None)), "nobody asked for an answer");
        let answer = members.ack(ack(Some(7)), &inflight).unwrap().unwrap().await.unwrap();
        let ServerMessage::Done(done) = answer else { panic!("{answer:?}") };
        assert_eq!((done.id, done.stale), (7, Some(vec!["t".into()])));
        let nowhere = wire::Ack { subscription: 2, ..ack(Some(8)) };
        assert!(members.ack(nowhere, &inflight).is_none(), "there never was such a subscription");
    }
}
