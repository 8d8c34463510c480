//! Reading and following the log for one client.
//!
//! A subscription is a stream that the session's own task polls: no task, no
//! hop. It reads pages from its place, never ahead of the client's credit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use daybook_model::wire::{self, Edge, Named, ServerMessage, Start};
use daybook_model::{Code, Event, Filter, Position, Problem};
use daybook_store::{Answer, Query, ReadError, WrittenPage};
use futures_util::stream;
use tokio::sync::watch::error::RecvError;
use tokio::sync::{Notify, watch};

use super::jobs::Pushes;
use super::outgoing::Outgoing;
use super::settled;
use super::turns::{self, Turns};
use crate::error::read_problem;
use crate::state::Shared;

/// A page of `read` that names no limit.
const DEFAULT_LIMIT: u64 = 1_000;
/// Bytes of one page: a few frames, not the memory of the server.
const PAGE_BYTES: usize = 4 << 20;
/// Events of one `events` message: small enough that two subscriptions of one
/// connection take turns.
pub(super) const PUSH_EVENTS: usize = 256;
pub(super) const PUSH_BYTES: usize = 256 << 10;

#[derive(Default)]
pub(super) struct Subscriptions {
    last_id: u64,
    open: HashMap<u64, Arc<Flow>>,
}

/// What the client steers of a subscription while it runs.
#[derive(Default)]
pub(super) struct Flow {
    pub credit: AtomicU64,
    pub changed: Notify,
    pub ended: AtomicBool,
}

impl Subscriptions {
    /// Subscriptions and memberships share their numbers.
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub fn open(&mut self, shared: &Arc<Shared>, m: wire::Subscribe) -> Result<Pushes, Problem> {
        let filter = checked(m.filter)?;
        let subscription = self.next_id();
        let flow = Arc::new(Flow { credit: AtomicU64::new(m.credit.0), ..Flow::default() });
        self.open.insert(subscription, flow.clone());
        if let Some(group) = filter.settled_by.clone() {
            let ids = (m.id, subscription);
            return Ok(settled::follow(shared.clone(), flow, filter, group, ids, m.from));
        }
        let follower = Follower {
            shared: shared.clone(),
            head: shared.store.head(),
            turns: turns::here(),
            flow,
            filter,
            id: m.id,
            subscription,
            at: At::Start(m.from),
            ahead: None,
            caught_up: false,
        };
        Ok(Box::pin(stream::unfold(follower, Follower::next)))
    }

    pub fn add_credit(&self, subscription: u64, events: u64) -> bool {
        let Some(flow) = self.open.get(&subscription) else { return false };
        let _ = flow
            .credit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |has| Some(has.saturating_add(events)));
        flow.changed.notify_one();
        true
    }

    pub fn remove(&mut self, subscription: u64) -> bool {
        let Some(flow) = self.open.remove(&subscription) else { return false };
        flow.ended.store(true, Ordering::Relaxed);
        flow.changed.notify_one();
        true
    }
}

enum At {
    Start(Start),
    Position(Position),
    /// The store could not read: the client was told, the stream is over.
    Failed,
}

struct Follower {
    shared: Arc<Shared>,
    head: watch::Receiver<Position>,
    /// Of those on its lane, if it is on one.
    turns: Option<Arc<Turns>>,
    flow: Arc<Flow>,
    filter: Filter,
    id: u64,
    subscription: u64,
    at: At,
    /// The next page, read while the client is sent the last.
    ahead: Option<Ahead>,
    caught_up: bool,
}

/// A page under way, and the head it was asked below.
type Ahead = (Position, Answer<Result<WrittenPage, ReadError>>);

