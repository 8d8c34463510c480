//! Whether a history is one that the promises allow.
//!
//! # Promises
//! 1. No false alarm: a rule speaks only of what ended before something else
//!    began, and an outcome that nobody knows counts as either.
//! 2. Every rule has a history that breaks it (`tests/checker.rs`), and most a
//!    mistake planted into the system (`tests/planted.rs`).

mod groups;
mod publishes;
mod readers;
mod rebuilds;

use super::{GroupSpec, Logged, Record, What};

/// What was found, and how much there was to look at.
#[derive(Debug, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    pub counts: Counts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub detail: String,
}

/// A rule that never had anything to look at has proved nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub stored: u64,
    pub refused: u64,
    pub fenced: u64,
    pub unknown: u64,
    pub duplicates: u64,
    pub read: u64,
    pub delivered: u64,
    /// Deliveries of an event that had been delivered before.
    pub again: u64,
    pub acked: u64,
    pub given_back: u64,
    pub skipped: u64,
    /// Acks of a claim that was lost by then.
    pub late_acks: u64,
    /// Deliveries of a key whose session had an earlier event of it.
    pub in_window: u64,
    /// Answered acks of such deliveries.
    pub acked_in_window: u64,
    /// Events told to who rebuilds, and how often all of the past was told.
    pub rebuilt: u64,
    pub rebuilds: u64,
    /// Events that settled while somebody was rebuilding, told live.
    pub rebuilt_live: u64,
}

impl Counts {
    pub fn named(&self) -> [(&'static str, u64); 17] {
        [
            ("stored", self.stored),
            ("refused", self.refused),
            ("fenced", self.fenced),
            ("unknown", self.unknown),
            ("duplicates", self.duplicates),
            ("read", self.read),
            ("delivered", self.delivered),
            ("again", self.again),
            ("acked", self.acked),
            ("given back", self.given_back),
            ("skipped", self.skipped),
            ("late acks", self.late_acks),
            ("in a window", self.in_window),
            ("acked in a window", self.acked_in_window),
            ("rebuilt", self.rebuilt),
            ("rebuilds", self.rebuilds),
            ("rebuilt live", self.rebuilt_live),
        ]
    }
}

impl Verdict {
    fn broken(&mut self, rule: &'static str, detail: String) {
        self.violations.push(Violation { rule, detail });
    }

    pub fn rules(&self) -> Vec<&'static str> {
        let mut rules: Vec<_> = self.violations.iter().map(|violation| violation.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

/// Holds the records against the log of the end. `settled`: the groups said
/// that they have nothing left to do.
pub fn check(records: &[Record], log: &Logged, groups: &[GroupSpec], settled: bool) -> Verdict {
    let mut verdict = Verdict::default();
    the_log_itself(log, &mut verdict);
    publishes::check(records, log, &mut verdict);
    readers::check(records, log, &mut verdict);
    for group in groups {
        groups::check(records, log, group, settled, &mut verdict);
        rebuilds::check(records, log, group, &mut verdict);
    }
    verdict
}

fn the_log_itself(log: &Logged, verdict: &mut Verdict) {
    let mut next = std::collections::HashMap::new();
    for (i, entry) in log.entries.iter().enumerate() {
        if entry.position != i as u64 {
            verdict.broken("positions are gapless", format!("place {i} holds position {}", entry.position));
        }
        if i > 0 && log.entries[i - 1].recorded > entry.recorded {
            let detail = format!("{} at {} is older than what is before it", entry.id, entry.position);
            verdict.broken("the time of the bus never goes back", detail);
        }
        if log.times(&entry.id) > 1 {
            verdict.broken("an id is stored once", entry.id.clone());
        }
        let Some(subject) = &entry.subject else { continue };
        let expected = next.entry(subject.as_str()).or_insert(0);
        if entry.sequence != Some(*expected) {
            let detail =
                format!("{subject} at {}: {:?}, expected {expected}", entry.position, entry.sequence);
            verdict.broken("a key's values are 0..n without gap", detail);
        }
        *expected += 1;
    }
}
