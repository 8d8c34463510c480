//! Whether an id is there twice, or a key's sequence has a gap: to know that, every
//! id and key has to be remembered, and of a large log that is more than memory holds.
//!
//! # Promises
//! 1. No more than [`Limits`] are remembered. Of more, a share by hash is checked, and
//!    the rest when the log is read again, as often as it takes.
//! 2. A log of few enough is read once.
//!
//! # Not here
//! Ids and keys by their texts: 64 bits of hash tell them apart. Two of a billion are
//! alike once in forty logs.

use std::collections::hash_map::Entry;
use std::ops::RangeInclusive;

use daybook_model::Event;
use foldhash::{HashMap, HashMapExt};

use crate::local::index::Hasher;

/// What is remembered at most.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub ids: usize,
    pub keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // As many as fit into tables of 144 and 68 MiB.
        Self { ids: (16 << 20) / 8 * 7, keys: (4 << 20) / 8 * 7 }
    }
}

pub(super) struct Known {
    hasher: Hasher,
    ids: Share<()>,
    /// The sequence value that a key's next event takes.
    keys: Share<u64>,
    /// Of the shares before.
    keys_before: u64,
}

impl Known {
    pub fn new(hasher: Hasher, limits: Limits) -> Self {
        let (ids, keys) = (Share::first(limits.ids), Share::first(limits.keys));
        Self { hasher, ids, keys, keys_before: 0 }
    }

    /// To be told of all events in order, in every reading.
    pub fn event(&mut self, event: &Event) -> Result<(), String> {
        let position = event.position;
        if let Some(entry) = self.ids.entry(self.hasher.whole(&event.id)) {
            if matches!(entry, Entry::Occupied(_)) {
                return Err(format!("position {position}: the id `{}` occurs twice", event.id));
            }
            entry.insert_entry(());
        }
        if let Some((subject, sequence)) = event.subject.as_deref().zip(event.sequence)
            && let Some(entry) = self.keys.entry(self.hasher.whole(subject))
        {
            let next = entry.or_insert(0);
            if sequence.0 != *next {
                return Err(format!("position {position}: `{subject}` has {sequence}, expected {next}"));
            }
            *next += 1;
        }
        Ok(())
    }

    /// Goes on with those that were left out, if there are any: then the log has to be
    /// read again.
    pub fn begin_rest(&mut self) -> bool {
        self.keys_before += self.keys.held.len() as u64;
        let (ids, keys) = (self.ids.next(), self.keys.next());
        ids || keys
    }

    /// How many keys were found, when nothing was left out any more.
    pub fn keys(&self) -> u64 {
        self.keys_before
    }

    /// How often the log has to be read in all, as far as is known by now.
    pub fn readings(&self) -> u64 {
        self.ids.count().max(self.keys.count())
    }
}

/// Some of all hashes, and what is known of each of them.
struct Share<V> {
    /// None once all were looked at.
    hashes: Option<RangeInclusive<u64>>,
    held: HashMap<u64, V>,
    most: usize,
    /// Shares before.
    before: u64,
}

impl<V> Share<V> {
    /// All of them, for as long as they fit.
    fn first(most: usize) -> Self {
        Self { hashes: Some(0..=u64::MAX), held: HashMap::new(), most, before: 0 }
    }

    /// There is none if the hash is not of this share.
    fn entry(&mut self, hash: u64) -> Option<Entry<'_, u64, V>> {
        let hashes = self.hashes.as_mut()?;
        if self.held.len() >= self.most && !self.held.contains_key(&hash) {
            let (first, last) = (*hashes.start(), *hashes.end());
            *hashes = first..=first + (last - first) / 2;
            self.held.retain(|hash, _| hashes.contains(hash));
        }
        hashes.contains(&hash).then(|| self.held.entry(hash))
    }

    /// Makes this the next share, as large as fits by what this one held.
    fn next(&mut self) -> bool {
        let done = self.hashes.take();
        self.before += u64::from(done.is_some());
        let left = done.filter(|hashes| *hashes.end() < u64::MAX);
        if let Some(done) = &left {
            let first = done.end() + 1;
            // Less than would fit: hashes are not spread quite evenly.
            let fits = 0.9 * self.most as f64 / self.held.len().max(1) as f64;
            let width = ((done.end() - done.start()) as f64 * fits) as u64;
            self.hashes = Some(first..=first.saturating_add(width));
        }
        self.held.clear();
        left.is_some()
    }

    /// Of shares like this one, until all are done.
    fn count(&self) -> u64 {
        let left = self.hashes.as_ref().map_or(0, |hashes| {
            let width = (hashes.end() - hashes.start()).max(1);
            1 + (u64::MAX - hashes.end()).div_ceil(width)
        });
        self.before + left
    }
}

#[cfg(test)]
mod tests {
    use daybook_log::LogId;
    use daybook_model::{Position, Sequence};

    use super::*;
    use crate::local::tests::fuzz::full;

    const EVENTS: u64 = 5_000;
    const KEYS: u64 = 300;

    fn event(i: u64) -> Event {
        let (subject, sequence) = (Some(format!("k/{}", i % KEYS)), Some(Sequence(i / KEYS)));
        Event { position: Position(i), id: format!("e{i}"), subject, sequence, ..full() }
    }

    /// How many keys there are and how often it took to read all, or what is wrong.
    fn read(limits: Limits, event: impl Fn(u64) -> Event) -> Result<(u64, u64), String> {
        let mut known = Known::new(Hasher::new(LogId([7; 16])), limits);
        let mut readings = 0;
        loop {
            readings += 1;
            for i in 0..EVENTS {
                known.event(&event(i))?;
                assert!(known.ids.held.len() <= limits.ids && known.keys.held.len() <= limits.keys);
            }
            if !known.begin_rest() {
                assert_eq!(known.readings(), readings);
                return Ok((known.keys(), readings));
            }
            assert!(known.readings() > readings);
        }
    }

    const WIDE: Limits = Limits { ids: 5_000, keys: 300 };
    const NARROW: Limits = Limits { ids: 1_000, keys: 70 };

    #[test]
    fn what_fits_is_read_once_and_the_rest_as_often_as_it_takes() {
        assert_eq!(read(WIDE, event), Ok((KEYS, 1)));
        for limits in [NARROW, Limits { keys: 300, ..NARROW }, Limits { ids: 5_000, ..NARROW }] {
            let (keys, readings) = read(limits, event).unwrap();
            assert_eq!(keys, KEYS);
            assert!((5..=8).contains(&readings), "{readings}");
        }
    }

    #[test]
    fn an_id_that_is_there_twice_is_found_whichever_share_it_is_in() {
        for limits in [WIDE, NARROW] {
            for first in (0..EVENTS - 1).step_by(397) {
                let twice =
                    |i: u64| Event { id: event(if i == EVENTS - 1 { first } else { i }).id, ..event(i) };
                let told = read(limits, twice).unwrap_err();
                assert_eq!(told, format!("position {}: the id `e{first}` occurs twice", EVENTS - 1));
            }
        }
    }

    #[test]
    fn a_gap_in_a_sequence_is_found_whichever_share_its_key_is_in() {
        for limits in [WIDE, NARROW] {
            for at in (KEYS..EVENTS).step_by(397) {
                let more = |i: u64| Sequence(i / KEYS + u64::from(i == at));
                let gap = |i: u64| Event { sequence: Some(more(i)), ..event(i) };
                let (key, next) = (at % KEYS, at / KEYS);
                let told = read(limits, gap).unwrap_err();
                assert_eq!(told, format!("position {at}: `k/{key}` has {}, expected {next}", next + 1));
            }
        }
    }
}
