//! Heads of keys that were looked up on disk, so that a key which many write to
//! after a long silence costs one look-up.

use foldhash::HashMap;

/// Keys of one half; the older half is dropped when the younger is full.
const HALF_BYTES: usize = 4 << 20;
const ENTRY_BYTES: usize = 48;

/// Right as long as the index on disk has nothing younger: what is in memory is
/// asked first, and when that moves to disk everything here is forgotten.
#[derive(Default)]
pub(super) struct Heads {
    generation: u64,
    young: HashMap<Box<str>, u64>,
    old: HashMap<Box<str>, u64>,
    bytes: usize,
}

impl Heads {
    pub fn get(&mut self, generation: u64, subject: &str) -> Option<u64> {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
        self.young.get(subject).or_else(|| self.old.get(subject)).copied()
    }

    /// After a `get` of the same generation that found nothing.
    pub fn put(&mut self, subject: &str, next: u64) {
        self.bytes += subject.len() + ENTRY_BYTES;
        if self.bytes > HALF_BYTES {
            self.bytes = 0;
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(subject.into(), next);
    }
}
