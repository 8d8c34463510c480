//! The task behind a client: one socket at a time, made again when it breaks.

mod socket;
mod streams;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daybook_model::Code;
use daybook_model::wire::{ClientMessage, Hello, Malformed, ServerMessage, Welcome};
use tokio::sync::{mpsc, oneshot};

use crate::ConnectError;
use crate::transport::Connector;
use socket::Socket;
use streams::Streams;
pub(crate) use streams::{GroupPush, Listener, OpenStream, StreamPush};

/// Commands that wait for the task: full means the caller waits.
const COMMANDS: usize = 4_096;
/// Messages of one frame.
const FRAME_MESSAGES: usize = 256;
/// For a connection up to its `welcome`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Before a stream that the bus would not open again yet is asked for once more,
/// and so a request that it would not take again yet.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// Who this client is, for every connection that it makes.
#[derive(Clone)]
pub(crate) struct Identity {
    pub url: String,
    /// Host and port.
    pub authority: String,
    pub connector: Connector,
    pub service: String,
    pub instance: String,
    pub boot: String,
    pub token: Option<String>,
}

/// The request died with the client.
#[derive(Debug)]
pub(crate) struct Lost;

/// A message that is answered once. Its `id` is given by the task.
pub(crate) struct Request {
    pub message: ClientMessage,
    pub reply: oneshot::Sender<Result<ServerMessage, Lost>>,
}

pub(crate) enum Command {
    Request(Request),
    Open(OpenStream),
    /// One-way, or answered to `reply`; dropped while there is no connection,
    /// because what it speaks of died with the old one.
    ToStream {
        stream: u64,
        message: ClientMessage,
        reply: Option<oneshot::Sender<Result<ServerMessage, Lost>>>,
    },
    CloseStream {
        stream: u64,
        reply: Option<oneshot::Sender<()>>,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

/// Connects, says hello, and leaves the rest to a task.
pub(crate) async fn start(
    identity: Identity,
) -> Result<(mpsc::Sender<Command>, Welcome, Session), ConnectError> {
    let (socket, welcome) = connect(&identity).await?;
    let session = Session::default();
    session.set(&welcome.session);
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let task = Task {
        identity,
        session: session.clone(),
        inbox,
        last_id: 1,
        waiting: HashMap::new(),
        refused: 0,
        streams: Streams::new(commands.downgrade()),
        outgoing: Vec::new(),
    };
    tokio::spawn(task.run(socket));
    Ok((commands, welcome, session))
}

/// The `sessionid` of the present connection.
#[derive(Clone, Default)]
pub(crate) struct Session(Arc<Mutex<Arc<str>>>);

impl Session {
    pub fn get(&self) -> Arc<str> {
        self.0.lock().expect("no code panics while it holds this lock").clone()
    }

    fn set(&self, session: &str) {
        *self.0.lock().expect("no code panics while it holds this lock") = session.into();
    }
}

/// A host that vanished answers nothing at all: waiting must end by itself.
async fn connect(identity: &Identity) -> Result<(Socket, Welcome), ConnectError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, say_hello(identity)).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::Unreachable {
            url: identity.url.clone(),
            reason: "it did not answer in time".into(),
        }),
    }
}

async fn say_hello(identity: &Identity) -> Result<(Socket, Welcome), ConnectError> {
    let unreachable = |reason: String| ConnectError::Unreachable { url: identity.url.clone(), reason };
    let mut socket = Socket::open(&identity.connector, &identity.authority).await.map_err(unreachable)?;
    let hello = Hello {
        id: 1,
        service: identity.service.clone(),
        instance: Some(identity.instance.clone()),
        boot: Some(identity.boot.clone()),
        token: identity.token.clone(),
    };
    socket.send(&[ClientMessage::from(hello)]).await.map_err(unreachable)?;
    let frame = socket.receive().await.map_err(unreachable)?;
    let mut first = None;
    socket::each(&frame, |message| {
        first.get_or_insert(message);
    });
    match first {
        Some(Ok(ServerMessage::Welcome(welcome))) => {
            socket.set_heartbeat(Duration::from_millis(welcome.heartbeat_ms));
            Ok((socket, *welcome))
        }
        Some(Ok(ServerMessage::Error(error))) => {
            Err(ConnectError::Refused { url: identity.url.clone(), problem: Box::new(error.problem) })
        }
        other => Err(unreachable(format!("it answered something else than `welcome`: {other:?}"))),
    }
}

struct Waiting {
    /// Kept to be sent again over the next connection.
    message: Arc<ClientMessage>,
    reply: oneshot::Sender<Result<ServerMessage, Lost>>,
    sent: bool,
    /// It went out over an earlier connection too: what became of it there is unknown.
    again: bool,
    /// The present connection would not take it again yet.
    refused: bool,
}

