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

use daybook_model::wire::{self, ClientMessage, Malformed, ServerMessage};
use daybook_model::{Code, Invalid, Problem};
use daybook_store::Batch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::frame::{Bad, Frame, close};
use super::inbox::Inbox;
use super::inflight::{Inflight, Permit};
use super::jobs::{JOBS, Job, Jobs};
use super::members::Members;
use super::outbox::Outbox;
use super::receipts::Receipts;
use super::socket::Socket;
use super::subscription::{self, Subscriptions};
use crate::groups::Member;
use crate::publish::{self, Publisher};
use crate::state::Shared;

/// Pings without an answer before the peer counts as gone.
const UNANSWERED_PINGS: u32 = 3;
/// For a client that did not read to take what is under way, and the reason.
const LAST_WORD: Duration = Duration::from_secs(5);
const BINARY: &str = "frames are text, not binary";
/// How often a session that is to go looks whether all it was given is settled.
const SETTLED_YET: Duration = Duration::from_millis(10);

/// How a session ends.
enum End {
    /// Nobody is there, or the goodbye is said.
    Gone,
    /// The client said goodbye, and is told that it was heard.
    Left(Option<u16>),
    /// The client is cut off, whatever it waits for.
    Cut(u16, String),
}

pub(super) async fn run(shared: Arc<Shared>, socket: Socket) {
    let _alive = shared.alive.clone();
    // An error: the socket is gone.
    let Ok((from_client, to_client)) = socket.split() else { return };
    let (jobs, receipts) = (Jobs::default(), Receipts::default());
    let mut inbox = Inbox::new(from_client, shared.config.limits.frame_bytes);
    let mut outbox = Outbox::new(to_client, jobs.clone(), receipts.clone());
    shared.metrics.connection();
    let end = {
        let reader = async {
            match hello(&shared, &mut inbox, &jobs, &receipts).await {
                Ok(session) => session.serve(&mut inbox).await,
                Err(NoSession::Refused { code, reason }) => {
                    let _ = jobs.push(Job::Close { code, reason });
                    // The outbox ends the session once the goodbye is sent.
                    std::future::pending().await
                }
                Err(NoSession::Ended(end)) => end,
            }
        };
        let (mut reader, mut sender) = (std::pin::pin!(reader), std::pin::pin!(outbox.run()));
        std::future::poll_fn(|context| {
            // Before the reader, which may use up what this task may do in one go,
            // and after it for what it has handed over, because that wakes nobody.
            if sender.as_mut().poll(context).is_ready() {
                return Poll::Ready(End::Gone);
            }
            if let Poll::Ready(end) = reader.as_mut().poll(context) {
                return Poll::Ready(end);
            }
            match jobs.is_empty() && receipts.is_settled() {
                true => Poll::Pending,
                false => sender.as_mut().poll(context).map(|()| End::Gone),
            }
        })
        .await
    };
    let parting = async {
        match end {
            End::Gone => {}
            End::Left(code) => outbox.cut(code.unwrap_or(close::NORMAL), "").await,
            End::Cut(code, reason) => {
                outbox.cut(code, &reason).await;
                // To hang up on what the client still sends would take the reason from it.
                inbox.ignore().await;
            }
        }
    };
    let _ = tokio::time::timeout(LAST_WORD, parting).await;
    shared.metrics.connection_closed();
}

/// Why there is no session.
enum NoSession {
    /// A goodbye is to be said after what was answered.
    Refused {
        code: u16,
        reason: String,
    },
    Ended(End),
}