impl Follower {
    async fn next(mut self) -> Option<(Outgoing, Self)> {
        let mut position = match self.at {
            At::Failed => return None,
            At::Position(position) => position,
            At::Start(start) => {
                return match start_position(&self.shared, start).await {
                    Ok(position) => {
                        self.at = At::Position(position);
                        let answer =
                            wire::Subscribed { id: self.id, subscription: self.subscription, position };
                        Some((ServerMessage::from(answer).into(), self))
                    }
                    Err(problem) => self.fail(problem),
                };
            }
        };
        loop {
            if self.flow.ended.load(Ordering::Relaxed) {
                return None;
            }
            let head = *self.head.borrow_and_update();
            if position >= head {
                self.at = At::Position(position);
                if !self.caught_up {
                    self.caught_up = true;
                    let message = wire::CaughtUp { subscription: self.subscription, position };
                    return Some((ServerMessage::from(message).into(), self));
                }
                let flow = self.flow.clone();
                tokio::select! {
                    changed = changed(self.turns.as_deref(), &mut self.head) => if changed.is_err() { return None },
                    () = flow.changed.notified() => {}
                }
                continue;
            }
            let Some((below, page)) = self.ahead.take().or_else(|| self.ask(position, head)) else {
                let flow = self.flow.clone();
                flow.changed.notified().await;
                continue;
            };
            let page = match page.await {
                Ok(page) => page,
                Err(error) => return self.fail(read_problem(error)),
            };
            position = page.next.unwrap_or(below);
            self.flow.credit.fetch_sub(page.events as u64, Ordering::Relaxed);
            if position < head {
                self.ahead = self.ask(position, head);
            }
            if page.events == 0 {
                continue;
            }
            self.at = At::Position(position);
            let mut json = page.json;
            wire::end_events(&mut json);
            return Some((Outgoing::Text(json), self));
        }
    }

    /// Begins to read the next page; `None` while the client has no credit.
    fn ask(&self, from: Position, head: Position) -> Option<Ahead> {
        let credit = self.flow.credit.load(Ordering::Relaxed);
        let max_events = usize::try_from(credit).unwrap_or(usize::MAX).min(PUSH_EVENTS);
        let query = Query {
            from,
            until: Some(head),
            filter: self.filter.clone(),
            reverse: false,
            max_events,
            max_bytes: PUSH_BYTES,
        };
        let begun = || wire::begin_events(self.subscription);
        (max_events > 0).then(|| (head, self.shared.store.read_written(query, begun())))
    }

    fn fail(mut self, problem: Problem) -> Option<(Outgoing, Self)> {
        self.at = At::Failed;
        let id = Some(self.id);
        Some((ServerMessage::Error(Box::new(wire::Error { id, problem })).into(), self))
    }
}

async fn changed(turns: Option<&Turns>, head: &mut watch::Receiver<Position>) -> Result<(), RecvError> {
    match turns {
        Some(turns) => turns.changed(head).await,
        None => head.changed().await,
    }
}

pub(super) async fn read_page(shared: &Arc<Shared>, m: wire::Read) -> Result<ServerMessage, Problem> {
    let filter = checked(m.filter)?;
    let settled = match &filter.settled_by {
        None => None,
        Some(group) => match shared.groups.settled(group).await {
            Some(settled) => Some(settled),
            None => return Err(Problem::new(Code::NotFound, format!("there is no group `{group}`"))),
        },
    };
    let from = match m.from {
        None => Position::ZERO,
        Some(edge) => edge_position(shared, edge).await?,
    };
    let until = match m.until {
        None => None,
        Some(edge) => Some(edge_position(shared, edge).await?),
    };
    let limit = m.limit.map_or(DEFAULT_LIMIT, |limit| limit.0).min(shared.config.limits.page_events as u64);
    if limit == 0 {
        return Err(Problem::new(Code::Invalid, "a page of no events tells nothing").member("limit"));
    }
    let query =
        Query { from, until, filter, reverse: m.reverse, max_events: limit as usize, max_bytes: PAGE_BYTES };
    let page = shared.store.read(query).await.map_err(read_problem)?;
    let wanted = |event: &Arc<Event>| settled.as_ref().is_none_or(|settled| settled.contains(event));
    let events = page.events.into_iter().filter(wanted).map(wire::Shared).collect();
    Ok(wire::Page { id: m.id, events, next: page.next }.into())
}

fn checked(filter: Option<Filter>) -> Result<Filter, Problem> {
    let filter = filter.unwrap_or_default();
    filter.validate().map_err(|invalid| invalid.within("filter"))?;
    Ok(filter)
}

async fn edge_position(shared: &Shared, edge: Edge) -> Result<Position, Problem> {
    match edge {
        Edge::Position(position) => Ok(position),
        Edge::Time { time } => shared.store.position_at(time).await.map_err(read_problem),
    }
}

pub(super) async fn start_position(shared: &Shared, start: Start) -> Result<Position, Problem> {
    match start {
        Start::Named(Named::Start) => Ok(Position::ZERO),
        Start::Named(Named::End) => Ok(*shared.store.head().borrow()),
        Start::Position(position) => Ok(position),
        Start::Time { time } => edge_position(shared, Edge::Time { time }).await,
    }
}
