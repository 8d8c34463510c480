//! Service groups over a store: the tokio shell around `daybook-bus`.
//!
//! # Promises
//! 1. A group exists, with its options and its place, before anybody is told
//!    that they joined it; it keeps its place without members and over restarts.
//! 2. An ack that is answered survives a crash.
//! 3. A key goes to another session only when the store has fenced the old claim.
//!
//! # After a failure
//! A checkpoint a little older than the last acks: those events come again.
//! One that cannot be read keeps the server from starting; nothing is touched.
//!
//! # Not here
//! Who gets which event, and when again (bus). Frames and subscriptions (ws).

mod claims;
mod info;
mod membership;
mod record;
mod saved;
mod storing;
mod task;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daybook_bus::{Checkpoint, Group, Options, Settings};
use daybook_model::wire::{self, Named, Start};
use daybook_model::{Code, Filter, Invalid, Position, Problem};
use daybook_store::{CheckpointError, EventStore, Fence};
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use crate::Config;
use crate::error::read_problem;
use claims::Claims;
use task::{Command, Order, Task};
use tokens::Issuer;

pub(crate) use daybook_bus::{KeyReport, ParkedReport, Settled};
pub(crate) use info::GroupInfo;
pub(crate) use membership::{Membership, Push};
pub(crate) use task::Settling;

/// All groups of a server; clones share them.
#[derive(Clone)]
pub(crate) struct Groups(Arc<Inner>);

struct Inner {
    store: Arc<dyn EventStore>,
    settings: Settings,
    /// Part of every token.
    run: u64,
    last_group: AtomicU64,
    /// Where groups run: they outlive the session that makes them, and its lane.
    runtime: tokio::runtime::Handle,
    open: RwLock<BTreeMap<Arc<str>, Handle>>,
    /// Held while a group is made: two first members must not make two groups.
    making: Mutex<()>,
    closing: AtomicBool,
}

#[derive(Clone)]
struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    claims: Arc<Claims>,
    issuer: Issuer,
}

/// The session that joins.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub instance: String,
    /// One process of the instance; without it nothing can be resumed.
    pub boot: Option<String>,
    pub session: Arc<str>,
}

/// Why the groups are not there. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OpenError {
    #[error("the checkpoint of group `{group}` cannot be read: {reason}")]
    Checkpoint { group: String, reason: String },
    #[error(
        "the checkpoint of group `{group}` knows of events up to position {end}, and the log ends at {head}: an older log stands beside a newer checkpoint, and the group would skip what comes there next. Restore log and `groups` together from one backup (`daybook restore`), or move the directory `groups` away: then the groups are made anew by their next members and begin where these say"
    )]
    Ahead { group: String, end: Position, head: Position },
    #[error(transparent)]
    Store(#[from] CheckpointError),
}

impl Groups {
    /// Brings back all groups that ever had a member.
    pub async fn open(store: Arc<dyn EventStore>, config: &Config) -> Result<Self, OpenError> {
        let defaults = Settings::default();
        let settings = Settings {
            page_bytes: defaults.page_bytes.max(config.limits.event_bytes),
            buffered_bytes: defaults.buffered_bytes.max(4 * config.limits.batch_bytes),
            ..defaults
        };
        let checkpoints = store.checkpoints().await?;
        let head = *store.head().borrow();
        let groups = Self(Arc::new(Inner {
            store,
            settings,
            run: tokens::new_run(),
            last_group: AtomicU64::new(0),
            runtime: tokio::runtime::Handle::current(),
            open: RwLock::default(),
            making: Mutex::default(),
            closing: AtomicBool::new(false),
        }));
        // All are read before the first task starts: a refusal leaves no trace.
        let mut found = Vec::with_capacity(checkpoints.len());
        for (group, bytes) in checkpoints {
            let checkpoint = match saved::decode(&bytes) {
                Ok(checkpoint) => checkpoint,
                Err(error) => return Err(OpenError::Checkpoint { group, reason: error.to_string() }),
            };
            let end = checkpoint.end();
            if end > head {
                return Err(OpenError::Ahead { group, end, head });
            }
            found.push((group, checkpoint));
        }
        for (group, checkpoint) in found {
            groups.start(group.into(), checkpoint);
        }
        Ok(groups)
    }

    /// Part of every token of this process.
    pub fn run(&self) -> u64 {
        self.0.run
    }

