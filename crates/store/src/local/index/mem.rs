//! The youngest events' index, in memory until it is written as a run.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::ops::{Bound, Range};
use std::sync::Arc;

use daybook_log::Place;
use daybook_model::{Event, Position, Sequence, Timestamp};
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

/// What an event is filed under, hashed by whoever gives it its place.
#[derive(Clone, Copy)]
pub(crate) struct Hashes {
    pub id: u64,
    pub kind: u64,
    pub correlation: u64,
    pub subject: Option<u64>,
}

/// An event as far as it is filed, besides its session and time.
#[derive(Clone, Copy)]
pub(crate) struct Filed<'a> {
    pub hashes: Hashes,
    pub id: &'a str,
    pub kind: &'a str,
    pub key: Option<(&'a str, Sequence)>,
}

/// Positions relative to `base`; ids and correlations mostly have one.
pub(super) enum Postings {
    One(u32),
    /// Rare: boxed, so that every other entry is a quarter smaller.
    #[expect(clippy::box_collection, reason = "the vector itself would be in every entry")]
    Many(Box<Vec<u32>>),
}

pub(crate) struct Mem {
    hasher: Hasher,
    pub(super) base: u64,
    pub(super) places: Vec<Place>,
    /// Ascending: `recordedtime` never goes backwards.
    pub(super) times: Vec<i64>,
    pub(super) id_times: IdTimes,
    pub(super) postings: HashMap<u64, Postings>,
    pub(super) keys: BTreeMap<Arc<str>, KeyHead>,
    /// Each type's last position.
    pub(super) types: BTreeMap<Arc<str>, Position>,
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

    /// Goes on where `full` ends, and will grow as large. The map of postings
    /// grows by itself: two of full size at once were ten MiB.
    pub fn after(full: &Self) -> Self {
        let mut next = Self::new(full.hasher, full.end());
        next.places.reserve(full.places.len());
        next.times.reserve(full.times.len());
        next
    }

    pub fn end(&self) -> u64 {
        self.base + self.places.len() as u64
    }

    pub fn insert(&mut self, event: &Event, place: Place) {
        debug_assert_eq!(self.end(), event.position.0);
        let sessions = sessions(self.hasher, &event.sessionid);
        let key = event.subject.as_deref().zip(event.sequence);
        let hashes = Hashes::new(self.hasher, &event.id, &event.kind, &event.correlationid, key.map(|k| k.0));
        let filed = Filed { hashes, id: &event.id, kind: &event.kind, key };
        self.insert_all(event.recordedtime, &sessions, std::iter::once(filed), &[place]);
    }

    /// A batch: neighbours mostly share their type, key and correlation.
    pub fn insert_all<'a>(
        &mut self,
        recordedtime: Timestamp,
        sessions: &[u64],
        events: impl Iterator<Item = Filed<'a>> + Clone,
        places: &[Place],
    ) {
        let (base, first) = (self.base, self.places.len() as u32);
        self.places.extend_from_slice(places);
        self.times.resize(self.places.len(), recordedtime.0);
        let all = first..self.places.len() as u32;
        sessions.iter().for_each(|session| self.post(*session, all.clone()));
        let events = all.zip(events);
        for (at, event) in events.clone() {
            self.id_times.add(event.id);
            self.post(event.hashes.id, at..at + 1);
        }
        runs(
            events.clone(),
            |event| Some((event.hashes.correlation, ())),
            |run, last| {
                self.post(last.hashes.correlation, run);
            },
        );
        runs(
            events.clone(),
            |event| Some((event.hashes.kind, event.kind)),
            |run, last| {
                let position = Position(base + u64::from(run.end) - 1);
                self.post(last.hashes.kind, run);
                match self.types.get_mut(last.kind) {
                    Some(known) => *known = position,
                    None => drop(self.types.insert(last.kind.into(), position)),
                }
            },
        );
        runs(
            events,
            |event| event.hashes.subject.zip(event.key.map(|key| key.0)),
            |run, last| {
                let (Some(hash), Some((subject, sequence))) = (last.hashes.subject, last.key) else { return };
                let head = KeyHead { next: sequence.0 + 1, last: Position(base + u64::from(run.end) - 1) };
                self.post(hash, run);
                match self.keys.get_mut(subject) {
                    Some(known) => *known = head,
                    None => drop(self.keys.insert(subject.into(), head)),
                }
            },
        );
    }

    fn post(&mut self, hash: u64, run: Range<u32>) {
        match self.postings.entry(hash) {
            Entry::Vacant(entry) if run.len() == 1 => drop(entry.insert(Postings::One(run.start))),
            Entry::Vacant(entry) => drop(entry.insert(Postings::Many(Box::new(run.collect())))),
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Postings::Many(list) => list.extend(run),
                Postings::One(first) => {
                    let list = std::iter::once(*first).chain(run).collect();
                    entry.insert(Postings::Many(Box::new(list)));
                }
            },
        }
    }

    /// Whether nothing is filed under `hash`.
    pub fn is_free(&self, hash: u64) -> bool {
        !self.postings.contains_key(&hash)
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

/// Hands over neighbours that are alike: where they are, and the last of them.
fn runs<'a, K: PartialEq>(
    events: impl Iterator<Item = (u32, Filed<'a>)>,
    alike: impl Fn(&Filed<'a>) -> Option<K>,
    mut each: impl FnMut(Range<u32>, Filed<'a>),
) {
    let mut open: Option<(K, Range<u32>, Filed<'a>)> = None;
    for (at, event) in events {
        let key = alike(&event);
        match (&mut open, key) {
            (Some((known, run, last)), Some(key)) if *known == key => (run.end, *last) = (at + 1, event),
            (_, key) => {
                let next = key.map(|key| (key, at..at + 1, event));
                if let Some((_, run, last)) = std::mem::replace(&mut open, next) {
                    each(run, last);
                }
            }
        }
    }
    if let Some((_, run, last)) = open {
        each(run, last);
    }
}

impl Hashes {
    pub fn new(hasher: Hasher, id: &str, kind: &str, correlation: &str, subject: Option<&str>) -> Self {
        Self {
            id: hasher.hash(Kind::Id, id),
            kind: hasher.hash(Kind::Type, kind),
            correlation: hasher.hash(Kind::Correlation, correlation),
            subject: subject.map(|subject| hasher.hash(Kind::Subject, subject)),
        }
    }
}

/// The session's id and its levels.
pub(crate) fn sessions(hasher: Hasher, id: &str) -> Vec<u64> {
    std::iter::once(id).chain(session_levels(id)).map(|text| hasher.hash(Kind::Session, text)).collect()
}

impl Postings {
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(at) => std::slice::from_ref(at),
            Self::Many(list) => list,
        }
    }
}