impl Waiting {
    /// "Not now" to a publish that was sent before does not tell whether it was
    /// stored the first time.
    fn tells_nothing(&self, answer: &ServerMessage) -> bool {
        let not_now = |code| matches!(code, Code::Unavailable | Code::Overloaded);
        self.again
            && matches!(*self.message, ClientMessage::Publish(_))
            && matches!(answer, ServerMessage::Error(error) if not_now(error.problem.code))
    }
}

struct Task {
    identity: Identity,
    session: Session,
    inbox: mpsc::Receiver<Command>,
    last_id: u64,
    waiting: HashMap<u64, Waiting>,
    /// How many of them are `refused`.
    refused: usize,
    streams: Streams,
    outgoing: Vec<Arc<ClientMessage>>,
}

enum End {
    /// The socket broke or the server asked us to go.
    Broken,
    /// Nobody needs the connection any more.
    Done(Option<oneshot::Sender<()>>),
}

impl Task {
    async fn run(mut self, socket: Socket) {
        let mut socket = Some(socket);
        loop {
            let mut connected = match socket.take() {
                Some(socket) => socket,
                None => match self.reconnect().await {
                    Ok(socket) => socket,
                    Err(done) => return drop(done),
                },
            };
            match self.serve(&mut connected).await {
                Ok(End::Done(done)) => {
                    let _ = tokio::time::timeout(Duration::from_secs(2), connected.close()).await;
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                    return;
                }
                Ok(End::Broken) => {}
                Err(reason) => {
                    tracing::info!(bus = self.identity.url, reason, "connection lost, reconnecting")
                }
            }
            self.streams.connection_lost();
        }
    }

