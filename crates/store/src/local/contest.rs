//! Whether writers contend: most of what was asked lately came too late for its
//! key's place.
//!
//! Requests that wait for each other share a sync. Where writers contend that
//! gains nothing: of those who want the same place one gets it, and to wait for
//! the others only delays the one.
//!
//! # Not here
//! What is done about it: `queue.rs`.

/// What the last groups came to, each worth half of the one after it.
#[derive(Default)]
pub(super) struct Contest {
    placed: usize,
    late: usize,
}

/// Of one request in the last group: halved a few times it is still something.
const WEIGHT: usize = 16;

impl Contest {
    /// Of one group: how many requests it decided, and how many were in conflict.
    pub fn note(&mut self, requests: usize, late: usize) {
        if requests > 0 {
            self.placed = self.placed / 2 + requests.saturating_sub(late) * WEIGHT;
            self.late = self.late / 2 + late * WEIGHT;
        }
    }

    pub fn is_on(&self) -> bool {
        self.late > self.placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_on_while_most_come_too_late_and_soon_over_when_nobody_does() {
        let mut contest = Contest::default();
        contest.note(64, 20);
        assert!(!contest.is_on(), "most got a place");
        for _ in 0..4 {
            contest.note(1, 0);
            contest.note(15, 15);
        }
        contest.note(1, 0);
        assert!(contest.is_on(), "the winner's group alone is no sign of peace");
        let calm = (1..).find(|_| {
            contest.note(1, 0);
            !contest.is_on()
        });
        assert!(calm.is_some_and(|groups| groups <= 5));
    }

    #[test]
    fn groups_that_decide_nothing_change_nothing() {
        let mut contest = Contest::default();
        contest.note(2, 2);
        (0..100).for_each(|_| contest.note(0, 0));
        assert!(contest.is_on());
    }
}
