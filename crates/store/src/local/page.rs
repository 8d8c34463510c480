//! One page of a read: which positions to look at, and the events that match.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use daybook_log::Place;
use daybook_model::{Event, Position};

use super::Inner;
use super::index::{Keys, Range};
use super::query::{all_keys, decode, event, log_error, unreadable};
use crate::{Page, Query, ReadError};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Give up (`None`) if anything is needed that is not in memory.
    Memory,
    Disk,
}

/// Positions looked at for one page: a rare match must not hold a thread for ever.
const SCAN_BUDGET: usize = 10_000;
/// Positions of one reading from disk: bounds what is read in vain.
pub(super) const CHUNK: usize = 256;

/// `None`: not answerable from `source`.
pub(super) fn page(inner: &Inner, query: &Query, source: Source) -> Option<Result<Page, ReadError>> {
    let head = *inner.head.borrow();
    let until = query.until.unwrap_or(head).min(head);
    if query.from >= until || query.max_events == 0 {
        return Some(Ok(Page::default()));
    }
    let range = Range { from: query.from.0, until: until.0, reverse: query.reverse };
    let (positions, rest) = match source {
        Source::Memory => plan_in_memory(inner, query, &range)?,
        Source::Disk => match plan(inner, query, &range) {
            Ok(plan) => plan,
            Err(error) => return Some(Err(error)),
        },
    };
    // The tail holds the newest; older ones are read from disk, neighbours together.
    let first = inner.visible().tail.first().unwrap_or(u64::MAX);
    let (before, after) = if query.reverse {
        positions.split_at(positions.partition_point(|position| *position >= first))
    } else {
        positions.split_at(positions.partition_point(|position| *position < first))
    };
    let mut filling = Filling { query, page: Page { events: Vec::new(), next: rest }, bytes: 0 };
    for (i, some) in [before, after].into_iter().enumerate() {
        let recent = (i == 0) == query.reverse;
        let more = match (recent, source) {
            _ if some.is_empty() => Ok(true),
            (true, _) => from_tail(inner, some, source, &mut filling)?,
            (false, Source::Memory) => return None,
            (false, Source::Disk) => from_disk(inner, some, &mut filling),
        };
        match more {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(filling.page))
}

struct Filling<'a> {
    query: &'a Query,
    page: Page,
    bytes: usize,
}

impl Filling<'_> {
    /// Nobody has to read the events from `position` on.
    fn is_full_before(&mut self, position: u64) -> bool {
        let full = self.page.events.len() >= self.query.max_events;
        if full {
            self.page.next = Some(Position(if self.query.reverse { position + 1 } else { position }));
        }
        full
    }

    /// False once the page is full; the event then comes first next time.
    fn take(&mut self, event: Arc<Event>) -> bool {
        if !self.query.filter.matches(&event) {
            return true;
        }
        let weight = event.weight();
        let full = self.page.events.len() >= self.query.max_events
            || (self.bytes + weight > self.query.max_bytes && !self.page.events.is_empty());
        if full {
            let position = event.position;
            self.page.next = Some(if self.query.reverse { position.next() } else { position });
            return false;
        }
        self.bytes += weight;
        self.page.events.push(event);
        true
    }
}

/// True if all were taken, false if the page is full; `None` if one has left
/// memory and that is no `source`.
fn from_tail(
    inner: &Inner,
    positions: &[u64],
    source: Source,
    filling: &mut Filling<'_>,
) -> Option<Result<bool, ReadError>> {
    for some in positions.chunks(CHUNK) {
        let events: Vec<_> = {
            let visible = inner.visible();
            some.iter().map(|position| visible.tail.get(Position(*position))).collect()
        };
        for (position, event_) in some.iter().zip(events) {
            let event = match (event_, source) {
                (Some(recent), _) => recent.stored().0.clone(),
                (None, Source::Memory) => return None,
                (None, Source::Disk) => match event(inner, Position(*position)) {
                    Ok(event) => event,
                    Err(error) => return Some(Err(error)),
                },
            };
            if !filling.take(event) {
                return Some(Ok(false));
            }
        }
    }
    Some(Ok(true))
}

/// True if all were taken, false if the page is full.
fn from_disk(inner: &Inner, positions: &[u64], filling: &mut Filling<'_>) -> Result<bool, ReadError> {
    for chunk in positions.chunks(CHUNK) {
        if filling.is_full_before(chunk[0]) {
            return Ok(false);
        }
        // A reading backwards is read forwards and turned.
        let mut ascending = chunk.to_vec();
        if filling.query.reverse {
            ascending.reverse();
        }
        let places = places(inner, &ascending)?;
        let mut events = Vec::with_capacity(chunk.len());
        let mut failure = None;
        let read = inner.log.read_each(&places, |i, body| match decode(Position(ascending[i]), body) {
            Ok((event, _)) => {
                events.push(Arc::new(event));
                true
            }
            Err(error) => {
                failure = Some(error);
                false
            }
        });
        let failure = failure.or(read.err().map(log_error));
        if filling.query.reverse {
            if let Some(failure) = failure {
                return Err(failure);
            }
            events.reverse();
            if !events.into_iter().all(|event| filling.take(event)) {
                return Ok(false);
            }
        } else if !events.into_iter().all(|event| filling.take(event)) {
            // What was read before a failure was all that is wanted.
            return Ok(false);
        } else if let Some(failure) = failure {
            return Err(failure);
        }
    }
    Ok(true)
}

