//! The youngest events' index, in memory until it is written as a run.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use daybook_log::Place;
use daybook_model::{Event, Position, Sequence, Timestamp};

use super::filed::{Alike, Alone, Filed, Id};
use super::hash::{Hasher, Kind};
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
        self.insert_all(event.recordedtime, &Alone::new(self.hasher, event), &[place]);
    }

    pub fn insert_all(&mut self, recordedtime: Timestamp, events: &impl Filed, places: &[Place]) {
        let first = self.places.len() as u32;
        self.places.extend_from_slice(places);
        self.times.resize(self.places.len(), recordedtime.0);
        for (at, id) in (first..).zip(events.ids()) {
            self.id_times.add(id.time);
            self.postings.post(id.hash, at..at + 1);
        }
        for Alike { hash, events: alike } in events.alikes() {
            self.postings.post(*hash, first + alike.start..first + alike.end);
            let at = alike.end - 1;
            let last = Position(self.base + u64::from(first + at));
            if Kind::Type.is_of(*hash) {
                put(&mut self.types, &mut self.name_bytes, events.kind(at), last);
            } else if Kind::Subject.is_of(*hash)
                && let Some((subject, Sequence(sequence))) = events.key(at)
            {
                put(&mut self.keys, &mut self.name_bytes, subject, KeyHead { next: sequence + 1, last });
            }
        }
    }

    /// Whether no event is here that has this id.
    pub fn is_new(&self, id: Id) -> bool {
        !self.id_times.may_hold(id.time) || !self.postings.contains(id.hash)
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

fn put<T>(names: &mut BTreeMap<Arc<str>, T>, bytes: &mut usize, name: &str, value: T) {
    match names.get_mut(name) {
        Some(known) => *known = value,
        None => {
            *bytes += name.len() + NAME_BYTES;
            names.insert(name.into(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use daybook_log::LogId;

    use super::super::filed::alikes;
    use super::*;

    const EVENTS: u64 = 50_000;

    /// A batch of one key.
    struct Batch {
        key: String,
        ids: Vec<Id>,
        alikes: Vec<Alike>,
    }

    impl Filed for Batch {
        fn ids(&self) -> impl Iterator<Item = Id> {
            self.ids.iter().copied()
        }

        fn alikes(&self) -> &[Alike] {
            &self.alikes
        }

        fn kind(&self, _: u32) -> &str {
            "Happened"
        }

        fn key(&self, at: u32) -> Option<(&str, Sequence)> {
            Some((&self.key, Sequence(at.into())))
        }
    }

    fn filled(key: impl Fn(u64) -> String, each: u64) -> Mem {
        let hasher = Hasher::new(LogId([7; 16]));
        let mut mem = Mem::new(hasher, 0);
        for first in (0..EVENTS).step_by(each as usize) {
            let (key, correlation) = (key(first / each), format!("id-{first}"));
            let ids = (first..first + each).map(|i| Id::of(hasher, &format!("id-{i}"))).collect();
            let of_all = (|_| "Happened", |_| correlation.as_str(), |_| Some(key.as_str()));
            let alikes = alikes(hasher, "bench/1/s", each as u32, of_all.0, of_all.1, of_all.2);
            let places = vec![Place { segment: 0, offset: 0, len: 1 }; each as usize];
            mem.insert_all(Timestamp(1), &Batch { key, ids, alikes }, &places);
        }
        mem
    }

    #[test]
    fn an_id_is_new_unless_it_was_filed_whether_it_names_a_time_or_not() {
        let hasher = Hasher::new(LogId([7; 16]));
        let id = |text: &str| Id::of(hasher, text);
        let uuid = |ms: u8, last: u8| format!("0198c0de-00{ms:02x}-7000-8abc-0123456789{last:02x}");
        let mut mem = Mem::new(hasher, 0);
        assert!(mem.is_new(id("order-1")) && mem.is_new(id(&uuid(5, 1))));
        let known = ["order-1".to_owned(), uuid(5, 1), uuid(7, 1)];
        let ids = known.iter().map(|text| id(text)).collect();
        let alikes = alikes(hasher, "bench/1/s", 3, |_| "Happened", |_| "c", |_| Some("key"));
        let places = [Place { segment: 0, offset: 0, len: 1 }; 3];
        mem.insert_all(Timestamp(1), &Batch { key: "key".into(), ids, alikes }, &places);
        assert!(known.iter().all(|text| !mem.is_new(id(text))));
        let others = ["order-2".to_owned(), uuid(5, 2), uuid(6, 1), uuid(4, 1), uuid(8, 1)];
        assert!(others.iter().all(|text| mem.is_new(id(text))));
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
