//! Subscriptions and memberships: what is opened again after a reconnect.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use daybook_model::wire::{ClientMessage, Count, Delivery, Leave, ServerMessage, Start, Unsubscribe};
use daybook_model::{Code, Event, Position, Problem};
use tokio::sync::{mpsc, oneshot};

use super::{Command, Lost};

/// What a subscription receives.
pub(crate) enum StreamPush {
    Event(Arc<Event>),
    CaughtUp(Position),
    /// The bus ended it.
    Ended(Box<Problem>),
}

/// What a membership receives.
pub(crate) enum GroupPush {
    Delivery(Delivery),
    Overdue(String),
    Revoked(String),
}

pub(crate) type Opened = oneshot::Sender<Result<(u64, Position), Box<Problem>>>;

/// A stream to open, and to open again for as long as somebody listens.
pub(crate) struct OpenStream {
    pub message: ClientMessage,
    pub opened: Opened,
    pub to: Listener,
}

pub(crate) enum Listener {
    /// Events handed over and not yet taken: what credit is left to give.
    Subscription {
        push: mpsc::UnboundedSender<StreamPush>,
        untaken: Arc<AtomicU64>,
        window: u64,
    },
    Group(mpsc::UnboundedSender<GroupPush>),
}

struct Stream {
    message: ClientMessage,
    opened: Option<Opened>,
    to: Listener,
    /// The request that opened it on the present connection.
    asked: u64,
    /// The server's number on the present connection.
    subscription: Option<u64>,
}

pub(super) struct Streams {
    all: HashMap<u64, Stream>,
    last: u64,
    /// Request number of an opening → stream.
    opening: HashMap<u64, u64>,
    /// They were open before the connection was lost, and the bus would not open
    /// them again yet.
    refused: Vec<u64>,
    by_subscription: HashMap<u64, u64>,
    /// Requests about streams: they die with the connection.
    expected: HashMap<u64, oneshot::Sender<Result<ServerMessage, Lost>>>,
    closing: HashMap<u64, oneshot::Sender<()>>,
    _commands: mpsc::WeakSender<Command>,
}

impl Streams {
    pub fn new(commands: mpsc::WeakSender<Command>) -> Self {
        Self {
            all: HashMap::new(),
            last: 0,
            opening: HashMap::new(),
            refused: Vec::new(),
            by_subscription: HashMap::new(),
            expected: HashMap::new(),
            closing: HashMap::new(),
            _commands: commands,
        }
    }

    pub fn open(&mut self, open: OpenStream, last_id: &mut u64) -> ClientMessage {
        self.last += 1;
        let OpenStream { message, opened, to } = open;
        let stream = Stream { message, opened: Some(opened), to, asked: 0, subscription: None };
        self.all.insert(self.last, stream);
        self.open_message(self.last, last_id)
    }

    fn open_message(&mut self, stream: u64, last_id: &mut u64) -> ClientMessage {
        *last_id += 1;
        self.opening.insert(*last_id, stream);
        let mut message = self.all[&stream].message.clone();
        super::set_id(&mut message, *last_id);
        message
    }

    pub fn connection_lost(&mut self) {
        self.opening.clear();
        self.refused.clear();
        self.by_subscription.clear();
        self.expected.clear();
        self.closing.clear();
        for stream in self.all.values_mut() {
            stream.subscription = None;
        }
    }

    /// Opens every stream again that somebody still listens to.
    pub fn reopen(&mut self, last_id: &mut u64) -> Vec<ClientMessage> {
        self.all.retain(|_, stream| match &stream.to {
            Listener::Subscription { push, .. } => !push.is_closed(),
            Listener::Group(push) => !push.is_closed(),
        });
        for stream in self.all.values_mut() {
            if let (ClientMessage::Subscribe(m), Listener::Subscription { untaken, window, .. }) =
                (&mut stream.message, &stream.to)
            {
                m.credit = Count(window.saturating_sub(untaken.load(Ordering::Relaxed)));
            }
        }
        let mut streams: Vec<u64> = self.all.keys().copied().collect();
        streams.sort_unstable();
        streams.into_iter().map(|stream| self.open_message(stream, last_id)).collect()
    }

    pub fn has_groups(&self) -> bool {
        self.all.values().any(|stream| matches!(stream.to, Listener::Group(_)))
    }

    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Asks again for what the bus would not open yet.
    pub fn reopen_refused(&mut self, last_id: &mut u64) -> Vec<ClientMessage> {
        let mut streams = std::mem::take(&mut self.refused);
        streams.retain(|stream| self.all.contains_key(stream));
        streams.into_iter().map(|stream| self.open_message(stream, last_id)).collect()
    }

    pub fn subscription(&self, stream: u64) -> Option<u64> {
        self.all.get(&stream)?.subscription
    }

    pub fn expect(&mut self, id: u64, reply: oneshot::Sender<Result<ServerMessage, Lost>>) {
        self.expected.insert(id, reply);
    }

    pub fn close(
        &mut self,
        stream: u64,
        id: u64,
        reply: Option<oneshot::Sender<()>>,
    ) -> Option<ClientMessage> {
        let stream = self.all.remove(&stream)?;
        let subscription = stream.subscription?;
        self.by_subscription.remove(&subscription);
        if let Some(reply) = reply {
            self.closing.insert(id, reply);
        }
        Some(match stream.to {
            Listener::Subscription { .. } => Unsubscribe { id, subscription }.into(),
            Listener::Group(_) => Leave { id, subscription }.into(),
        })
    }