async fn hello(
    shared: &Arc<Shared>,
    inbox: &mut Inbox,
    jobs: &Jobs,
    receipts: &Receipts,
) -> Result<Session, NoSession> {
    let refuse = |id: Option<u64>, problem: Problem| {
        let reason = problem.to_string();
        let _ = jobs.push(Job::Now(wire::Error { id, problem }.boxed()));
        NoSession::Refused { code: close::POLICY, reason }
    };
    let deadline = Instant::now() + shared.config.hello_timeout;
    let text = loop {
        match inbox.next() {
            Ok(Some(Frame::Text(text))) => break text.to_owned(),
            Ok(Some(Frame::Ping(body))) => drop(jobs.push(Job::Pong(body.to_vec()))),
            Ok(Some(Frame::Pong)) => {}
            Ok(Some(Frame::Binary)) => {
                return Err(refuse(None, Problem::new(Code::Invalid, BINARY)));
            }
            Ok(Some(Frame::Close(code))) => return Err(NoSession::Ended(End::Left(code))),
            Err(Bad::TooLarge) => {
                return Err(NoSession::Refused { code: close::TOO_LARGE, reason: too_large(shared) });
            }
            Err(bad) => return Err(NoSession::Ended(bad.into())),
            Ok(None) => match tokio::time::timeout_at(deadline, inbox.more()).await {
                Ok(Ok(true)) => {}
                Ok(_) => return Err(NoSession::Ended(End::Gone)),
                Err(_) => return Err(refuse(None, Problem::new(Code::Invalid, "no `hello` came in time"))),
            },
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
    let session = Session::new(shared.clone(), hello, jobs.clone(), receipts.clone());
    let mut session = session.map_err(|e| refuse(Some(id), e.into()))?;
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
    receipts: Receipts,
    inflight: Arc<Inflight>,
    subscriptions: Subscriptions,
    members: Members,
    draining: bool,
    /// The outbox is full: the client does not read.
    overrun: bool,
}

impl Session {
    fn new(shared: Arc<Shared>, hello: wire::Hello, jobs: Jobs, receipts: Receipts) -> Result<Self, Invalid> {
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
            receipts,
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

    /// Reads until the client is gone, is to be cut off, or does not answer pings.
    async fn serve(mut self, inbox: &mut Inbox) -> End {
        let mut heartbeat = interval(self.shared.config.heartbeat.max(Duration::from_millis(10)));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        let mut unanswered = 0;
        let mut shutdown = self.shared.shutdown.clone();
        // Made once: to register for it anew with every frame costs a lock each.
        let mut down = std::pin::pin!(going(&mut shutdown));
        let mut settled_yet = interval(SETTLED_YET);
        settled_yet.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leave_by = None;
        loop {
            // The frame of the hello may have brought company.
            match self.take_all(inbox) {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(Bad::TooLarge) => {
                    let reason = too_large(&self.shared);
                    self.refuse(None, Problem::new(Code::TooLarge, reason.as_str()));
                    self.job(Job::Close { code: close::TOO_LARGE, reason });
                    // The outbox ends the session once the goodbye is sent.
                    return std::future::pending().await;
                }
                Err(bad) => return bad.into(),
            }
            if self.overrun {
                tracing::warn!(session = %self.publisher.session, "slow consumer: {JOBS} answers unread");
                let reason = format!("slow consumer: {JOBS} answers wait, read them faster");
                return End::Cut(close::POLICY, reason);
            }
            tokio::select! {
                biased;
                more = inbox.more() => match more {
                    // Any sign of life answers the pings.
                    Ok(true) => unanswered = 0,
                    Ok(false) | Err(_) => return End::Gone,
                },
                _ = heartbeat.tick() => {
                    if unanswered >= UNANSWERED_PINGS {
                        tracing::info!(session = %self.publisher.session, "no answer to {UNANSWERED_PINGS} pings");
                        return End::Gone;
                    }
                    unanswered += 1;
                    self.job(Job::Ping);
                }
                () = &mut down, if !self.draining => {
                    self.draining = true;
                    self.send(wire::Drain { reconnect_ms: 200 }.into());
                    // What handlers are at, they may settle: or it would be done again.
                    leave_by = Some(Instant::now() + self.shared.config.drain_timeout / 2);
                }
                now = settled_yet.tick(), if leave_by.is_some() => {
                    if leave_by.is_some_and(|at| at <= now) || self.members.are_idle() {
                        leave_by = None;
                        self.members.leave_all().await;
                        self.job(Job::Close { code: close::AWAY, reason: "the server is going down".into() });
                    }
                }
            }
        }
    }

    /// Everything that has come; tells if the session ends with it.
    fn take_all(&mut self, inbox: &mut Inbox) -> Result<Option<End>, Bad> {
        while let Some(frame) = inbox.next()? {
            match frame {
                Frame::Text(text) => wire::messages(text, |message| self.take(message)),
                Frame::Binary => self.refuse(None, Problem::new(Code::Invalid, BINARY)),
                Frame::Ping(body) => self.job(Job::Pong(body.to_vec())),
                Frame::Pong => {}
                Frame::Close(code) => return Ok(Some(End::Left(code))),
            }
        }
        Ok(None)
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
            Ok((batch, permit)) => self.shared.store.submit(batch, self.receipts.asked(id, permit)),
            Err(problem) => {
                self.shared
                    .metrics
                    .publishes_refused_total
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.refuse(Some(id), problem);
            }
        }
    }

    fn admit_publish(&mut self, m: wire::Publish) -> Result<(Batch, Permit), Problem> {
        // Only what belongs to a delivery that may still be settled.
        if self.draining && m.delivery.as_deref().and_then(|token| self.members.live(token)).is_none() {
            return Err(going_down());
        }
        let fence = m.delivery.as_deref().map(|token| self.members.fence(token));
        let (batch, weight) = publish::batch(m.events, &self.publisher, fence, &self.shared.config.limits)?;
        let permit = self.inflight.admit(batch.events.len(), weight, m.delivery.as_deref())?;
        Ok((batch, permit))
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

fn too_large(shared: &Shared) -> String {
    format!("a frame has at most {} bytes", shared.config.limits.frame_bytes)
}

impl From<Bad> for End {
    fn from(bad: Bad) -> Self {
        let (code, reason) = bad.close();
        Self::Cut(code, reason.into())
    }
}
