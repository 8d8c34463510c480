//! Taking part in a group.

use std::sync::Arc;
use std::time::Duration;

use daybook_model::wire::{
    self, Ack, Count, Key, Mode, Nack, NackAction, Poison, Progress, ServerMessage, Start,
};
use daybook_model::{Event, Filter, Position};
use tokio::sync::{mpsc, oneshot};

use crate::JoinError;
use crate::connection::{Command, GroupPush, Listener, OpenStream};

/// What to join, and what the group shall be if this is its first member.
#[derive(Clone, Debug, Default)]
pub struct Join {
    pub group: String,
    /// Unsettled deliveries to hold at once.
    pub credit: u64,
    pub filter: Option<Filter>,
    pub start: Option<Start>,
    pub mode: Option<Mode>,
    pub key: Option<Key>,
    pub poison: Option<Poison>,
    pub max_attempts: Option<u32>,
    pub max_processing: Option<Duration>,
    /// Deliveries of one key to hold at once, 1 if not said. With more, what comes
    /// after a failed event of its key comes again: it must be handled in order.
    pub window: Option<u64>,
    /// Bytes of unsettled deliveries to hold at once.
    pub credit_bytes: Option<u64>,
}

impl Join {
    pub fn new(group: impl Into<String>, credit: u64) -> Self {
        Self { group: group.into(), credit, ..Self::default() }
    }
}

/// One event to be handled. Settle it with [`Membership::ack`] or [`Membership::nack`].
#[derive(Clone, Debug)]
pub struct Delivery {
    pub token: String,
    /// 1 for the first.
    pub attempt: u32,
    pub event: Arc<Event>,
}

/// A seat in a group, for as long as it is held.
pub struct Membership {
    stream: u64,
    position: Position,
    commands: mpsc::Sender<Command>,
    pushed: mpsc::UnboundedReceiver<GroupPush>,
    left: bool,
}

pub(crate) async fn open(commands: &mpsc::Sender<Command>, join: Join) -> Result<Membership, JoinError> {
    let (push, pushed) = mpsc::unbounded_channel();
    let (opened, answer) = oneshot::channel();
    let message = Box::new(wire::Join {
        id: 0,
        group: join.group,
        credit: Count(join.credit),
        filter: join.filter,
        start: join.start,
        mode: join.mode,
        key: join.key,
        poison: join.poison,
        max_attempts: join.max_attempts,
        max_processing_ms: join.max_processing.map(|time| time.as_millis() as u64),
        window: join.window.map(Count),
        credit_bytes: join.credit_bytes,
    });
    let open = Command::Open(OpenStream { message: message.into(), opened, to: Listener::Group(push) });
    commands.send(open).await.map_err(|_| JoinError::Closed)?;
    match answer.await {
        Ok(Ok((stream, position))) => {
            Ok(Membership { stream, position, commands: commands.clone(), pushed, left: false })
        }
        Ok(Err(problem)) => Err(JoinError::Refused(problem)),
        Err(_) => Err(JoinError::Closed),
    }
}

impl Membership {
    /// Where the group reads on.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next delivery; `None` once the claim or the client is gone. Cancel-safe.
    /// A handler that is overdue and still runs is excused by itself.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            match self.pushed.recv().await? {
                GroupPush::Delivery(delivery) => {
                    let wire::Delivery { token, attempt, event } = delivery;
                    return Some(Delivery { token, attempt, event: event.0 });
                }
                GroupPush::Overdue(token) => self.progress(&token).await,
                GroupPush::Revoked(reason) => {
                    tracing::warn!(reason, "the claim on the group was revoked");
                    return None;
                }
            }
        }
    }

    /// A handle for settling from other tasks.
    pub fn settler(&self) -> Settler {
        Settler { stream: self.stream, commands: self.commands.clone() }
    }

    pub async fn ack(&self, token: &str) {
        self.settler().ack(token).await;
    }

    /// Waits until the ack survives a restart; returns false if the claim was gone.
    pub async fn ack_durable(&self, token: &str) -> bool {
        self.settler().ack_durable(token).await
    }

    pub async fn nack(
        &self,
        token: &str,
        action: NackAction,
        delay: Option<Duration>,
        reason: Option<String>,
    ) {
        self.settler().nack(token, action, delay, reason).await;
    }

    /// "Still working."
    pub async fn progress(&self, token: &str) {
        self.settler().progress(token).await;
    }

    /// Leaves in good order: costs no attempt.
    pub async fn leave(mut self) {
        self.left = true;
        let (reply, done) = oneshot::channel();
        let _ = self.commands.send(Command::CloseStream { stream: self.stream, reply: Some(reply) }).await;
        let _ = tokio::time::timeout(Duration::from_secs(5), done).await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if !self.left {
            let _ = self.commands.try_send(Command::CloseStream { stream: self.stream, reply: None });
        }
    }
}

/// Settles deliveries of a membership. Cheap to clone.
#[derive(Clone)]
pub struct Settler {
    stream: u64,
    commands: mpsc::Sender<Command>,
}

impl Settler {
    pub async fn ack(&self, token: &str) {
        self.send(Ack { id: None, subscription: 0, tokens: vec![token.to_owned()] }.into()).await;
    }

    pub async fn ack_durable(&self, token: &str) -> bool {
        let (reply, answer) = oneshot::channel();
        let message = Ack { id: Some(0), subscription: 0, tokens: vec![token.to_owned()] }.into();
        let command = Command::ToStream { stream: self.stream, message, reply: Some(reply) };
        if self.commands.send(command).await.is_err() {
            return false;
        }
        matches!(answer.await, Ok(Ok(ServerMessage::Done(done))) if done.stale.as_ref().is_none_or(Vec::is_empty))
    }

    pub async fn nack(
        &self,
        token: &str,
        action: NackAction,
        delay: Option<Duration>,
        reason: Option<String>,
    ) {
        let delay_ms = delay.map(|delay| delay.as_millis() as u64);
        self.send(Nack { subscription: 0, token: token.to_owned(), action, delay_ms, reason }.into()).await;
    }

    pub async fn progress(&self, token: &str) {
        self.send(Progress { subscription: 0, token: token.to_owned() }.into()).await;
    }

    async fn send(&self, message: daybook_model::wire::ClientMessage) {
        let _ = self.commands.send(Command::ToStream { stream: self.stream, message, reply: None }).await;
    }
}
