//! The youngest events' index, in memory until it is written as a run.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use daybook_log::Place;
use daybook_model::{Event, Position};
use foldhash::HashMap;

use super::hash::{Hasher, Kind, session_levels};
use super::times::IdTimes;

/// How far a key has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHead {
    /// The sequence value that its next event takes: how many events it has.
    pub next: u64,
    pub last: Position,
}

/// Positions relative to `base`; ids and correlations mostly have one.
pub(super) enum Postings {
    One(u32),
    Many(Vec<u32>),
}

pub(super) struct Mem {
    hasher: Hasher,
    pub base: u64,
    pub places: Vec<Place>,
    /// Ascending: `recordedtime` never goes backwards.
    pub times: Vec<i64>,
    pub id_times: IdTimes,
    pub postings: HashMap<u64, Postings>,
    pub keys: BTreeMap<Arc<str>, KeyHead>,
    /// Each type's last position.
    pub types: BTreeMap<Arc<str>, Position>,
}

impl Mem {
    pub fn new(hasher: Hasher, base: u64) -> Self {
        Self {
            hasher,
            base,
            places: Vec::new(),
            times: Vec::new(),
            id_times: IdTimes::NONE,
            postings: HashMap::default(),
            keys: BTreeMap::new(),
            types: BTreeMap::new(),
        }
    }

    /// Goes on where `full` ends, and will grow as large: everybody waits while
    /// a map of a hundred thousand entries is moved to a larger one.
    pub fn after(full: &Self) -> Self {
        let mut next = Self::new(full.hasher, full.end());
        next.places.reserve(full.places.len());
        next.times.reserve(full.times.len());
        next.postings.reserve(full.postings.len());
        next
    }

    pub fn end(&self) -> u64 {
        self.base + self.places.len() as u64
    }

    pub fn insert(&mut self, event: &Event, place: Place) {
        debug_assert_eq!(self.end(), event.position.0);
        let at = self.places.len() as u32;
        self.places.push(place);
        self.times.push(event.recordedtime.0);
        self.id_times.add(&event.id);
        self.post(Kind::Id, &event.id, at);
        self.post(Kind::Type, &event.kind, at);
        self.post(Kind::Correlation, &event.correlationid, at);
        self.post(Kind::Session, &event.sessionid, at);
        session_levels(&event.sessionid).for_each(|level| self.post(Kind::Session, level, at));
        match self.types.get_mut(event.kind.as_str()) {
            Some(last) => *last = event.position,
            None => drop(self.types.insert(event.kind.as_str().into(), event.position)),
        }
        if let (Some(subject), Some(sequence)) = (&event.subject, event.sequence) {
            self.post(Kind::Subject, subject, at);
            let head = KeyHead { next: sequence.0 + 1, last: event.position };
            match self.keys.get_mut(subject.as_str()) {
                Some(known) => *known = head,
                None => drop(self.keys.insert(subject.as_str().into(), head)),
            }
        }
    }

    fn post(&mut self, kind: Kind, text: &str, at: u32) {
        let hash = self.hasher.hash(kind, text);
        match self.postings.get_mut(&hash) {
            None => drop(self.postings.insert(hash, Postings::One(at))),
            Some(Postings::Many(list)) => list.push(at),
            Some(one) => {
                let first = one.as_slice()[0];
                *one = Postings::Many(vec![first, at]);
            }
        }
    }

    pub fn place(&self, position: u64) -> Option<Place> {
        self.places.get(usize::try_from(position.checked_sub(self.base)?).ok()?).copied()
    }

    /// At most `limit` positions of [`from`, `until`), from the end if `reverse`.
    pub fn positions(&self, hash: u64, range: &super::Range, limit: usize, out: &mut Vec<u64>) {
        let list = match self.postings.get(&hash) {
            None => return,
            Some(postings) => postings.as_slice(),
        };
        let below = |bound: u64| list.partition_point(|at| self.base + u64::from(*at) < bound);
        let list = &list[below(range.from)..below(range.until)];
        let absolute = |at: &u32| self.base + u64::from(*at);
        if range.reverse {
            out.extend(list.iter().rev().take(limit).map(absolute));
        } else {
            out.extend(list.iter().take(limit).map(absolute));
        }
    }

    /// Keys from `from` on, in byte order.
    pub fn keys_from(&self, from: Bound<&str>) -> impl Iterator<Item = (&Arc<str>, &KeyHead)> {
        self.keys.range::<str, _>((from, Bound::Unbounded))
    }
}

impl Postings {
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(at) => std::slice::from_ref(at),
            Self::Many(list) => list,
        }
    }
}
