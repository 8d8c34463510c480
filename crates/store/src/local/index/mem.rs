//! The youngest events' index, in memory until it is written as a run.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use daybook_log::Place;
use daybook_model::{Event, Position, Sequence, Timestamp};

use super::hash::{Hasher, Kind, session_levels};
use super::postings::Postings;
use super::times::IdTimes;

/// Of a name, roughly, beside its text: its place in the tree, which is between
/// half full and full, and what counts who uses it.
const NAME_BYTES: usize = 80;

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

pub(crate) struct Mem {
    hasher: Hasher,
    pub(super) base: u64,
    pub(super) places: Vec<Place>,
    /// Ascending: `recordedtime` never goes backwards.
    pub(super) times: Vec<i64>,
    pub(super) id_times: IdTimes,
    /// Positions relative to `base`.
    pub(super) postings: Postings,
    pub(super) keys: BTreeMap<Arc<str>, KeyHead>,
    /// Each type's last position.
    pub(super) types: BTreeMap<Arc<str>, Position>,
    /// Of keys and types.
    name_bytes: usize,
}

impl Mem {
    pub fn new(hasher: Hasher, base: u64) -> Self {
        Self {
            hasher,
            base,
            places: Vec::new(),
            times: Vec::new(),
            id_times: IdTimes::NONE,
            postings: Postings::default(),
            keys: BTreeMap::new(),
            types: BTreeMap::new(),
            name_bytes: 0,
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

    /// What it takes, roughly.
    pub fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Place>()
            + self.times.capacity() * size_of::<i64>()
            + self.postings.bytes()
            + self.name_bytes
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
        sessions.iter().for_each(|session| self.postings.post(*session, all.clone()));
        let events = all.zip(events);
        for (at, event) in events.clone() {
            self.id_times.add(event.id);
            self.postings.post(event.hashes.id, at..at + 1);
        }
        runs(
            events.clone(),
            |event| Some((event.hashes.correlation, ())),
            |run, last| {
                self.postings.post(last.hashes.correlation, run);
            },
        );
        runs(
            events.clone(),
            |event| Some((event.hashes.kind, event.kind)),
            |run, last| {
                let position = Position(base + u64::from(run.end) - 1);
                self.postings.post(last.hashes.kind, run);
                match self.types.get_mut(last.kind) {
                    Some(known) => *known = position,
                    None => {
                        self.name_bytes += last.kind.len() + NAME_BYTES;
                        self.types.insert(last.kind.into(), position);
                    }
                }
            },
        );
        runs(
            events,
            |event| event.hashes.subject.zip(event.key.map(|key| key.0)),
            |run, last| {
                let (Some(hash), Some((subject, sequence))) = (last.hashes.subject, last.key) else { return };
                let head = KeyHead { next: sequence.0 + 1, last: Position(base + u64::from(run.end) - 1) };
                self.postings.post(hash, run);
                match self.keys.get_mut(subject) {
                    Some(known) => *known = head,
                    None => {
                        self.name_bytes += subject.len() + NAME_BYTES;
                        self.keys.insert(subject.into(), head);
                    }
                }
            },
        );
    }

    /// Whether nothing is filed under `hash`.
    pub fn is_free(&self, hash: u64) -> bool {
        !self.postings.contains(hash)
    }

    pub fn place(&self, position: u64) -> Option<Place> {
        self.places.get(usize::try_from(position.checked_sub(self.base)?).ok()?).copied()
    }

    /// At most `limit` positions of [`from`, `until`), from the end if `reverse`.
    pub fn positions(&self, hash: u64, range: &super::Range, limit: usize, out: &mut Vec<u64>) {
        let list = self.postings.get(hash);
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

#[cfg(test)]
mod tests {
    use daybook_log::LogId;

    use super::*;

    const EVENTS: u64 = 50_000;

    fn filled(key: impl Fn(u64) -> String, each: u64) -> Mem {
        let hasher = Hasher::new(LogId([7; 16]));
        let mut mem = Mem::new(hasher, 0);
        let sessions = sessions(hasher, "bench/1/s");
        for first in (0..EVENTS).step_by(each as usize) {
            let key = key(first / each);
            let ids: Vec<_> = (first..first + each).map(|i| format!("id-{i}")).collect();
            let filed = ids.iter().zip(0..).map(|(id, at)| Filed {
                hashes: Hashes::new(hasher, id, "Happened", &ids[0], Some(&key)),
                id,
                kind: "Happened",
                key: Some((&key, Sequence(at))),
            });
            let places = vec![Place { segment: 0, offset: 0, len: 1 }; each as usize];
            mem.insert_all(Timestamp(1), &sessions, filed, &places);
        }
        mem
    }

    #[test]
    fn what_it_takes_is_told_about_right() {
        let long = "x".repeat(200);
        let shapes: [(&str, &dyn Fn(u64) -> String, u64); 4] = [
            ("a batch each key", &|i| format!("key/{i:020}"), 10),
            ("an event each key", &|i| format!("key/{i:020}"), 1),
            ("few keys", &|i| format!("key/{}", i % 256), 1),
            ("long keys in no order", &|i| format!("{}/{long}", i * 7_919 % EVENTS), 1),
        ];
        for (shape, key, each) in shapes {
            let mut mem = None;
            let taken = allocation_counter::measure(|| mem = Some(filled(key, each))).bytes_current;
            let told = mem.unwrap().bytes();
            let ratio = told as f64 / taken as f64;
            assert!((0.8..1.25).contains(&ratio), "{shape}: {told} of {taken}");
        }
    }
}
