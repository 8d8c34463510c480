//! One connection: hello, then requests in the order they come.
//!
//! # After a failure
//! A lost connection loses its subscriptions; its group claims wait 5 s for the
//! same boot to come back; publishes already taken are stored or not as if it
//! were still there.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, close_code};
use daybook_model::wire::{self, ClientMessage, Malformed, ServerMessage};
use daybook_model::{Code, Invalid, Problem};
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::inflight::{Inflight, Permit};
use super::jobs::{JOBS, Job, Jobs};
use super::members::Members;
use super::outbox::Outbox;
use super::subscription::{self, Subscriptions};
use crate::error::append_problem;
use crate::groups::Member;
use crate::publish::{self, Publisher};
use crate::state::Shared;

/// Pings without an answer before the peer counts as gone.
const UNANSWERED_PINGS: u32 = 3;
/// For a client that did not read to take what is under way, and the reason.
const LAST_WORD: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: Arc<Shared>, socket: WebSocket) {
    let _alive = shared.alive.clone();
    let (sink, mut stream) = socket.split();
    let jobs = Jobs::default();
    let mut outbox = Outbox::new(sink, jobs.clone());
    shared.metrics.connection();
    let cut = {
        let reader = async {
            match hello(&shared, &mut stream, &jobs).await {
                Ok(session) => return session.serve(&mut stream).await,
                Err(Some((code, reason))) => {
                    let _ = jobs.push(Job::Close { code, reason });
                    // The outbox ends the session once the goodbye is sent.
                    std::future::pending::<()>().await;
                }
                Err(None) => {}
            }
            None
        };
        let (mut reader, mut sender) = (std::pin::pin!(reader), std::pin::pin!(outbox.run()));
        std::future::poll_fn(|context| {
            // Before the reader, which may use up what this task may do in one go,
            // and after it for what it has handed over, because that wakes nobody.
            if sender.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(cut) = reader.as_mut().poll(context) {
                return Poll::Ready(cut);
            }
            match jobs.is_empty() {
                true => Poll::Pending,
                false => sender.as_mut().poll(context).map(|()| None),
            }
        })
        .await
    };
    if let Some(reason) = cut {
        let parting = async {
            outbox.cut(close_code::POLICY, reason).await;
            // To hang up on what the client still sends would take the reason from it.
            while let Some(Ok(_)) = stream.next().await {}
        };
        let _ = tokio::time::timeout(LAST_WORD, parting).await;
    }
    shared.metrics.connection_closed();
}

/// Why there is no session: a goodbye to say, or nobody to say it to.
type NoSession = Option<(u16, String)>;

async fn hello(
    shared: &Arc<Shared>,
    stream: &mut SplitStream<WebSocket>,
    jobs: &Jobs,
) -> Result<Session, NoSession> {
    let refuse = |id: Option<u64>, problem: Problem| -> NoSession {
        let reason = problem.to_string();
        let _ = jobs.push(Job::Now(wire::Error { id, problem }.boxed()));
        Some((close_code::POLICY, short(&reason)))
    };
    let deadline = Instant::now() + shared.config.hello_timeout;
    let text = loop {
        match tokio::time::timeout_at(deadline, stream.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => break text,
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(Some(Ok(Message::Binary(_)))) => {
                return Err(refuse(None, Problem::new(Code::Invalid, "frames are text, not binary")));
            }
            Ok(Some(Err(error))) if is_too_large(&error) => return Err(Some(too_large(shared))),
            Ok(_) => return Err(None),
            Err(_) => return Err(refuse(None, Problem::new(Code::Invalid, "no `hello` came in time"))),
        }
    };
    let mut messages = Vec::new();
    wire::messages(&text, |message| messages.push(message));
    let mut messages = messages.into_iter();
    let hello = match messages.next() {
        Some(Ok(ClientMessage::Hello(hello))) => hello,
        Some(Ok(_)) => {
            return Err(refuse(None, Problem::new(Code::Invalid, "the first message must be `hello`")));
        }
        Some(Err(Malformed { id, invalid })) => return Err(refuse(id, invalid.into())),
        None => return Err(refuse(None, Problem::new(Code::Invalid, "the first message must be `hello`"))),
    };
    let id = hello.id;
    let mut session =
        Session::new(shared.clone(), hello, jobs.clone()).map_err(|e| refuse(Some(id), e.into()))?;
    session.welcome(id);
    // A client may send its first requests in the frame of its hello.
    for message in messages {
        session.take(message);
    }
    Ok(session)
}

struct Session {
    shared: Arc<Shared>,
    publisher: Publisher,
    jobs: Jobs,
    inflight: Arc<Inflight>,
    subscriptions: Subscriptions,
    members: Members,
    draining: bool,
    /// The outbox is full: the client does not read.
    overrun: bool,
}