    /// Takes the session into the group; makes the group if there is none.
    pub async fn join(
        &self,
        who: Member,
        join: wire::Join,
        push: mpsc::Sender<Push>,
    ) -> Result<Membership, Problem> {
        check_name(&join.group)?;
        if join.credit.0 == 0 {
            return Err(
                Invalid::new("credit", "must be at least 1: a member without credit gets nothing").into()
            );
        }
        if join.window.is_some_and(|window| window.0 == 0) {
            return Err(Invalid::new("window", "must be at least 1").into());
        }
        if join.credit_bytes == Some(0) {
            return Err(Invalid::new("credit_bytes", "must be at least 1").into());
        }
        let handle = match self.handle(&join.group) {
            Some(handle) => handle,
            None => self.make(&join).await?,
        };
        let (reply, answer) = oneshot::channel();
        let join = Box::new(task::Join { who, join, push, reply });
        let _ = handle.commands.send(Command::Join(join));
        answer.await.unwrap_or_else(|_| Err(going_down()))
    }

    /// The fence of a live delivery, whoever holds it: for publishes that come
    /// beside the session.
    pub fn fence(&self, token: &str) -> Option<Fence> {
        let (issuer, _) = tokens::parse(token)?;
        let open = self.0.open.read().unwrap_or_else(PoisonError::into_inner);
        let handle = open.values().find(|handle| handle.issuer == issuer)?;
        handle.claims.fence(issuer.read(token)?)
    }

