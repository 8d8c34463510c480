//! A batch that has its place: what became of each event, and what it is to be
//! found under.
//!
//! # Promises
//! Nothing of an event is copied until somebody reads it: records and the index
//! are made from the batch as it came.

use std::sync::Arc;

use daybook_model::{NewEventRef, NewEvents, Position, Sequence, Timestamp};
use foldhash::{HashMap, HashMapExt};

use super::codec::{Defaulted, Names, Stamped};
use super::heads::Head;
use super::index::{Alike, Filed, Hasher, Id, Kind, alikes};
use super::lookup::Known;
use crate::Batch;

pub(super) struct Placed {
    batch: Batch,
    first: Position,
    pub recordedtime: Timestamp,
    given: Vec<Given>,
    alikes: Vec<Alike>,
    /// What the records of a batch share; of one event nothing.
    names: Option<Names>,
}

/// What one event is given on its way to its place.
pub(super) struct Given {
    pub id: Id,
    pub sequence: Option<Sequence>,
    /// That of its cause, if it names none itself.
    pub correlation: Option<String>,
}

impl Given {
    /// Of each event, nothing but its id being known yet.
    pub fn nothing(events: &NewEvents, hasher: Hasher) -> Vec<Self> {
        let of = |at| Self { id: Id::of(hasher, events.get(at).id), sequence: None, correlation: None };
        (0..events.len()).map(of).collect()
    }
}

impl Placed {
    /// The first events of the batch, as many as are `given` something.
    pub fn new(
        batch: Batch,
        (first, recordedtime): (Position, Timestamp),
        hasher: Hasher,
        given: Vec<Given>,
    ) -> Self {
        let new = |at: u32| batch.events.get(at as usize);
        let alikes = alikes(
            hasher,
            &batch.session,
            given.len() as u32,
            |at| new(at).kind,
            |at| correlation(&batch, &given[at as usize], &new(at)),
            |at| new(at).subject,
        );
        let names = (given.len() > 1).then(|| Names::new(&batch.session, &batch.fallback_correlation));
        Self { batch, first, recordedtime, given, alikes, names }
    }

    pub fn len(&self) -> usize {
        self.given.len()
    }

    #[inline]
    pub fn stamped(&self, at: usize) -> Stamped<'_> {
        let (batch, new, given) = (&self.batch, self.batch.events.get(at), &self.given[at]);
        let size = batch.events.len() as u32;
        let falls_back = new.correlationid.is_none() && given.correlation.is_none();
        Stamped {
            new,
            source: new.source.unwrap_or(&batch.default_source),
            correlation: correlation(batch, given, &new),
            session: &batch.session,
            names: self.names.as_ref().filter(|_| falls_back),
            principal: batch.principal.as_deref(),
            sequence: given.sequence,
            recordedtime: self.recordedtime,
            position: Position(self.first.0 + at as u64),
            batch: (size > 1).then_some((self.first, size)),
        }
    }

    /// How far each key has come with this.
    pub fn heads(&self) -> impl Iterator<Item = (&str, Head)> {
        let keys = self.alikes.iter().filter(|alike| Kind::Subject.is_of(alike.hash));
        keys.filter_map(|alike| {
            let at = alike.events.end - 1;
            let (subject, Sequence(sequence)) = self.key(at)?;
            Some((subject, Head { next: sequence + 1, last: Position(self.first.0 + u64::from(at)) }))
        })
    }

    fn known(&self, at: usize) -> Known {
        let stamped = self.stamped(at);
        (Arc::new(stamped.event()), Defaulted::of(&stamped.new))
    }
}

#[inline(always)]
fn correlation<'a>(batch: &'a Batch, given: &'a Given, new: &NewEventRef<'a>) -> &'a str {
    new.correlationid.or(given.correlation.as_deref()).unwrap_or(&batch.fallback_correlation)
}

impl Filed for Placed {
    fn ids(&self) -> impl Iterator<Item = Id> {
        self.given.iter().map(|given| given.id)
    }

    fn alikes(&self) -> &[Alike] {
        &self.alikes
    }

    fn kind(&self, at: u32) -> &str {
        self.batch.events.get(at as usize).kind
    }

    fn key(&self, at: u32) -> Option<(&str, Sequence)> {
        self.batch.events.get(at as usize).subject.zip(self.given[at as usize].sequence)
    }
}

/// Events by their id, until they are visible.
#[derive(Default)]
pub(super) struct Ids {
    batches: Vec<Arc<Placed>>,
    by_hash: HashMap<u64, Held>,
    /// Those whose hash another has taken.
    others: Vec<Held>,
}

/// An event of one of the batches.
#[derive(Clone, Copy)]
struct Held {
    batch: u32,
    at: u32,
}

impl Ids {
    pub fn with_capacity(events: usize) -> Self {
        Self { by_hash: HashMap::with_capacity(events), ..Self::default() }
    }

    pub fn insert(&mut self, placed: &Arc<Placed>) {
        let batch = self.batches.len() as u32;
        self.batches.push(placed.clone());
        for (at, id) in (0..).zip(placed.ids()) {
            self.others.extend(self.by_hash.insert(id.hash, Held { batch, at }));
        }
    }

    /// Whether an id of this hash may be here.
    pub fn may_hold(&self, hash: u64) -> bool {
        self.by_hash.contains_key(&hash)
    }

    pub fn get(&self, id: &str, hash: u64) -> Option<Known> {
        let first = self.by_hash.get(&hash)?;
        let mut all = std::iter::once(first).chain(&self.others);
        all.find_map(|held| {
            let (placed, at) = (&self.batches[held.batch as usize], held.at as usize);
            (placed.batch.events.get(at).id == id).then(|| placed.known(at))
        })
    }
}