impl Session {
    fn new(shared: Arc<Shared>, hello: wire::Hello, jobs: Jobs) -> Result<Self, Invalid> {
        check_name("service", &hello.service)?;
        let instance = hello.instance.unwrap_or_else(|| Uuid::now_v7().simple().to_string());
        check_name("instance", &instance)?;
        if let Some(boot) = &hello.boot {
            check_name("boot", boot)?;
        }
        let session: Arc<str> = format!("{}/{instance}/{}", hello.service, Uuid::now_v7()).into();
        let publisher = Publisher {
            session: session.clone(),
            principal: None,
            default_source: format!("/{}", hello.service).into(),
        };
        let member = Member { instance, boot: hello.boot, session };
        Ok(Self {
            inflight: Inflight::new(&shared.config.limits),
            subscriptions: Subscriptions::default(),
            members: Members::new(shared.clone(), member),
            shared,
            publisher,
            jobs,
            draining: false,
            overrun: false,
        })
    }

    fn welcome(&mut self, id: u64) {
        let welcome = wire::Welcome {
            id,
            session: self.publisher.session.to_string(),
            node: self.shared.node.clone(),
            head: *self.shared.store.head().borrow(),
            limits: self.shared.config.limits.clone(),
            heartbeat_ms: self.shared.config.heartbeat.as_millis() as u64,
        };
        self.send(ServerMessage::Welcome(Box::new(welcome)));
    }

    /// Reads until the client is gone or does not answer pings. Returns why it is
    /// to be cut off, if it is.
    async fn serve(mut self, stream: &mut SplitStream<WebSocket>) -> Option<String> {
        let mut heartbeat = interval(self.shared.config.heartbeat.max(Duration::from_millis(10)));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        let mut unanswered = 0;
        let mut shutdown = self.shared.shutdown.clone();
        // Made once: to register for it anew with every frame costs a lock each.
        let mut down = std::pin::pin!(going(&mut shutdown));
        loop {
            tokio::select! {
                biased;
                frame = stream.next() => match frame {
                    Some(Ok(message)) => {
                        // Any sign of life answers the pings.
                        unanswered = 0;
                        match message {
                            Message::Text(text) => {
                                let mut messages = Vec::with_capacity(1);
                                wire::messages(&text, |message| messages.push(message));
                                for message in messages {
                                    self.take(message);
                                }
                            }
                            Message::Binary(_) => self.refuse(None, Problem::new(Code::Invalid, "frames are text, not binary")),
                            Message::Close(_) => break,
                            Message::Ping(_) | Message::Pong(_) => {}
                        }
                    }
                    Some(Err(error)) if is_too_large(&error) => {
                        let (code, reason) = too_large(&self.shared);
                        self.refuse(None, Problem::new(Code::TooLarge, reason.as_str()));
                        self.close(code, reason).await;
                        return None;
                    }
                    Some(Err(_)) | None => break,
                },
                _ = heartbeat.tick() => {
                    if unanswered >= UNANSWERED_PINGS {
                        tracing::info!(session = %self.publisher.session, "no answer to {UNANSWERED_PINGS} pings");
                        break;
                    }
                    unanswered += 1;
                    self.job(Job::Ping);
                }
                () = &mut down, if !self.draining => {
                    self.draining = true;
                    self.send(wire::Drain { reconnect_ms: 200 }.into());
                    // Leaving in good order costs no attempt.
                    self.members.leave_all().await;
                    self.job(Job::Close { code: close_code::AWAY, reason: "the server is going down".into() });
                }
            }
            if self.overrun {
                tracing::warn!(session = %self.publisher.session, "slow consumer: {JOBS} answers unread");
                return Some(format!("slow consumer: {JOBS} answers wait, read them faster"));
            }
        }
        None
    }

    async fn close(self, code: u16, reason: String) {
        self.job_to(Job::Close { code, reason });
        std::future::pending::<()>().await;
    }

    fn take(&mut self, message: Result<ClientMessage, Malformed>) {
        let message = match message {
            Ok(message) => message,
            Err(Malformed { id, invalid }) => return self.refuse(id, invalid.into()),
        };
        match message {
            ClientMessage::Hello(m) => {
                self.refuse(Some(m.id), Problem::new(Code::Invalid, "`hello` was said already"))
            }
            ClientMessage::Publish(m) => self.publish(m),
            ClientMessage::Read(m) => self.read(m),
            ClientMessage::Subscribe(m) => self.subscribe(m),
            ClientMessage::Credit(m) => {
                if !self.subscriptions.add_credit(m.subscription, m.events.0) {
                    self.unknown_subscription(None, m.subscription);
                }
            }
            ClientMessage::Unsubscribe(m) => {
                if self.subscriptions.remove(m.subscription) {
                    self.send(wire::Done { id: m.id, stale: None }.into());
                } else {
                    self.unknown_subscription(Some(m.id), m.subscription);
                }
            }
            ClientMessage::Join(m) if self.draining => self.refuse(Some(m.id), going_down()),
            ClientMessage::Join(m) => {
                let id = m.id;
                let subscription = self.subscriptions.next_id();
                match self.members.join(subscription, *m) {
                    Ok(job) => self.job(job),
                    Err(problem) => self.refuse(Some(id), problem),
                }
            }
            ClientMessage::Leave(m) => match self.members.leave(m.id, m.subscription) {
                Some(answer) => self.job(Job::Later(answer)),
                None => self.unknown_subscription(Some(m.id), m.subscription),
            },
            ClientMessage::Ack(m) => {
                let (id, subscription) = (m.id, m.subscription);
                match self.members.ack(m, &self.inflight) {
                    Some(Some(answer)) => self.job(Job::Later(answer)),
                    Some(None) => {}
                    None => self.unknown_subscription(id, subscription),
                }
            }
            ClientMessage::Nack(m) => {
                let subscription = m.subscription;
                if !self.members.nack(m) {
                    self.unknown_subscription(None, subscription);
                }
            }
            ClientMessage::Progress(m) => {
                let subscription = m.subscription;
                if !self.members.progress(m) {
                    self.unknown_subscription(None, subscription);
                }
            }
        }
    }