    /// Tries until there is a connection or nobody wants one.
    async fn reconnect(&mut self) -> Result<Socket, Option<oneshot::Sender<()>>> {
        let mut backoff = BACKOFF_FIRST;
        loop {
            self.waiting.retain(|_, waiting| !waiting.reply.is_closed());
            match connect(&self.identity).await {
                Ok((socket, welcome)) => {
                    self.session.set(&welcome.session);
                    // In the order in which they were sent the first time.
                    let mut ids: Vec<u64> = self.waiting.keys().copied().collect();
                    ids.sort_unstable();
                    self.outgoing.clear();
                    self.refused = 0;
                    for waiting in self.waiting.values_mut() {
                        (waiting.again, waiting.refused) = (waiting.sent, false);
                        waiting.sent = true;
                    }
                    self.outgoing.extend(ids.iter().map(|id| self.waiting[id].message.clone()));
                    let reopened = self.streams.reopen(&mut self.last_id);
                    self.outgoing.extend(reopened.into_iter().map(Arc::new));
                    return Ok(socket);
                }
                Err(error) => tracing::debug!(%error, "cannot reconnect yet"),
            }
            // Half fixed, half random: clients of a server that fell must not all come at once.
            let jitter = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
            let pause = backoff / 2 + backoff * jitter / 512;
            backoff = (backoff * 2).min(BACKOFF_MAX);
            let deadline = tokio::time::Instant::now() + pause;
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline) => break,
                    command = self.inbox.recv() => match command {
                        None => return Err(None),
                        Some(Command::Close { done }) => return Err(Some(done)),
                        // What is taken now goes out with the rest after reconnecting.
                        Some(command) => { self.take(command, false); }
                    }
                }
            }
        }
    }

    async fn serve(&mut self, socket: &mut Socket) -> Result<End, String> {
        let mut heartbeat = tokio::time::interval(socket.heartbeat());
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reopen = tokio::time::interval(REOPEN_PAUSE);
        reopen.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if !self.outgoing.is_empty() {
                let outgoing = std::mem::take(&mut self.outgoing);
                for chunk in outgoing.chunks(FRAME_MESSAGES) {
                    socket.send(chunk).await?;
                }
                // Keep the allocation for the next round.
                self.outgoing = outgoing;
                self.outgoing.clear();
            }
            tokio::select! {
                frame = socket.receive() => {
                    let frame = frame?;
                    let mut drained = false;
                    let mut messages = Vec::with_capacity(1);
                    socket::each(&frame, |message| messages.push(message));
                    for message in messages {
                        drained |= self.receive(message);
                    }
                    // Members may still settle what they have; the bus ends the connection then.
                    if drained && self.waiting.is_empty() && !self.streams.has_groups() {
                        return Ok(End::Broken);
                    }
                }
                _ = heartbeat.tick() => socket.check()?,
                _ = reopen.tick(), if self.streams.has_refused() || self.refused > 0 => {
                    let again = self.streams.reopen_refused(&mut self.last_id);
                    self.outgoing.extend(again.into_iter().map(Arc::new));
                    self.send_refused();
                }
                command = self.inbox.recv() => {
                    let mut next = command;
                    loop {
                        match next {
                            None => return Ok(End::Done(None)),
                            Some(Command::Close { done }) => return Ok(End::Done(Some(done))),
                            Some(command) => self.take(command, true),
                        }
                        // What waits behind it shares the frame.
                        if self.outgoing.len() >= FRAME_MESSAGES {
                            break;
                        }
                        match self.inbox.try_recv() {
                            Ok(command) => next = Some(command),
                            Err(_) => break,
                        }
                    }
                }
            }
        }
    }

    /// What the bus would not take again, once more; in the order of the first time.
    fn send_refused(&mut self) {
        self.refused = 0;
        self.waiting.retain(|_, waiting| !waiting.reply.is_closed());
        let mut ids: Vec<u64> = Vec::new();
        for (id, waiting) in &mut self.waiting {
            if std::mem::take(&mut waiting.refused) {
                ids.push(*id);
            }
        }
        ids.sort_unstable();
        self.outgoing.extend(ids.iter().map(|id| self.waiting[id].message.clone()));
    }

    fn take(&mut self, command: Command, connected: bool) {
        match command {
            Command::Request(Request { mut message, reply }) => {
                self.last_id += 1;
                set_id(&mut message, self.last_id);
                let message = Arc::new(message);
                if connected {
                    self.outgoing.push(message.clone());
                }
                let waiting = Waiting { message, reply, sent: connected, again: false, refused: false };
                self.waiting.insert(self.last_id, waiting);
            }
            Command::Open(open) => {
                let message = self.streams.open(open, &mut self.last_id);
                if connected {
                    self.outgoing.push(message.into());
                }
            }
            Command::ToStream { stream, mut message, reply } => {
                let Some(subscription) = self.streams.subscription(stream).filter(|_| connected) else {
                    return;
                };
                set_subscription(&mut message, subscription);
                if let Some(reply) = reply {
                    self.last_id += 1;
                    set_id(&mut message, self.last_id);
                    self.streams.expect(self.last_id, reply);
                }
                // Acks that go out together are one message.
                if let (ClientMessage::Ack(next), Some(ClientMessage::Ack(last))) =
                    (&mut message, self.outgoing.last_mut().and_then(Arc::get_mut))
                    && next.id.is_none()
                    && last.id.is_none()
                    && next.subscription == last.subscription
                    && last.tokens.len() < FRAME_MESSAGES
                {
                    last.tokens.append(&mut next.tokens);
                    return;
                }
                self.outgoing.push(message.into());
            }
            Command::CloseStream { stream, reply } => {
                self.last_id += 1;
                if let Some(message) = self.streams.close(stream, self.last_id, reply).filter(|_| connected) {
                    self.outgoing.push(message.into());
                }
            }
            Command::Close { .. } => {}
        }
    }

    /// True if the server asks to go.
    fn receive(&mut self, message: Result<ServerMessage, Malformed>) -> bool {
        let message = match message {
            Ok(message) => message,
            Err(malformed) => {
                tracing::warn!(reason = %malformed.invalid, "the bus sent a message that this client does not know");
                return false;
            }
        };
        let id = match &message {
            ServerMessage::Receipt(m) => Some(m.id),
            ServerMessage::Page(m) => Some(m.id),
            ServerMessage::Error(m) => m.id,
            ServerMessage::Drain(_) => return true,
            _ => None,
        };
        if let Some(waiting) = id.and_then(|id| self.waiting.get_mut(&id))
            && waiting.tells_nothing(&message)
        {
            waiting.refused = true;
            self.refused += 1;
            return false;
        }
        match id.and_then(|id| self.waiting.remove(&id)) {
            Some(waiting) => {
                let _ = waiting.reply.send(Ok(message));
            }
            None => {
                let answers = self.streams.receive(message);
                self.outgoing.extend(answers.into_iter().map(Arc::new));
            }
        }
        false
    }
}

fn set_id(message: &mut ClientMessage, id: u64) {
    match message {
        ClientMessage::Publish(m) => m.id = id,
        ClientMessage::Read(m) => m.id = id,
        ClientMessage::Ack(m) => m.id = Some(id),
        ClientMessage::Subscribe(m) => m.id = id,
        ClientMessage::Join(m) => m.id = id,
        ClientMessage::Leave(m) => m.id = id,
        ClientMessage::Unsubscribe(m) => m.id = id,
        _ => {}
    }
}

fn set_subscription(message: &mut ClientMessage, subscription: u64) {
    match message {
        ClientMessage::Ack(m) => m.subscription = subscription,
        ClientMessage::Nack(m) => m.subscription = subscription,
        ClientMessage::Progress(m) => m.subscription = subscription,
        ClientMessage::Credit(m) => m.subscription = subscription,
        _ => {}
    }
}
