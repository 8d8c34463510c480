//! The task that owns one group: the only one that steps it.
//!
//! # Promises
//! 1. It never waits for a socket, and for the disk only beside its other work.
//! 2. Words of one session are heard in the order said.
//!
//! # After a failure
//! A failed read or checkpoint is tried again; meanwhile acks are held in
//! memory and their replies wait. Fences are asked for until they are up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daybook_bus::{
    Amendable, Effect, Group, GroupReport, Input, KeyReport, MemberId, Millis, Options, ParkedReport,
    ReplyId, Settled, Token,
};
use daybook_model::wire;
use daybook_model::{Code, Position, Problem};
use daybook_store::EventStore;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::claims::Claims;
use super::membership::{Membership, Push, Word};
use super::record::{self, Record};
use super::tokens::Issuer;
use super::{Member, saved, storing};
use crate::planted::{Bug, has};

#[derive(Debug)]
pub(super) enum Command {
    Join(Box<Join>),
    Word {
        member: MemberId,
        word: Word,
    },
    Report(oneshot::Sender<GroupReport>),
    Parked(oneshot::Sender<Vec<ParkedReport>>),
    Settled(oneshot::Sender<Settled>),
    /// What is settled now, and everything that is settled from now on.
    Watch(oneshot::Sender<(Settled, mpsc::Receiver<Settling>)>),
    Explain {
        subject: String,
        reply: oneshot::Sender<KeyReport>,
    },
    Reset {
        to: Position,
        done: oneshot::Sender<Result<(), Problem>>,
    },
    Operate {
        subject: String,
        order: Order,
        done: oneshot::Sender<Result<(), Problem>>,
    },
    Drain,
    Close(oneshot::Sender<()>),
}

/// What whoever follows a group is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Settling {
    Event(Position),
    /// The group began anew at this position, and the stream ends: what is from
    /// there on is not settled any more.
    Reset(Position),
}

#[derive(Debug)]
pub(super) struct Join {
    pub who: Member,
    pub join: wire::Join,
    pub push: mpsc::Sender<Push>,
    pub reply: oneshot::Sender<Result<Membership, Problem>>,
}

/// What an operator wants done about a parked key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Retry,
    Skip,
}

/// How long closing waits for the last checkpoint.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Settlings that a follower has not taken: beyond that it is told to begin anew.
const WATCHED_MAX: usize = 1 << 20;
/// Bytes a session holds if it names no limit of its own.
const CREDIT_BYTES: u64 = 16 << 20;

pub(super) struct Task {
    pub name: Arc<str>,
    pub store: Arc<dyn EventStore>,
    pub group: Group,
    pub issuer: Issuer,
    pub claims: Arc<Claims>,
    /// To hand out in memberships; the task ends by `Close`, not by the last sender.
    pub commands: mpsc::UnboundedSender<Command>,
    pub started: Instant,
    pub sessions: HashMap<MemberId, Session>,
    pub last_member: u64,
    pub replies: HashMap<ReplyId, Reply>,
    pub last_reply: u64,
    pub under_way: FuturesUnordered<BoxFuture<'static, Input>>,
    /// Joins that name other options while answers are on their way.
    pub waiting: Vec<Join>,
    /// Who follows what is settled.
    pub watchers: Vec<mpsc::Sender<Settling>>,
    pub closing: Option<oneshot::Sender<()>>,
}

pub(super) struct Session {
    push: mpsc::Sender<Push>,
    session: Arc<str>,
    queued: Arc<AtomicUsize>,
    /// Deliveries of one key it takes at once.
    window: usize,
}

/// Who waits until what was said is durable.
pub(super) enum Reply {
    Ack { reply: oneshot::Sender<Vec<String>>, unknown: Vec<String> },
    Order(oneshot::Sender<Result<(), Problem>>),
}