    fn publish(&mut self, m: wire::Publish) {
        let id = m.id;
        match self.admit_publish(m) {
            Ok((answer, permit)) => self.job(Job::Later(Box::pin(async move {
                let message = match answer.await {
                    Ok(stored) => wire::Receipt {
                        id,
                        events: stored
                            .into_iter()
                            .map(|s| wire::Receipted {
                                id: s.id,
                                position: s.position,
                                sequence: s.sequence,
                                recordedtime: s.recordedtime,
                                duplicate: s.duplicate,
                            })
                            .collect(),
                    }
                    .into(),
                    Err(error) => wire::Error { id: Some(id), problem: append_problem(error) }.boxed(),
                };
                drop(permit);
                Some(message)
            }))),
            Err(problem) => {
                self.shared
                    .metrics
                    .publishes_refused_total
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.refuse(Some(id), problem);
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn admit_publish(
        &mut self,
        m: wire::Publish,
    ) -> Result<
        (daybook_store::Answer<Result<Vec<daybook_store::Stored>, daybook_store::AppendError>>, Permit),
        Problem,
    > {
        if self.draining {
            return Err(going_down());
        }
        let fence = m.delivery.as_deref().map(|token| self.members.fence(token));
        let (batch, weight) = publish::batch(m.events, &self.publisher, fence, &self.shared.config.limits)?;
        let permit = self.inflight.admit(batch.events.len(), weight, m.delivery.as_deref())?;
        Ok((self.shared.store.append(batch), permit))
    }

    fn read(&mut self, m: wire::Read) {
        let id = m.id;
        // A page in the making counts like a publish of its largest size would.
        let permit = match self.inflight.admit(1, 64 << 10, None) {
            Ok(permit) => permit,
            Err(problem) => return self.refuse(Some(id), problem),
        };
        let shared = self.shared.clone();
        self.job(Job::Later(Box::pin(async move {
            let answer = subscription::read_page(&shared, m).await;
            drop(permit);
            Some(answer.unwrap_or_else(|problem| wire::Error { id: Some(id), problem }.boxed()))
        })));
    }

    fn subscribe(&mut self, m: wire::Subscribe) {
        let id = m.id;
        match self.subscriptions.open(&self.shared, m) {
            Ok(stream) => self.job(Job::Stream(stream)),
            Err(problem) => self.refuse(Some(id), problem),
        }
    }

    fn unknown_subscription(&mut self, id: Option<u64>, subscription: u64) {
        let detail = format!("this connection has no subscription {subscription}");
        self.refuse(id, Problem::new(Code::NotFound, detail).member("subscription"));
    }

    fn refuse(&mut self, id: Option<u64>, problem: Problem) {
        self.send(wire::Error { id, problem }.boxed());
    }

    fn send(&mut self, message: ServerMessage) {
        self.job(Job::Now(message));
    }

    fn job(&mut self, job: Job) {
        self.overrun |= !self.job_to(job);
    }

    fn job_to(&self, job: Job) -> bool {
        self.jobs.push(job)
    }
}

/// Resolves when the server goes down; its lock is not held while we act on it.
async fn going(shutdown: &mut tokio::sync::watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|down| *down).await;
}

trait Boxed {
    fn boxed(self) -> ServerMessage;
}

impl Boxed for wire::Error {
    fn boxed(self) -> ServerMessage {
        ServerMessage::Error(Box::new(self))
    }
}

fn going_down() -> Problem {
    Problem::new(Code::Unavailable, "the server is going down").retry_after_ms(200)
}

/// Names become part of `sessionid`, whose parts a slash divides.
fn check_name(member: &str, name: &str) -> Result<(), Invalid> {
    if name.is_empty() || name.len() > 64 {
        return Err(Invalid::new(member, "must have 1 to 64 bytes"));
    }
    if name.chars().any(|c| c.is_control() || c == '/') {
        return Err(Invalid::new(member, "must not contain control characters or slashes"));
    }
    Ok(())
}

fn too_large(shared: &Shared) -> (u16, String) {
    (close_code::SIZE, format!("a frame has at most {} bytes", shared.config.limits.frame_bytes))
}

fn is_too_large(error: &axum::Error) -> bool {
    error.to_string().contains("too long") || error.to_string().contains("too big")
}

/// A close frame's reason has at most 123 bytes.
fn short(reason: &str) -> String {
    let mut end = reason.len().min(120);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}
