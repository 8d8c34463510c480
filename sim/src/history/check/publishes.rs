//! What publishers were told against what is in the log.

use std::collections::HashMap;

use super::{Logged, Record, Verdict, What};

pub(super) fn check(records: &[Record], log: &Logged, verdict: &mut Verdict) {
    let mut calls: HashMap<(&str, u64), &[String]> = HashMap::new();
    // Per id: how many calls named it, and how many of them were refused.
    let mut named: HashMap<&str, (u64, u64)> = HashMap::new();
    for record in records {
        match &record.what {
            What::Publish { call, ids, .. } => {
                calls.insert((&record.who, *call), ids);
                ids.iter().for_each(|id| named.entry(id).or_default().0 += 1);
            }
            What::Stored { call, events } => {
                verdict.counts.stored += 1;
                let ids = calls.get(&(record.who.as_str(), *call)).copied().unwrap_or_default();
                if !events.iter().map(|told| &told.id).eq(ids) {
                    verdict.broken("a receipt names what was published", format!("{ids:?}: {events:?}"));
                }
                for told in events {
                    verdict.counts.duplicates += u64::from(told.duplicate);
                    let there = log.by_id(&told.id);
                    if there.is_none_or(|e| e.position != told.position || e.sequence != told.sequence) {
                        let detail = format!("{} was told {told:?}, the log has {there:?}", record.who);
                        verdict.broken("what was receipted is in the log", detail);
                    }
                }
            }
            What::Refused { call, code } => {
                verdict.counts.refused += 1;
                verdict.counts.fenced += u64::from(code == "fenced");
                // The id is there with other content, or with only a part of the batch.
                if code == "id-conflict" {
                    continue;
                }
                let ids = calls.get(&(record.who.as_str(), *call)).copied().unwrap_or_default();
                ids.iter().for_each(|id| named.entry(id).or_default().1 += 1);
            }
            What::Unknown { .. } => verdict.counts.unknown += 1,
            _ => {}
        }
    }
    for (id, (calls, refused)) in &named {
        if calls == refused && log.times(id) > 0 {
            verdict.broken("what was refused is not stored", format!("{id} is in the log"));
        }
    }
    for entry in &log.entries {
        // The bus's own records have ids that nobody chose here.
        if !named.contains_key(entry.id.as_str()) && !entry.kind.starts_with("daybook.") {
            verdict.broken("nothing is in the log that nobody published", entry.id.clone());
        }
    }
    in_real_time(records, verdict);
}

/// A publish that began after something was seen or finished gets a higher position.
fn in_real_time(records: &[Record], verdict: &mut Verdict) {
    let mut seen = None;
    let mut began: HashMap<(&str, u64), Option<u64>> = HashMap::new();
    for record in records {
        match &record.what {
            What::Publish { call, .. } => {
                began.insert((&record.who, *call), seen);
            }
            What::Stored { call, events } => {
                let before = began.get(&(record.who.as_str(), *call)).copied().flatten();
                for told in events {
                    if !told.duplicate && before.is_some_and(|before| told.position <= before) {
                        let detail = format!("{} at {}, begun after {before:?}", told.id, told.position);
                        verdict.broken("later publishes get higher positions", detail);
                    }
                    seen = seen.max(Some(told.position));
                }
            }
            What::Read { position, .. } | What::Delivered { position, .. } => {
                seen = seen.max(Some(*position))
            }
            _ => {}
        }
    }
}
