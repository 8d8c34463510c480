//! A page on its way out: from the record to JSON without an event between, for
//! those who follow the log from far behind.
//!
//! # Promises
//! The bytes are those that the events would have written; a test compares them.
//!
//! # Not here
//! Filters, reading backwards, what memory holds: `page.rs`.

use daybook_model::{Filter, Position};

use super::page::{self, CHUNK, Source, places};
use super::query::{log_error, no_event};
use super::{Inner, codec};
use crate::{Page, Query, ReadError, WrittenPage};

/// Of an event as JSON, as a rule: a page need not grow.
const EVENT_BYTES: usize = 1_024;
/// Taken before there is anything to put there.
const RESERVED_BYTES_MAX: usize = 256 << 10;

/// Appends to `json`.
pub(super) fn page(inner: &Inner, query: &Query, mut json: Vec<u8>) -> Result<WrittenPage, ReadError> {
    let head = *inner.head.borrow();
    let until = query.until.unwrap_or(head).min(head);
    // What memory has begins here: that is for the next page.
    let near = inner.visible().tail.first().map_or(until, |first| until.min(Position(first)));
    let plain = !query.reverse && query.filter == Filter::default() && query.max_events > 0;
    if !plain || query.from >= near {
        let page = page::page(inner, query, Source::Disk).unwrap_or_else(|| Ok(Page::default()));
        return Ok(page?.write(json));
    }
    let events = (near.0 - query.from.0).min(query.max_events as u64);
    json.reserve(query.max_bytes.min(RESERVED_BYTES_MAX).min(EVENT_BYTES.saturating_mul(events as usize)));
    let mut writing = Writing { query, start: json.len(), json, events: 0, full: None };
    let mut from = query.from.0;
    while writing.full.is_none() && from < near.0 {
        let wanted = CHUNK.min(query.max_events - writing.events);
        if wanted == 0 {
            writing.full = Some(Position(from));
            break;
        }
        let to = near.0.min(from + wanted as u64);
        writing.chunk(inner, from, to)?;
        from = to;
    }
    let next = writing.full.or((near < until).then_some(near));
    Ok(WrittenPage { json: writing.json, events: writing.events, next })
}

struct Writing<'a> {
    query: &'a Query,
    json: Vec<u8>,
    /// Where its first event begins.
    start: usize,
    events: usize,
    /// The page is full: what comes first next time.
    full: Option<Position>,
}

impl Writing<'_> {
    fn chunk(&mut self, inner: &Inner, from: u64, to: u64) -> Result<(), ReadError> {
        let positions: Vec<u64> = (from..to).collect();
        let places = places(inner, &positions)?;
        let mut failure = None;
        let read = inner.log.read_each(&places, |i, body| {
            let position = Position(positions[i]);
            match self.take(position, body) {
                Ok(more) => more,
                Err(error) => {
                    failure = Some(no_event(position, error));
                    false
                }
            }
        });
        failure.map_or(Ok(()), Err).and(read.map_err(log_error))
    }

    /// False once the page is full.
    fn take(&mut self, position: Position, body: &[u8]) -> Result<bool, codec::NoEvent> {
        let before = self.json.len();
        if self.events > 0 {
            self.json.push(b',');
        }
        codec::with(position, body, |event, _| event.write_json(&mut self.json))?;
        if self.events > 0 && self.json.len() - self.start > self.query.max_bytes {
            self.json.truncate(before);
            self.full = Some(position);
            return Ok(false);
        }
        self.events += 1;
        Ok(true)
    }
}