pub(super) fn places(inner: &Inner, positions: &[u64]) -> Result<Vec<Place>, ReadError> {
    // A block of places answers for the positions that follow.
    let mut block: (u64, Vec<Place>) = (0, Vec::new());
    let mut places = Vec::with_capacity(positions.len());
    for position in positions {
        let in_block = |block: &(u64, Vec<Place>)| {
            block.1.get(usize::try_from(position.checked_sub(block.0)?).ok()?).copied()
        };
        let mut place = in_block(&block);
        if place.is_none() {
            place = inner.visible().index.place(*position);
        }
        if place.is_none() {
            // Not in memory any more: looked at now, some run has it.
            let view = inner.visible().index.view();
            block = (*position, view.places(*position).map_err(unreadable)?);
            place = in_block(&block);
        }
        let missing = || ReadError::Unavailable(format!("there is no position {position}"));
        places.push(place.ok_or_else(missing)?);
    }
    Ok(places)
}

/// Positions to look at, in the order of the query, and where the rest begins.
type Plan = (Vec<u64>, Option<Position>);

fn plan_in_memory(inner: &Inner, query: &Query, range: &Range) -> Option<Plan> {
    // No more than a page: the rest is cheap to ask for again.
    let budget = (query.max_events + 1).min(SCAN_BUDGET);
    let visible = inner.visible();
    if range.from < visible.tail.first()? {
        return None;
    }
    if range.from < visible.index.memory_from() {
        return Some(scan(range, budget));
    }
    let expand = |keys: &Keys| {
        let mut found = BTreeMap::new();
        visible.index.keys(keys, &mut found);
        Ok(found.into_keys().take(keys.limit()).collect())
    };
    let Some(hashes) = visible.index.lists(&query.filter, expand).ok()? else {
        return Some(scan(range, budget));
    };
    let list = |hash: &u64| {
        let mut list = Vec::new();
        visible.index.positions(*hash, range, budget, &mut list);
        list
    };
    Some(cut(merge(hashes.iter().map(list).collect(), range.reverse, budget), range, budget))
}

fn plan(inner: &Inner, query: &Query, range: &Range) -> Result<Plan, ReadError> {
    let budget = SCAN_BUDGET;
    let expand = |keys: &Keys| {
        let found = all_keys(inner, keys).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(found.into_keys().take(keys.limit()).collect())
    };
    let view = inner.visible().index.view();
    let Some(hashes) = view.lists(&query.filter, expand).map_err(unreadable)? else {
        return Ok(scan(range, budget));
    };
    // What is in memory and what is not, at one moment: nothing moves between the two.
    let (near, view) = {
        let visible = inner.visible();
        let list = |hash: &u64| {
            let mut list = Vec::new();
            visible.index.positions(*hash, range, budget, &mut list);
            list
        };
        (hashes.iter().map(list).collect::<Vec<_>>(), visible.index.view())
    };
    let mut lists = Vec::with_capacity(hashes.len());
    for (hash, near) in hashes.iter().zip(near) {
        let mut list = Vec::new();
        if range.reverse {
            list.extend(near);
            let left = budget.saturating_sub(list.len());
            view.positions(*hash, range, left, &mut list).map_err(unreadable)?;
        } else {
            view.positions(*hash, range, budget, &mut list).map_err(unreadable)?;
            list.extend(near);
        }
        lists.push(list);
    }
    Ok(cut(merge(lists, range.reverse, budget), range, budget))
}

/// Every position, when no list is better.
fn scan(range: &Range, budget: usize) -> Plan {
    let positions = if range.reverse {
        (range.from..range.until).rev().take(budget).collect()
    } else {
        (range.from..range.until).take(budget).collect()
    };
    cut(positions, range, budget)
}

/// A full budget may have cut something off: its last one comes first next time.
fn cut(mut positions: Vec<u64>, range: &Range, budget: usize) -> Plan {
    if positions.len() < budget {
        return (positions, None);
    }
    let last = positions.pop();
    (positions, last.map(|last| Position(if range.reverse { last + 1 } else { last })))
}

/// The first `budget` distinct positions of all lists, each in the range's order.
fn merge(mut lists: Vec<Vec<u64>>, reverse: bool, budget: usize) -> Vec<u64> {
    if lists.len() == 1 {
        let mut only = lists.pop().unwrap_or_default();
        only.truncate(budget);
        return only;
    }
    let mut all: Vec<u64> = lists.concat();
    all.sort_unstable();
    all.dedup();
    if reverse {
        all.reverse();
    }
    all.truncate(budget);
    all
}
