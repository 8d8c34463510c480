//! Heads of the keys written last, those of events under way included, under a
//! byte limit.
//!
//! # Promises
//! 1. What is here is right: the one who sequences puts every head here.
//! 2. The head of a key whose newest event is not visible yet is here.

use daybook_model::Position;
use foldhash::HashMap;

/// Keys of one half; the older half is dropped when the younger is full.
const HALF_BYTES: usize = 4 << 20;
const ENTRY_BYTES: usize = 64;

#[derive(Default)]
pub(super) struct Heads {
    young: HashMap<Box<str>, Head>,
    old: HashMap<Box<str>, Head>,
    bytes: usize,
    /// Everything in `old` is below this position.
    old_end: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Head {
    /// What the key's next event takes.
    pub next: u64,
    pub last: Position,
}

impl Heads {
    pub fn get(&self, subject: &str) -> Option<Head> {
        self.young.get(subject).or_else(|| self.old.get(subject)).copied()
    }

    /// `visible` is the position below which the index answers.
    pub fn put(&mut self, subject: &str, head: Head, visible: u64) {
        if let Some(known) = self.young.get_mut(subject) {
            *known = head;
            return;
        }
        self.bytes += subject.len() + ENTRY_BYTES;
        if self.bytes > HALF_BYTES && self.old_end <= visible {
            self.bytes = subject.len() + ENTRY_BYTES;
            self.old = std::mem::take(&mut self.young);
            self.old_end = head.last.0;
        }
        self.young.insert(subject.into(), head);
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_is_not_visible_is_never_dropped() {
        let mut heads = Heads::default();
        let keys = 3 * HALF_BYTES / ENTRY_BYTES;
        for i in 0..keys as u64 {
            heads.put(&format!("key/{i}"), Head { next: 1, last: Position(i) }, 0);
        }
        assert!((0..keys).all(|i| heads.get(&format!("key/{i}")).is_some()));
        for i in keys as u64..3 * keys as u64 {
            heads.put(&format!("key/{i}"), Head { next: 1, last: Position(i) }, i);
        }
        assert!(heads.get("key/0").is_none(), "what is visible makes room");
        assert!(heads.young.len() + heads.old.len() < keys);
    }
}