    pub async fn list(&self) -> Vec<GroupInfo> {
        let names: Vec<Arc<str>> = {
            let open = self.0.open.read().unwrap_or_else(PoisonError::into_inner);
            open.keys().cloned().collect()
        };
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            all.extend(self.info(&name).await);
        }
        all
    }

    /// `None`: there is no such group.
    pub async fn info(&self, name: &str) -> Option<GroupInfo> {
        let report = self.ask(name, Command::Report).await?;
        let head = *self.0.store.head().borrow();
        let lag_events = Position(head.0.saturating_sub(report.earliest.0));
        let lag_seconds = if lag_events.0 == 0 { 0 } else { self.age_seconds(report.earliest).await };
        Some(GroupInfo { name: name.to_owned(), lag_events, lag_seconds, report })
    }

    /// Keys that wait for an operator; `None`: there is no such group.
    pub async fn parked(&self, name: &str) -> Option<Vec<ParkedReport>> {
        self.ask(name, Command::Parked).await
    }

    /// Lets a parked key go on with the event it failed at; returns when that
    /// would survive a crash.
    pub async fn retry(&self, name: &str, subject: &str) -> Result<(), Problem> {
        self.operate(name, subject, Order::Retry).await
    }

    /// Lets a parked key go on without the event it failed at.
    pub async fn skip(&self, name: &str, subject: &str) -> Result<(), Problem> {
        self.operate(name, subject, Order::Skip).await
    }

    /// What the group has settled by now; `None`: there is no such group.
    pub async fn settled(&self, group: &str) -> Option<Settled> {
        self.ask(group, Command::Settled).await
    }

    /// What the group has settled by now, and what it settles from then on, in
    /// that order. The channel ends when the follower does not keep up, and when
    /// the group begins anew.
    pub async fn watch(&self, group: &str) -> Option<(Settled, mpsc::Receiver<Settling>)> {
        self.ask(group, Command::Watch).await
    }

    /// Why a key is where it is; `None`: there is no such group.
    pub async fn explain(&self, group: &str, subject: &str) -> Option<KeyReport> {
        let subject = subject.to_owned();
        self.ask(group, |reply| Command::Explain { subject, reply }).await
    }

    /// Begins the group anew at `to`, if it has no members.
    pub async fn reset(&self, group: &str, to: Position) -> Result<(), Problem> {
        match self.ask(group, |done| Command::Reset { to, done }).await {
            Some(outcome) => outcome,
            None => Err(Problem::new(Code::NotFound, format!("there is no group `{group}`"))),
        }
    }

    /// How many events of [`from`, `until`) match, reading them.
    pub async fn count(&self, filter: &Filter, from: Position, until: Position) -> Result<u64, Problem> {
        let (mut from, mut count) = (from, 0);
        while from < until {
            let query = storing::query(from, until, filter.clone(), 10_000, 8 << 20);
            let page = self.0.store.read(query).await.map_err(read_problem)?;
            count += page.events.len() as u64;
            let Some(next) = page.next else { break };
            from = next;
        }
        Ok(count)
    }

    /// Sends nothing more; what is out may still be settled.
    pub fn drain(&self) {
        let open = self.0.open.read().unwrap_or_else(PoisonError::into_inner);
        for handle in open.values() {
            // An error is a task that has ended: it sends nothing.
            let _ = handle.commands.send(Command::Drain);
        }
    }

    /// Sends nothing more and writes the last checkpoints.
    pub async fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
        let _making = self.0.making.lock().await;
        let handles = {
            let mut open = self.0.open.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *open)
        };
        let closing: FuturesUnordered<_> = handles
            .into_values()
            .map(|handle| {
                let (done, closed) = oneshot::channel();
                let _ = handle.commands.send(Command::Close(done));
                closed
            })
            .collect();
        // An error is a task that has ended before: nothing to wait for.
        futures_util::StreamExt::for_each(closing, |_| std::future::ready(())).await;
    }

    fn handle(&self, name: &str) -> Option<Handle> {
        self.0.open.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    async fn ask<T>(&self, name: &str, question: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let handle = self.handle(name)?;
        let (reply, answer) = oneshot::channel();
        handle.commands.send(question(reply)).ok()?;
        answer.await.ok()
    }

    async fn operate(&self, name: &str, subject: &str, order: Order) -> Result<(), Problem> {
        let subject = subject.to_owned();
        match self.ask(name, |done| Command::Operate { subject, order, done }).await {
            Some(outcome) => outcome,
            None => Err(Problem::new(Code::NotFound, format!("there is no group `{name}`"))),
        }
    }

    /// Makes the group that `join` describes, durably: its first member must
    /// not find it elsewhere after a crash.
    async fn make(&self, join: &wire::Join) -> Result<Handle, Problem> {
        let options = Options::of(join)?;
        let _making = self.0.making.lock().await;
        if let Some(handle) = self.handle(&join.group) {
            return Ok(handle);
        }
        if self.0.closing.load(Ordering::Acquire) {
            return Err(going_down());
        }
        let store = &self.0.store;
        let head = *store.head().borrow();
        let start = match join.start.unwrap_or(Start::START) {
            Start::Named(Named::Start) => Position::ZERO,
            Start::Named(Named::End) => head,
            Start::Position(position) if position > head => {
                let reason = format!("position {position} lies beyond the head {head}");
                return Err(Invalid::new("start", reason).into());
            }
            Start::Position(position) => position,
            Start::Time { time } => store.position_at(time).await.map_err(read_problem)?,
        };
        let checkpoint = Checkpoint::new(options, start);
        let saved = store.save_checkpoint(&join.group, saved::encode(&checkpoint)).await;
        saved.map_err(|error| Problem::new(Code::Unavailable, error.to_string()))?;
        Ok(self.start(join.group.as_str().into(), checkpoint))
    }

    fn start(&self, name: Arc<str>, checkpoint: Checkpoint) -> Handle {
        let store = self.0.store.clone();
        let mut head = store.head();
        let issuer = Issuer { run: self.0.run, group: self.0.last_group.fetch_add(1, Ordering::Relaxed) };
        let (commands, inbox) = mpsc::unbounded_channel();
        let claims = Arc::new(Claims::default());
        let group = Group::new(checkpoint, self.0.settings.clone(), *head.borrow_and_update());
        let task = Task {
            name: name.clone(),
            store,
            group,
            issuer,
            claims: claims.clone(),
            commands: commands.clone(),
            started: Instant::now(),
            sessions: HashMap::new(),
            last_member: 0,
            replies: HashMap::new(),
            last_reply: 0,
            under_way: FuturesUnordered::new(),
            waiting: Vec::new(),
            watchers: Vec::new(),
            closing: None,
        };
        self.0.runtime.spawn(task.run(inbox, head));
        let handle = Handle { commands, claims, issuer };
        self.0.open.write().unwrap_or_else(PoisonError::into_inner).insert(name, handle.clone());
        handle
    }

    /// How long ago the event at `position` was recorded.
    async fn age_seconds(&self, position: Position) -> u64 {
        let query = storing::query(position, position.next(), Filter::default(), 1, 1);
        let Ok(page) = self.0.store.read(query).await else { return 0 };
        let Some(event) = page.events.first() else { return 0 };
        let recorded = Duration::from_micros(u64::try_from(event.recordedtime.0).unwrap_or(0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        now.saturating_sub(recorded).as_secs()
    }
}

fn check_name(name: &str) -> Result<(), Invalid> {
    if name.is_empty() || name.len() > 128 {
        return Err(Invalid::new("group", "must have 1 to 128 bytes"));
    }
    if name.chars().any(char::is_control) {
        return Err(Invalid::new("group", "must not contain control characters"));
    }
    Ok(())
}

fn going_down() -> Problem {
    Problem::new(Code::Unavailable, "the server is going down").retry_after_ms(200)
}
