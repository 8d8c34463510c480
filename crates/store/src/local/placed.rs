//! A batch that has its place: what became of each event, and what it is to be
//! found under.
//!
//! # Promises
//! Nothing of an event is copied until somebody reads it: records and the index
//! are made from the batch as it came.

use std::sync::Arc;

use daybook_model::{Position, Sequence, Timestamp};
use foldhash::{HashMap, HashMapExt};

use super::codec::{Defaulted, Stamped};
use super::index::{Filed, Hasher, Hashes, Kind, sessions};
use super::lookup::Known;
use crate::Batch;

pub(super) struct Placed {
    batch: Batch,
    first: Position,
    pub recordedtime: Timestamp,
    pub sessions: Vec<u64>,
    given: Vec<Given>,
}

/// What one event was given.
struct Given {
    sequence: Option<Sequence>,
    /// That of its cause, if it names none itself.
    correlation: Option<String>,
    hashes: Hashes,
}

impl Placed {
    /// `ids` are the hashes of the ids.
    pub fn new(
        batch: Batch,
        (first, recordedtime): (Position, Timestamp),
        hasher: Hasher,
        ids: &[u64],
        sequences: Vec<Option<Sequence>>,
        correlations: Vec<Option<String>>,
    ) -> Self {
        let own = hasher.hash(Kind::Correlation, &batch.fallback_correlation);
        let mut given: Vec<Given> = Vec::with_capacity(batch.events.len());
        let each = batch.events.iter().zip(ids).zip(sequences).zip(correlations);
        for (((new, id), sequence), correlation) in each {
            // Neighbours mostly share their type and key: hashed once.
            let before = given.last().map(|last| (batch.events.get(given.len() - 1), last.hashes));
            let named = new.correlationid.or(correlation.as_deref());
            let hashes = Hashes {
                id: *id,
                kind: match before {
                    Some((before, hashes)) if before.kind == new.kind => hashes.kind,
                    _ => hasher.hash(Kind::Type, new.kind),
                },
                correlation: named.map_or(own, |named| hasher.hash(Kind::Correlation, named)),
                subject: match before {
                    Some((before, hashes)) if before.subject == new.subject => hashes.subject,
                    _ => new.subject.map(|subject| hasher.hash(Kind::Subject, subject)),
                },
            };
            given.push(Given { sequence, correlation, hashes });
        }
        let sessions = sessions(hasher, &batch.session);
        Self { batch, first, recordedtime, sessions, given }
    }

    pub fn len(&self) -> usize {
        self.given.len()
    }

    pub fn stamped(&self, at: usize) -> Stamped<'_> {
        let (batch, new, given) = (&self.batch, self.batch.events.get(at), &self.given[at]);
        let correlation = new.correlationid.or(given.correlation.as_deref());
        let size = batch.events.len() as u32;
        Stamped {
            new,
            source: new.source.unwrap_or(&batch.default_source),
            correlation: correlation.unwrap_or(&batch.fallback_correlation),
            session: &batch.session,
            principal: batch.principal.as_deref(),
            sequence: given.sequence,
            recordedtime: self.recordedtime,
            position: Position(self.first.0 + at as u64),
            batch: (size > 1).then_some((self.first, size)),
        }
    }

    pub fn filed(&self) -> impl Iterator<Item = Filed<'_>> + Clone {
        self.batch.events.iter().zip(&self.given).map(|(new, given)| Filed {
            hashes: given.hashes,
            id: new.id,
            kind: new.kind,
            key: new.subject.zip(given.sequence),
        })
    }

    fn known(&self, at: usize) -> Known {
        let stamped = self.stamped(at);
        (Arc::new(stamped.event()), Defaulted::of(&stamped.new))
    }
}

/// Events by their id, until they are visible.
#[derive(Default)]
pub(super) struct Ids {
    by_hash: HashMap<u64, Held>,
    /// Those whose hash another has taken.
    others: Vec<Held>,
}

struct Held {
    placed: Arc<Placed>,
    at: u32,
}

impl Ids {
    pub fn with_capacity(events: usize) -> Self {
        Self { by_hash: HashMap::with_capacity(events), others: Vec::new() }
    }

    pub fn insert(&mut self, placed: &Arc<Placed>) {
        for (at, given) in placed.given.iter().enumerate() {
            let held = Held { placed: placed.clone(), at: at as u32 };
            self.others.extend(self.by_hash.insert(given.hashes.id, held));
        }
    }

    /// Whether an id of this hash may be here.
    pub fn may_hold(&self, hash: u64) -> bool {
        self.by_hash.contains_key(&hash)
    }

    pub fn get(&self, id: &str, hash: u64) -> Option<Known> {
        let first = self.by_hash.get(&hash)?;
        let held = std::iter::once(first).chain(&self.others).find(|held| held.id() == id)?;
        Some(held.placed.known(held.at as usize))
    }
}

impl Held {
    fn id(&self) -> &str {
        self.placed.batch.events.get(self.at as usize).id
    }
}
