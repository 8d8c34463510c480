//! Following the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use daybook_model::wire::{Count, Credit, Start, Subscribe};
use daybook_model::{Event, Filter, Position, Problem};
use tokio::sync::{mpsc, oneshot};

use crate::SubscribeError;
use crate::connection::{Command, Listener, OpenStream, StreamPush};

/// Events under way or untaken at most; topped up when half is taken.
const WINDOW: u64 = 1_024;

/// What a subscription tells.
#[derive(Clone, Debug)]
pub enum Item {
    Event(Arc<Event>),
    /// Everything before this position has been handed out: live from here.
    CaughtUp(Position),
}

/// Events in order, for as long as it is held.
pub struct Subscription {
    stream: u64,
    position: Position,
    commands: mpsc::Sender<Command>,
    pushed: mpsc::UnboundedReceiver<StreamPush>,
    untaken: Arc<AtomicU64>,
    taken: u64,
    ended: Option<Box<Problem>>,
}

pub(crate) async fn open(
    commands: &mpsc::Sender<Command>,
    from: Start,
    filter: Filter,
) -> Result<Subscription, SubscribeError> {
    let (push, pushed) = mpsc::unbounded_channel();
    let (opened, answer) = oneshot::channel();
    let untaken = Arc::new(AtomicU64::new(0));
    let message = Subscribe { id: 0, from, filter: Some(filter), credit: Count(WINDOW) }.into();
    let to = Listener::Subscription { push, untaken: untaken.clone(), window: WINDOW };
    let open = Command::Open(OpenStream { message, opened, to });
    commands.send(open).await.map_err(|_| SubscribeError::Closed)?;
    match answer.await {
        Ok(Ok((stream, position))) => {
            let (commands, ended) = (commands.clone(), None);
            Ok(Subscription { stream, position, commands, pushed, untaken, taken: 0, ended })
        }
        Ok(Err(problem)) => Err(SubscribeError::Refused(problem)),
        Err(_) => Err(SubscribeError::Closed),
    }
}

impl Subscription {
    /// Where it began.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Why the bus ended it, once [`Subscription::next`] has given nothing more.
    pub fn ended(&self) -> Option<&Problem> {
        self.ended.as_deref()
    }

    /// The next event or word; `None` once the client is closed, or the bus has
    /// [ended](Subscription::ended) it. Cancel-safe.
    pub async fn next(&mut self) -> Option<Item> {
        match self.pushed.recv().await? {
            StreamPush::CaughtUp(position) => Some(Item::CaughtUp(position)),
            StreamPush::Ended(problem) => {
                self.ended = Some(problem);
                None
            }
            StreamPush::Event(event) => {
                self.untaken.fetch_sub(1, Ordering::Relaxed);
                self.taken += 1;
                if self.taken >= WINDOW / 2 {
                    let message = Credit { subscription: 0, events: Count(self.taken) }.into();
                    let command = Command::ToStream { stream: self.stream, message, reply: None };
                    // Full: the next event tries again.
                    if self.commands.try_send(command).is_ok() {
                        self.taken = 0;
                    }
                }
                Some(Item::Event(event))
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = self.commands.try_send(Command::CloseStream { stream: self.stream, reply: None });
    }
}
