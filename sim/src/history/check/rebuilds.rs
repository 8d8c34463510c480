//! Whoever rebuilds from what a group has settled, while others settle.
//!
//! Each rebuilding stands for itself: what it was told must be what a service
//! needs that begins with nothing.

use std::collections::{HashMap, HashSet};

use super::{Logged, Record, Verdict, What};
use crate::history::GroupSpec;

/// One that began with nothing.
struct Rebuild {
    /// Answered acks when it began: all of these are part of the past.
    due: HashSet<u64>,
    told: HashSet<u64>,
    caught_up: bool,
}

pub(super) fn check(records: &[Record], log: &Logged, group: &GroupSpec, verdict: &mut Verdict) {
    let before = group.predecessors(log);
    let mut durable: HashSet<u64> = HashSet::new();
    // Somebody began to settle it, entitled or not.
    let mut begun: HashSet<u64> = HashSet::new();
    let mut rebuilds: HashMap<&str, Rebuild> = HashMap::new();
    for record in records {
        match &record.what {
            What::Ack { group: of, position, .. } | What::Skip { group: of, position, .. }
                if of == group.name =>
            {
                begun.insert(*position);
            }
            What::Acked { group: of, position, .. } if of == group.name => {
                durable.insert(*position);
            }
            What::Rebuilding { group: of } if of == group.name => {
                let rebuild = Rebuild { due: durable.clone(), told: HashSet::new(), caught_up: false };
                rebuilds.insert(&record.who, rebuild);
            }
            What::Rebuilt { group: of, position, .. } if of == group.name => {
                let Some(rebuild) = rebuilds.get_mut(record.who.as_str()) else { continue };
                verdict.counts.rebuilt += 1;
                verdict.counts.rebuilt_live += u64::from(rebuild.caught_up);
                let told =
                    |what: &str| format!("{}: {} was told of {position}{what}", group.name, record.who);
                if !begun.contains(position) {
                    verdict.broken("what is told as settled was settled", told(""));
                }
                if log.at(*position).is_none_or(|entry| !group.wants(entry)) {
                    verdict.broken("a group settles only what it wants", told(""));
                }
                if let Some(previous) = before.get(position).filter(|p| !rebuild.told.contains(p)) {
                    let detail = told(&format!(", and {previous} of its key never"));
                    verdict.broken("who rebuilds is told a key's events in order, and all", detail);
                }
                rebuild.told.insert(*position);
            }
            What::RebuiltPast { group: of } if of == group.name => {
                let Some(rebuild) = rebuilds.get_mut(record.who.as_str()) else { continue };
                verdict.counts.rebuilds += 1;
                rebuild.caught_up = true;
                let missing = rebuild.due.difference(&rebuild.told).min();
                if let Some(missing) = missing {
                    let detail = format!(
                        "{}: {} was not told of {missing}, whose ack had been answered",
                        group.name, record.who
                    );
                    verdict.broken("who rebuilds is told all that was settled", detail);
                }
            }
            _ => {}
        }
    }
}