impl Task {
    pub async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Command>,
        mut head: watch::Receiver<Position>,
    ) {
        let mut close_by: Option<Instant> = None;
        loop {
            let wake = self.group.wake_at().map(|at| self.started + Duration::from_millis(at.0));
            let wake = [wake, close_by].into_iter().flatten().min();
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                Some(input) = self.under_way.next() => self.step(input),
                changed = head.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let head = *head.borrow_and_update();
                    self.step(Input::Head(head));
                }
                () = timer => self.step(Input::Tick),
            }
            for join in std::mem::take(&mut self.waiting) {
                self.join(join);
            }
            if self.closing.is_some() {
                let close_by = *close_by.get_or_insert_with(|| Instant::now() + CLOSE_TIMEOUT);
                let late = Instant::now() >= close_by;
                if late && !self.group.is_saved() {
                    tracing::warn!(group = %self.name, "closed without its last checkpoint: some events will come again");
                }
                if late || self.group.is_saved() {
                    if let Some(done) = self.closing.take() {
                        let _ = done.send(());
                    }
                    return;
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Join(join) => self.join(*join),
            Command::Word { member, word } => self.word(member, word),
            Command::Report(reply) => drop(reply.send(self.group.report())),
            Command::Parked(reply) => drop(reply.send(self.group.parked())),
            Command::Settled(reply) => drop(reply.send(self.group.settled())),
            Command::Watch(reply) => {
                let (watcher, settled) = mpsc::channel(WATCHED_MAX);
                self.group.watch_settled(true);
                self.watchers.push(watcher);
                let _ = reply.send((self.group.settled(), settled));
            }
            Command::Explain { subject, reply } => {
                drop(reply.send(self.group.explain(self.now(), &subject)));
            }
            Command::Reset { to, done } => self.reset(to, done),
            Command::Operate { subject, order, done } => self.operate(&subject, order, done),
            Command::Drain => self.step(Input::Drain),
            Command::Close(done) => {
                self.closing = Some(done);
                self.step(Input::Drain);
            }
        }
    }

    fn join(&mut self, join: Join) {
        match self.admit(&join) {
            Ok(true) => {}
            Ok(false) => return self.waiting.push(join),
            Err(problem) => return drop(join.reply.send(Err(problem))),
        }
        let Join { who, join, push, reply } = join;
        self.last_member += 1;
        let member = MemberId(self.last_member);
        let queued = Arc::new(AtomicUsize::new(0));
        // Half the channel for deliveries, half for `overdue` beside them.
        let room = (push.max_capacity() / 2).max(1);
        let credit = usize::try_from(join.credit.0).unwrap_or(usize::MAX).min(room);
        let credit_bytes = usize::try_from(join.credit_bytes.unwrap_or(CREDIT_BYTES)).unwrap_or(usize::MAX);
        let window = join.window.map_or(1, |window| usize::try_from(window.0).unwrap_or(usize::MAX));
        let membership = Membership {
            position: self.group.low(),
            member,
            issuer: self.issuer,
            claims: self.claims.clone(),
            commands: self.commands.clone(),
            queued: queued.clone(),
            left: false,
        };
        self.sessions.insert(member, Session { push, session: who.session, queued, window });
        // If nobody waits for the answer any more, the membership is dropped
        // and says so itself.
        let _ = reply.send(Ok(membership));
        let (instance, boot) = (who.instance, who.boot);
        self.step(Input::Join { member, instance, boot, credit, credit_bytes, window });
    }

    /// Whether the session may come in: now, not yet, or never.
    fn admit(&mut self, Join { who, join, .. }: &Join) -> Result<bool, Problem> {
        if self.closing.is_some() {
            return Err(super::going_down());
        }
        if self.sessions.values().any(|session| session.session == who.session) {
            let detail = format!("this session is a member of group `{}` already", self.name);
            return Err(Problem::new(Code::Invalid, detail).member("group"));
        }
        let options: Options = self.group.options().amended(join)?;
        match self.group.may_amend(join) {
            Amendable::No(invalid) => Err(invalid.into()),
            Amendable::NotYet => Ok(false),
            Amendable::Yes => {
                let now = self.now();
                self.group.amend(now, options);
                Ok(true)
            }
        }
    }

    fn word(&mut self, member: MemberId, word: Word) {
        if let Some(session) = self.sessions.get(&member)
            && !matches!(word, Word::Leave { .. } | Word::Lost)
        {
            session.queued.fetch_sub(1, Ordering::Relaxed);
        }
        match word {
            Word::Ack { tokens, reply } => self.ack(member, tokens, reply),
            Word::Nack { token, action, delay_ms, reason } => {
                let Some(token) = self.issuer.read(&token) else { return };
                let jitter = uuid::Uuid::new_v4().as_u64_pair().1;
                self.step(Input::Nack { member, token, action, delay_ms, reason, jitter });
                self.close_claim(member, token);
            }
            Word::Progress { token } => {
                if let Some(token) = self.issuer.read(&token) {
                    self.step(Input::Progress { member, token });
                }
            }
            Word::Leave { done } => {
                self.sessions.remove(&member);
                self.step(Input::Leave(member));
                let _ = done.send(());
            }
            Word::Lost => {
                self.dismiss(member, "the session is lost");
                self.step(Input::Lost(member));
            }
        }
    }

    fn ack(&mut self, member: MemberId, texts: Vec<String>, reply: Option<oneshot::Sender<Vec<String>>>) {
        let (mut tokens, mut unknown) = (Vec::with_capacity(texts.len()), Vec::new());
        for text in texts {
            match self.issuer.read(&text) {
                Some(token) => tokens.push(token),
                None => unknown.push(text),
            }
        }
        let reply = reply.map(|reply| self.await_durable(Reply::Ack { reply, unknown }));
        self.step(Input::Ack { member, tokens: tokens.clone(), reply });
        for token in tokens {
            self.close_claim(member, token);
        }
    }

    /// What this session has settled or given back. The fence itself stays down:
    /// what the session began to publish under the claim, it was entitled to.
    /// An ack that waits for an earlier event of its key leaves the claim open.
    fn close_claim(&self, member: MemberId, token: Token) {
        if token.member == member && !self.group.is_in_flight(token) {
            self.claims.close(token);
        }
    }

    fn operate(&mut self, subject: &str, order: Order, done: oneshot::Sender<Result<(), Problem>>) {
        let Some(key) = self.group.find_parked(subject) else {
            let detail = format!("nothing of `{subject}` is parked in group `{}`", self.name);
            return drop(done.send(Err(Problem::new(Code::NotFound, detail).subject(subject))));
        };
        if let Some(position) = self.group.explain(self.now(), subject).next {
            let record = Record {
                group: &self.name,
                key: key.name(),
                position,
                attempts: None,
                reason: None,
                by: "operator",
            };
            let kind = record::kind_of_order(order);
            self.under_way.push(record::write(self.store.clone(), kind, &record, None));
        }
        self.step(match order {
            Order::Retry => Input::Retry(key),
            Order::Skip => Input::Skip(key),
        });
        let reply = self.await_durable(Reply::Order(done));
        self.step(Input::Sync(reply));
    }

    fn reset(&mut self, to: Position, done: oneshot::Sender<Result<(), Problem>>) {
        if let Err(reason) = self.group.reset(self.now(), to) {
            let detail = format!("group `{}` cannot be reset: {reason}", self.name);
            return drop(done.send(Err(Problem::new(Code::Unavailable, detail))));
        }
        for watcher in self.watchers.drain(..) {
            // Who is gone or did not keep up begins anew anyway.
            let _ = watcher.try_send(Settling::Reset(to));
        }
        let reply = self.await_durable(Reply::Order(done));
        self.step(Input::Sync(reply));
    }

    fn await_durable(&mut self, reply: Reply) -> ReplyId {
        self.last_reply += 1;
        let id = ReplyId(self.last_reply);
        self.replies.insert(id, reply);
        id
    }

    fn now(&self) -> Millis {
        if has(Bug::WallClockDeadlines) {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            return Millis(since.as_millis() as u64);
        }
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Steps the group and does what it wants, until it wants nothing more.
    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        let mut effects = Vec::new();
        while let Some(input) = inputs.pop() {
            self.group.step(self.now(), input, &mut effects);
            let mut deliveries: HashMap<MemberId, Vec<wire::Delivery>> = HashMap::new();
            for effect in effects.drain(..) {
                if let Effect::Deliver { token, attempt, event } = effect {
                    let windowed = self.sessions.get(&token.member).is_some_and(|session| session.window > 1);
                    self.claims.open(token, windowed.then(|| self.group.options().key_of(&event)));
                    let token_text = self.issuer.write(token);
                    let delivery = wire::Delivery { token: token_text, attempt, event: wire::Shared(event) };
                    deliveries.entry(token.member).or_default().push(delivery);
                } else if let Err(lost) = self.perform(effect) {
                    inputs.push(Input::Lost(lost));
                }
            }
            for position in self.group.take_settled() {
                // A follower that does not keep up finds its stream ended.
                self.watchers.retain(|watcher| watcher.try_send(Settling::Event(position)).is_ok());
            }
            if self.watchers.is_empty() {
                self.group.watch_settled(false);
            }
            for (member, deliveries) in deliveries {
                if !self.push(member, Push::Deliver(deliveries)) {
                    inputs.push(Input::Lost(member));
                }
            }
        }
    }

    /// Fails with the session that could not be told.
    fn perform(&mut self, effect: Effect) -> Result<(), MemberId> {
        match effect {
            Effect::Deliver { .. } => {}
            Effect::Overdue(token) => {
                if !self.push(token.member, Push::Overdue(self.issuer.write(token))) {
                    return Err(token.member);
                }
            }
            Effect::Revoke { member, reason } => self.dismiss(member, &reason),
            Effect::Fence { id, tokens } => {
                let fences = tokens.iter().filter_map(|token| self.claims.close(*token)).collect();
                self.under_way.push(storing::fence(self.store.clone(), self.name.clone(), id, fences));
            }
            Effect::Read { from, until, max_events, max_bytes } => {
                let filter = self.group.options().filter.clone();
                let query = storing::query(from, until, filter, max_events, max_bytes);
                self.under_way.push(storing::page(&*self.store, self.name.clone(), query, false));
            }
            Effect::ReadKey { key, from, until, max_events, max_bytes } => {
                let filter = key.filter(self.group.options().key);
                let query = storing::query(from, until, filter, max_events, max_bytes);
                self.under_way.push(storing::page(&*self.store, self.name.clone(), query, true));
            }
            Effect::Save { number, checkpoint } => {
                let bytes = saved::encode(&checkpoint);
                self.under_way.push(storing::save(&*self.store, self.name.clone(), number, bytes));
            }
            Effect::GaveUp { key, event, how, attempts, reason } => {
                let record = Record {
                    group: &self.name,
                    key: key.name(),
                    position: event.position,
                    attempts: Some(attempts),
                    reason: Some(&reason),
                    by: "group",
                };
                let kind = record::kind_of(how);
                self.under_way.push(record::write(self.store.clone(), kind, &record, Some(&event)));
            }
            Effect::Reply { reply, stale } => match self.replies.remove(&reply) {
                Some(Reply::Ack { reply, mut unknown }) => {
                    unknown.extend(stale.into_iter().map(|token| self.issuer.write(token)));
                    let _ = reply.send(unknown);
                }
                Some(Reply::Order(done)) => drop(done.send(Ok(()))),
                None => {}
            },
        }
        Ok(())
    }

    fn push(&mut self, member: MemberId, push: Push) -> bool {
        let Some(session) = self.sessions.get(&member) else { return false };
        if session.push.try_send(push).is_ok() {
            return true;
        }
        self.sessions.remove(&member);
        false
    }

    fn dismiss(&mut self, member: MemberId, reason: &str) {
        if let Some(session) = self.sessions.remove(&member) {
            // It may be gone already: then nobody needs to know.
            let _ = session.push.try_send(Push::Revoked(reason.to_owned()));
        }
    }
}

/// Waits before something of the store is asked for again.
pub(super) async fn pause() {
    sleep(Duration::from_millis(200)).await;
}
