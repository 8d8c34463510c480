//! Which positions are filed under which hash, in memory: millions of lists of
//! which most have one position.
//!
//! # Promises
//! 1. A list of one position takes no more than its entry: 13 bytes, and as much
//!    again for as long as the table is half empty.
//! 2. Nobody waits for more than a part of it to grow: they are many, and none is
//!    large. One table for all stopped every publish for milliseconds when it grew.

use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use foldhash::HashMap;

/// Set in an entry that holds the number of a list, not a position. Memory ends
/// long before positions need this bit.
const LISTED: u32 = 1 << 31;

/// Positions relative to a base that the owner knows, ascending.
pub(super) struct Postings {
    /// By the first bits of the hash, so that one part after the other is in order.
    parts: Vec<HashMap<Halves, u32>>,
    lists: Vec<Vec<u32>>,
    /// Of the lists' own memory.
    list_bytes: usize,
}

const PART_BITS: u32 = 6;

/// A hash in two, so that an entry is 12 bytes and not 16.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Halves([u32; 2]);

impl Halves {
    fn of(hash: u64) -> Self {
        Self([(hash >> 32) as u32, hash as u32])
    }

    fn whole(self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }
}

impl Hash for Halves {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.whole());
    }
}

impl Default for Postings {
    fn default() -> Self {
        let parts = (0..1 << PART_BITS).map(|_| HashMap::default()).collect();
        Self { parts, lists: Vec::new(), list_bytes: 0 }
    }
}

impl Postings {
    /// Files `positions` under `hash`, behind what is there.
    pub fn post(&mut self, hash: u64, positions: Range<u32>) {
        debug_assert!(positions.end <= LISTED);
        let (first, list) = match self.parts[part_of(hash)].entry(Halves::of(hash)) {
            Entry::Vacant(entry) if positions.len() == 1 => {
                entry.insert(positions.start);
                return;
            }
            Entry::Vacant(entry) => (None, entry.insert(LISTED)),
            Entry::Occupied(entry) if *entry.get() & LISTED != 0 => {
                let list = &mut self.lists[(*entry.get() & !LISTED) as usize];
                let before = list.capacity();
                list.extend(positions);
                self.list_bytes += (list.capacity() - before) * size_of::<u32>();
                return;
            }
            Entry::Occupied(entry) => (Some(*entry.get()), entry.into_mut()),
        };
        *list = LISTED | self.lists.len() as u32;
        let positions: Vec<u32> = first.into_iter().chain(positions).collect();
        self.list_bytes += positions.capacity() * size_of::<u32>();
        self.lists.push(positions);
    }

    pub fn contains(&self, hash: u64) -> bool {
        self.parts[part_of(hash)].contains_key(&Halves::of(hash))
    }

    pub fn get(&self, hash: u64) -> &[u32] {
        self.parts[part_of(hash)].get(&Halves::of(hash)).map_or(&[], |entry| self.list(entry))
    }

    /// All lists, those of a smaller hash first.
    pub fn sorted(&self) -> impl Iterator<Item = (u64, &[u32])> {
        self.parts.iter().flat_map(|part| {
            let mut part: Vec<_> =
                part.iter().map(|(hash, entry)| (hash.whole(), self.list(entry))).collect();
            part.sort_unstable_by_key(|(hash, _)| *hash);
            part
        })
    }

    fn list<'a>(&'a self, entry: &'a u32) -> &'a [u32] {
        match entry & LISTED {
            0 => std::slice::from_ref(entry),
            _ => &self.lists[(entry & !LISTED) as usize],
        }
    }

    /// What all this takes.
    pub fn bytes(&self) -> usize {
        // An eighth of the table stays free, and there is a byte beside every entry.
        let entry = size_of::<(Halves, u32)>() + 1;
        self.parts.iter().map(|part| part.capacity() / 7 * 8 * entry).sum::<usize>()
            + self.lists.capacity() * size_of::<Vec<u32>>()
            + self.list_bytes
    }
}

fn part_of(hash: u64) -> usize {
    (hash >> (u64::BITS - PART_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filed_is_there_in_its_order_whether_alone_or_not() {
        let mut postings = Postings::default();
        let hashes = [0, 1, 1 << 32, u64::MAX, 1 << 63];
        for (at, hash) in (0..).zip(hashes) {
            postings.post(hash, at..at + 1);
        }
        assert!(hashes.iter().zip(0..).all(|(hash, at)| postings.get(*hash) == [at]));
        postings.post(1, 10..12);
        postings.post(1, 12..13);
        postings.post(7, 20..23);
        assert_eq!((postings.get(1), postings.get(7)), (&[1, 10, 11, 12][..], &[20, 21, 22][..]));
        assert_eq!((postings.get(2), postings.contains(2), postings.contains(7)), (&[][..], false, true));
        let all: Vec<_> = postings.sorted().collect();
        assert_eq!(all[..2], [(0, &[0][..]), (1, &[1, 10, 11, 12])]);
        assert!(all.len() == 6 && all.is_sorted());
    }
}
