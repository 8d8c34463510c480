//! Whether a group waits until everybody is back who was just answered.
//!
//! Where writers publish again as soon as they are answered, and are back before a
//! sync would be over, one group of all is better than two that take turns: each
//! waits for one sync instead of two. Where nobody comes back the wait is wasted.
//! Which of the two it is shows when it is tried.
//!
//! # Promises
//! 1. A wait that was in vain is followed by [`SKIPPED`] groups without one, by
//!    twice as many each time that it was in vain again, by [`SKIPPED_MAX`] at most.
//! 2. A wait takes no longer than three quarters of a sync: with a whole one
//!    nothing would be gained.
//!
//! # Not here
//! The waiting: `queue.rs`.

use std::time::Duration;

const SKIPPED: u32 = 4;
const SKIPPED_MAX: u32 = 256;

#[derive(Default)]
pub(super) struct Patience {
    /// Groups that will not wait.
    left: u32,
    /// How many did not after the last wait in vain; 0 if the last was not.
    skipped: u32,
}

/// How a group waits for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// It goes once so many requests are together.
    pub requests: usize,
    /// Or nobody came for so long.
    pub pause: Duration,
    /// Or so long in all.
    pub longest: Duration,
}

impl Patience {
    /// For all `requests` that may come, syncs taking `sync` on average; `None`
    /// if this group does not try.
    pub fn whole(&mut self, requests: usize, sync: Duration) -> Option<Wait> {
        if self.left > 0 {
            self.left -= 1;
            return None;
        }
        Some(Wait { requests, pause: sync / 2, longest: sync / 4 * 3 })
    }

    /// A group has waited; in the end all were `together`, or not.
    pub fn waited(&mut self, together: bool) {
        self.skipped = if together { 0 } else { (self.skipped * 2).clamp(SKIPPED, SKIPPED_MAX) };
        self.left = self.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_millis(2);

    /// How many groups do not wait before one does.
    fn skipped(patience: &mut Patience) -> usize {
        (0..).find(|_| patience.whole(8, SYNC).is_some()).unwrap()
    }

    #[test]
    fn every_group_waits_as_long_as_all_come_back() {
        let mut patience = Patience::default();
        for _ in 0..10 {
            let wait = patience.whole(8, SYNC).unwrap();
            assert_eq!(wait.requests, 8);
            assert!(wait.pause < wait.longest && wait.longest < SYNC);
            patience.waited(true);
        }
    }

    #[test]
    fn waits_in_vain_become_rare_and_one_that_is_not_begins_anew() {
        let mut patience = Patience::default();
        let skipped_after: Vec<_> = (0..9)
            .map(|_| {
                patience.waited(false);
                skipped(&mut patience)
            })
            .collect();
        assert_eq!(skipped_after, [4, 8, 16, 32, 64, 128, 256, 256, 256]);
        patience.waited(true);
        assert_eq!(skipped(&mut patience), 0);
        patience.waited(false);
        assert_eq!(skipped(&mut patience), 4);
    }
}
