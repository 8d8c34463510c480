//! Following what a group settles (`settled_by`): what a service rebuilds from.
//!
//! # Promises
//! First what was settled when the subscription began, in position order; then
//! `caughtup`; then every event at the moment it is settled, in the order of
//! settling. Nothing is missed between the two, and nothing comes twice.
//!
//! # After a failure
//! A restart of the server may settle again what was settled just before it:
//! who follows recognises repeats by the last sequence of each key. A group that
//! is reset ends the stream with `unavailable`: what the follower holds is not
//! what the group has settled any more, so it must begin with nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use daybook_model::wire::{self, ServerMessage, Start};
use daybook_model::{Code, Event, Filter, Position, Problem};
use daybook_store::Query;
use futures_util::stream;
use tokio::sync::mpsc;

use super::jobs::Pushes;
use super::outgoing::Outgoing;
use super::subscription::{Flow, PUSH_BYTES, PUSH_EVENTS, start_position};
use crate::error::read_problem;
use crate::groups::{Settled, Settling};
use crate::planted::{Bug, has};
use crate::state::Shared;

pub(super) fn follow(
    shared: Arc<Shared>,
    flow: Arc<Flow>,
    filter: Filter,
    group: String,
    (id, subscription): (u64, u64),
    from: Start,
) -> Pushes {
    let follower = Follower { shared, flow, filter, group, id, subscription, at: At::Start(from) };
    Box::pin(stream::unfold(follower, Follower::next))
}

struct Follower {
    shared: Arc<Shared>,
    flow: Arc<Flow>,
    filter: Filter,
    group: String,
    id: u64,
    subscription: u64,
    at: At,
}

enum At {
    Start(Start),
    /// Reads what was settled at the beginning.
    Past {
        position: Position,
        from: Position,
        settled: Box<Settled>,
        live: mpsc::Receiver<Settling>,
    },
    Live {
        from: Position,
        live: mpsc::Receiver<Settling>,
    },
    /// The group began anew: nothing more comes but the word of it.
    Reset(Position),
    /// The client was told why: the stream is over.
    Failed,
}

impl Follower {
    async fn next(mut self) -> Option<(Outgoing, Self)> {
        loop {
            if self.flow.ended.load(Ordering::Relaxed) {
                return None;
            }
            match std::mem::replace(&mut self.at, At::Failed) {
                At::Failed => return None,
                At::Reset(to) => {
                    let detail = format!(
                        "group `{}` began anew at {to}: drop what was built from what it had settled, and subscribe again",
                        self.group
                    );
                    return self.fail(Problem::new(Code::Unavailable, detail).member("filter.settled_by"));
                }
                At::Start(start) => {
                    let position = match start_position(&self.shared, start).await {
                        Ok(position) => position,
                        Err(problem) => return self.fail(problem),
                    };
                    let Some((settled, live)) = self.shared.groups.watch(&self.group).await else {
                        let detail = format!("there is no group `{}`", self.group);
                        return self.fail(Problem::new(Code::NotFound, detail).member("filter.settled_by"));
                    };
                    self.at = At::Past { position, from: position, settled: Box::new(settled), live };
                    let subscribed =
                        wire::Subscribed { id: self.id, subscription: self.subscription, position };
                    return Some((ServerMessage::from(subscribed).into(), self));
                }
                At::Past { position, from, mut live, settled } if position >= settled.top() => {
                    while has(Bug::RebuildMissesLive) && live.try_recv().is_ok() {}
                    let position = settled.top();
                    self.at = At::Live { from, live };
                    let caught_up = wire::CaughtUp { subscription: self.subscription, position };
                    return Some((ServerMessage::from(caught_up).into(), self));
                }
                At::Past { position, from, settled, live } => {
                    let room = self.room().await?;
                    let query = Query { max_events: room, ..self.query(position, settled.top()) };
                    let page = match self.shared.store.read(query).await {
                        Ok(page) => page,
                        Err(error) => return self.fail(read_problem(error)),
                    };
                    let position = page.next.unwrap_or(settled.top());
                    let mut events = page.events;
                    events.retain(|event| settled.contains(event) || has(Bug::RebuildTellsUnsettled));
                    self.at = At::Past { position, from, settled, live };
                    if !events.is_empty() {
                        return Some(self.push(events));
                    }
                }
                At::Live { from, mut live } => {
                    let flow = self.flow.clone();
                    let first = tokio::select! {
                        first = live.recv() => first,
                        () = flow.changed.notified() => {
                            self.at = At::Live { from, live };
                            continue;
                        }
                    };
                    let Some(first) = first else {
                        let detail = "the follower did not keep up, or the server goes down: subscribe again";
                        return self.fail(Problem::new(Code::Overloaded, detail).retry_after_ms(200));
                    };
                    let first = match first {
                        Settling::Event(position) => position,
                        Settling::Reset(to) => {
                            self.at = At::Reset(to);
                            continue;
                        }
                    };
                    let room = self.room().await?;
                    let (mut positions, mut reset) = (vec![first], None);
                    while positions.len() < room
                        && reset.is_none()
                        && let Ok(next) = live.try_recv()
                    {
                        match next {
                            Settling::Event(position) => positions.push(position),
                            Settling::Reset(to) => reset = Some(to),
                        }
                    }
                    let mut events = Vec::with_capacity(positions.len());
                    for position in positions.into_iter().filter(|position| *position >= from) {
                        match self.shared.store.read(self.query(position, position.next())).await {
                            Ok(page) => events.extend(page.events),
                            Err(error) => return self.fail(read_problem(error)),
                        }
                    }
                    self.at = reset.map_or(At::Live { from, live }, At::Reset);
                    if !events.is_empty() {
                        return Some(self.push(events));
                    }
                }
            }
        }
    }

    fn query(&self, from: Position, until: Position) -> Query {
        Query {
            from,
            until: Some(until),
            filter: self.filter.clone(),
            reverse: false,
            max_events: PUSH_EVENTS,
            max_bytes: PUSH_BYTES,
        }
    }

    /// Waits until the client takes events, and tells how many; `None` once it
    /// has unsubscribed.
    async fn room(&self) -> Option<usize> {
        loop {
            if self.flow.ended.load(Ordering::Relaxed) {
                return None;
            }
            let credit = self.flow.credit.load(Ordering::Relaxed);
            if credit > 0 {
                return Some(usize::try_from(credit).unwrap_or(usize::MAX).min(PUSH_EVENTS));
            }
            self.flow.changed.notified().await;
        }
    }

    fn push(self, events: Vec<Arc<Event>>) -> (Outgoing, Self) {
        self.flow.credit.fetch_sub(events.len() as u64, Ordering::Relaxed);
        let events = events.into_iter().map(wire::Shared).collect();
        (ServerMessage::from(wire::Events { subscription: self.subscription, events }).into(), self)
    }

    fn fail(mut self, problem: Problem) -> Option<(Outgoing, Self)> {
        self.at = At::Failed;
        let id = Some(self.id);
        Some((ServerMessage::Error(Box::new(wire::Error { id, problem })).into(), self))
    }
}
