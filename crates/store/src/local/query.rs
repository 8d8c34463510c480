//! Answering reads: from memory at once, from disk on threads of their own, so
//! that a slow disk blocks nobody's socket.

use std::io;
use std::sync::{Arc, Mutex, mpsc};

use daybook_model::{Event, Position};
use tokio::sync::oneshot;

use super::{Inner, codec};
use crate::{Answer, Page, Query, ReadError};

const THREADS: usize = 2;
/// Reads waiting for a thread; beyond that they are refused.
const WAITING: usize = 4_096;
/// Positions looked at for one page: a rare match must not hold a thread for ever.
const SCAN_BUDGET: usize = 10_000;

type Job = Box<dyn FnOnce(&Inner) + Send>;

pub(super) struct Readers {
    inner: Arc<Inner>,
    jobs: mpsc::SyncSender<Job>,
}

impl Readers {
    pub fn start(inner: Arc<Inner>) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::sync_channel::<Job>(WAITING);
        let inbox = Arc::new(Mutex::new(inbox));
        for i in 0..THREADS {
            let (inner, inbox) = (inner.clone(), inbox.clone());
            std::thread::Builder::new().name(format!("reader-{i}")).spawn(move || {
                loop {
                    let job = inbox.lock().expect("no code panics while it holds this lock").recv();
                    match job {
                        Ok(job) => job(&inner),
                        // The store is gone.
                        Err(_) => return,
                    }
                }
            })?;
        }
        Ok(Self { inner, jobs })
    }

    pub fn read(&self, query: Query) -> Answer<Result<Page, ReadError>> {
        if let Some(page) = page(&self.inner, &query, Source::Memory) {
            return Box::pin(std::future::ready(page));
        }
        self.later(move |inner| page(inner, &query, Source::Disk).unwrap_or_else(|| Ok(Page::default())))
    }

    pub fn one(&self, position: Position) -> Answer<Result<Option<Arc<Event>>, ReadError>> {
        if let Some(event) = self.inner.visible().tail.get(position).cloned() {
            return Box::pin(std::future::ready(Ok(Some(event))));
        }
        self.later(move |inner| event(inner, position).map(Some))
    }

    fn later<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Inner) -> Result<T, ReadError> + Send + 'static,
    ) -> Answer<Result<T, ReadError>> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |inner| {
            let _ = reply.send(job(inner));
        });
        if self.jobs.try_send(job).is_err() {
            let busy = ReadError::Unavailable("too many reads are waiting for the disk".into());
            return Box::pin(std::future::ready(Err(busy)));
        }
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| Err(ReadError::Unavailable("the log is closed".into())))
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Give up (`None`) at the first event that is not in the tail.
    Memory,
    Disk,
}

pub(super) fn event(inner: &Inner, position: Position) -> Result<Arc<Event>, ReadError> {
    stored(inner, position).map(|(event, _)| Arc::new(event))
}

/// The event with what the server had filled in, from disk.
pub(super) fn stored(inner: &Inner, position: Position) -> Result<(Event, codec::Defaulted), ReadError> {
    let place = inner.visible().index.place(position);
    let place = place.ok_or_else(|| ReadError::Unavailable(format!("there is no position {position}")))?;
    let body = inner.log.read(place).map_err(|error| match error {
        daybook_log::Error::Damaged { .. } => ReadError::Damaged(error.to_string()),
        _ => ReadError::Unavailable(error.to_string()),
    })?;
    codec::decode(position, &body)
        .map_err(|error| ReadError::Damaged(format!("position {position}: {error}")))
}

fn page(inner: &Inner, query: &Query, source: Source) -> Option<Result<Page, ReadError>> {
    let head = *inner.head.borrow();
    let until = query.until.unwrap_or(head).min(head);
    if query.from >= until || query.max_events == 0 {
        return Some(Ok(Page::default()));
    }
    let Some((positions, rest)) = plan(inner, query, until, source) else { return Some(Ok(Page::default())) };
    let mut page = Page { events: Vec::new(), next: rest };
    let mut bytes = 0;
    for position in positions {
        let recent = inner.visible().tail.get(position).cloned();
        let event = match (recent, source) {
            (Some(event), _) => event,
            (None, Source::Memory) => return None,
            (None, Source::Disk) => match event(inner, position) {
                Ok(event) => event,
                Err(error) => return Some(Err(error)),
            },
        };
        if !query.filter.matches(&event) {
            continue;
        }
        let weight = event.weight();
        if page.events.len() >= query.max_events
            || (bytes + weight > query.max_bytes && !page.events.is_empty())
        {
            // This one comes first next time.
            page.next = Some(if query.reverse { position.next() } else { position });
            return Some(Ok(page));
        }
        bytes += weight;
        page.events.push(event);
    }
    Some(Ok(page))
}

/// Positions to look at, in the order of the query, and where the rest begins.
fn plan(
    inner: &Inner,
    query: &Query,
    until: Position,
    source: Source,
) -> Option<(Vec<Position>, Option<Position>)> {
    let visible = inner.visible();
    // From memory one looks at no more than a page: the rest is cheap to ask for again.
    let budget = match source {
        Source::Memory => (query.max_events + 1).min(SCAN_BUDGET),
        Source::Disk => SCAN_BUDGET,
    };
    let (from, until) = (query.from.0, until.0);
    let mut positions: Vec<u64> = match visible.index.candidates(&query.filter) {
        None if query.reverse => (from..until).rev().take(budget).collect(),
        None => (from..until).take(budget).collect(),
        Some(lists) => merge(&lists, from, until, query.reverse, budget),
    };
    let rest = if positions.len() == budget {
        let last = positions.pop()?;
        Some(Position(if query.reverse { last + 1 } else { last }))
    } else {
        None
    };
    Some((positions.into_iter().map(Position).collect(), rest))
}

/// The first `budget` distinct positions of [`from`, `until`) in all lists.
fn merge(lists: &[&[u64]], from: u64, until: u64, reverse: bool, budget: usize) -> Vec<u64> {
    let mut slices: Vec<&[u64]> = lists
        .iter()
        .map(|list| &list[list.partition_point(|p| *p < from)..list.partition_point(|p| *p < until)])
        .filter(|slice| !slice.is_empty())
        .collect();
    let mut merged = Vec::new();
    while merged.len() < budget {
        let best = if reverse {
            slices.iter().filter_map(|slice| slice.last()).max().copied()
        } else {
            slices.iter().filter_map(|slice| slice.first()).min().copied()
        };
        let Some(best) = best else { break };
        merged.push(best);
        for slice in &mut slices {
            let end = if reverse { slice.split_last() } else { slice.split_first() };
            if let Some((position, rest)) = end
                && *position == best
            {
                *slice = rest;
            }
        }
    }
    merged
}