    /// Hands a message to whom it belongs.
    pub fn receive(&mut self, message: ServerMessage) -> Vec<ClientMessage> {
        match message {
            ServerMessage::Subscribed(m) => self.opened(m.id, m.subscription, m.position),
            ServerMessage::Joined(m) => self.opened(m.id, m.subscription, m.position),
            ServerMessage::Events(m) => {
                self.events(m.subscription, m.events.into_iter().map(|event| event.0))
            }
            ServerMessage::CaughtUp(m) => {
                if let Some(Listener::Subscription { push, .. }) = self.listener(m.subscription) {
                    let _ = push.send(StreamPush::CaughtUp(m.position));
                }
            }
            ServerMessage::Deliver(m) => {
                for delivery in m.deliveries {
                    self.push(m.subscription, GroupPush::Delivery(delivery));
                }
            }
            ServerMessage::Overdue(m) => self.push(m.subscription, GroupPush::Overdue(m.token)),
            ServerMessage::Revoked(m) => return self.revoked(m.subscription, m.reason),
            ServerMessage::Done(m) => {
                if let Some(reply) = self.closing.remove(&m.id) {
                    let _ = reply.send(());
                } else if let Some(reply) = self.expected.remove(&m.id) {
                    let _ = reply.send(Ok(ServerMessage::Done(m)));
                }
            }
            ServerMessage::Error(m) => {
                let Some(id) = m.id else {
                    tracing::warn!(problem = %m.problem, "the bus refused something");
                    return Vec::new();
                };
                if let Some(stream) = self.opening.remove(&id) {
                    self.not_opened(stream, m.problem);
                } else if let Some(reply) = self.expected.remove(&id) {
                    let _ = reply.send(Ok(ServerMessage::Error(m)));
                } else {
                    self.ended(id, m.problem);
                }
            }
            _ => {}
        }
        Vec::new()
    }

    /// Whoever asked for the first time is told. What was open before is asked for
    /// again if the refusal is one that passes: a bus that goes down, or has come
    /// up and is not ready.
    fn not_opened(&mut self, stream: u64, problem: Problem) {
        let passes = matches!(problem.code, Code::Unavailable | Code::Overloaded);
        if passes && self.all.get(&stream).is_some_and(|stream| stream.opened.is_none()) {
            self.refused.push(stream);
        } else if let Some(opened) = self.all.remove(&stream).and_then(|stream| stream.opened) {
            let _ = opened.send(Err(Box::new(problem)));
        }
    }

    /// The bus ended what was open. What goes on by position is asked for again
    /// if the reason passes. What a group has settled does not: whoever follows it
    /// must know that something is missing, and begin with nothing.
    fn ended(&mut self, id: u64, problem: Problem) {
        let is_it = |stream: &Stream| stream.subscription.is_some() && stream.asked == id;
        let Some(stream) = self.all.iter().find(|(_, stream)| is_it(stream)).map(|(id, _)| *id) else {
            return;
        };
        let passes = matches!(problem.code, Code::Unavailable | Code::Overloaded);
        let open = self.all.get_mut(&stream).and_then(|open| Some((open.subscription.take()?, open)));
        let Some((subscription, open)) = open else { return };
        self.by_subscription.remove(&subscription);
        if passes && !follows_settled(&open.message) {
            self.refused.push(stream);
        } else if let Some(Stream { to: Listener::Subscription { push, .. }, .. }) = self.all.remove(&stream)
        {
            let _ = push.send(StreamPush::Ended(Box::new(problem)));
        }
    }

    fn opened(&mut self, id: u64, subscription: u64, position: Position) {
        let Some(stream_id) = self.opening.remove(&id) else { return };
        let Some(stream) = self.all.get_mut(&stream_id) else { return };
        stream.subscription = Some(subscription);
        stream.asked = id;
        self.by_subscription.insert(subscription, stream_id);
        if let ClientMessage::Subscribe(m) = &mut stream.message {
            // "end" is where it was when it was first asked for.
            m.from = Start::Position(position);
        }
        if let Some(opened) = stream.opened.take() {
            let _ = opened.send(Ok((stream_id, position)));
        }
    }

    fn events(&mut self, subscription: u64, events: impl Iterator<Item = Arc<Event>>) {
        let Some(stream) = self.by_subscription.get(&subscription).and_then(|id| self.all.get_mut(id)) else {
            return;
        };
        let Listener::Subscription { push, untaken, .. } = &stream.to else { return };
        // The order of settling is none of positions: all of it is asked for again.
        let by_position = !follows_settled(&stream.message);
        for event in events {
            if let ClientMessage::Subscribe(m) = &mut stream.message
                && by_position
            {
                m.from = Start::Position(event.position.next());
            }
            untaken.fetch_add(1, Ordering::Relaxed);
            let _ = push.send(StreamPush::Event(event));
        }
    }

    /// A claim that was revoked is asked for again: the handler was slow, not gone.
    fn revoked(&mut self, subscription: u64, reason: String) -> Vec<ClientMessage> {
        self.push(subscription, GroupPush::Revoked(reason));
        self.by_subscription.remove(&subscription);
        Vec::new()
    }

    fn listener(&self, subscription: u64) -> Option<&Listener> {
        self.by_subscription.get(&subscription).and_then(|id| self.all.get(id)).map(|stream| &stream.to)
    }

    fn push(&self, subscription: u64, push: GroupPush) {
        if let Some(Listener::Group(to)) = self.listener(subscription) {
            let _ = to.send(push);
        }
    }
}

fn follows_settled(message: &ClientMessage) -> bool {
    let ClientMessage::Subscribe(m) = message else { return false };
    m.filter.as_ref().is_some_and(|filter| filter.settled_by.is_some())
}
