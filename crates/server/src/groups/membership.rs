//! One session's place in a group.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use daybook_bus::MemberId;
use daybook_model::Position;
use daybook_model::wire::{self, NackAction};
use daybook_store::Fence;
use tokio::sync::{mpsc, oneshot};

use super::claims::Claims;
use super::task::Command;
use super::tokens::Issuer;
use crate::planted::{Bug, has};

/// What the group sends to a session. The channel holds twice the session's
/// credit, so that it can only be full for a session that settles what it never
/// received; such a session is taken for lost.
#[derive(Debug)]
pub(crate) enum Push {
    Deliver(Vec<wire::Delivery>),
    Overdue(String),
    /// The claim on the group is over; nothing more comes.
    Revoked(String),
}

/// Words of a session that its group has not looked at. The group never waits
/// for disk or socket, so more than this is a flood.
const QUEUED_MAX: usize = 16_384;

/// Dropped without [`Membership::leave`], the session counts as lost: a crash,
/// unless the same boot joins again in time.
#[derive(Debug)]
pub(crate) struct Membership {
    /// Where the group reads on.
    pub position: Position,
    pub(super) member: MemberId,
    pub(super) issuer: Issuer,
    pub(super) claims: Arc<Claims>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) queued: Arc<AtomicUsize>,
    pub(super) left: bool,
}

/// What a member says; [`Command`] carries it to the group's task.
#[derive(Debug)]
pub(super) enum Word {
    Ack { tokens: Vec<String>, reply: Option<oneshot::Sender<Vec<String>>> },
    Nack { token: String, action: NackAction, delay_ms: Option<u64>, reason: Option<String> },
    Progress { token: String },
    Leave { done: oneshot::Sender<()> },
    Lost,
}

impl Membership {
    /// The fence of a live delivery of this session.
    pub fn fence(&self, token: &str) -> Option<Fence> {
        let token = self.issuer.read(token).filter(|token| token.member == self.member)?;
        self.claims.fence(token)
    }

    /// Settles; `reply` gets the tokens that settled nothing, once the rest is
    /// in a durable checkpoint.
    pub fn ack(&self, tokens: Vec<String>, reply: Option<oneshot::Sender<Vec<String>>>) {
        self.say(Word::Ack { tokens, reply });
    }

    /// Gives an event back, and with it what the session has of the key behind it.
    pub fn nack(&self, token: String, action: NackAction, delay_ms: Option<u64>, reason: Option<String>) {
        let own = self.issuer.read(&token).filter(|token| token.member == self.member);
        if let Some(token) = own.filter(|_| !has(Bug::ClaimsOutliveNack)) {
            self.claims.close_behind(token);
        }
        self.say(Word::Nack { token, action, delay_ms, reason });
    }

    pub fn progress(&self, token: String) {
        self.say(Word::Progress { token });
    }

    /// Nothing that it was given waits to be settled.
    pub fn is_idle(&self) -> bool {
        !self.claims.any_of(self.member)
    }

    /// Gives everything back in good order; returns when the group knows.
    pub async fn leave(mut self) {
        self.left = true;
        let (done, left) = oneshot::channel();
        self.send(Word::Leave { done });
        // An error: the group's task has ended, and with it the membership.
        let _ = left.await;
    }

    fn say(&self, word: Word) {
        match self.queued.fetch_add(1, Ordering::Relaxed) {
            queued if queued < QUEUED_MAX => self.send(word),
            // A word is lost, as on a broken connection: so is the session, or
            // an event would wait for a settling that was dropped.
            QUEUED_MAX => self.send(Word::Lost),
            _ => {}
        }
    }

    fn send(&self, word: Word) {
        let _ = self.commands.send(Command::Word { member: self.member, word });
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if !self.left {
            self.send(Word::Lost);
        }
    }
}
