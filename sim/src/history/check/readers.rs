//! What readers, members included, saw of the log.

use std::collections::HashMap;

use super::{Logged, Record, Verdict, What};

pub(super) fn check(records: &[Record], log: &Logged, verdict: &mut Verdict) {
    let mut next: HashMap<&str, u64> = HashMap::new();
    for record in records {
        let (position, id, content) = match &record.what {
            What::Read { position, id, content } => {
                verdict.counts.read += 1;
                let expected = next.entry(&record.who).or_insert(*position);
                if position != expected {
                    let detail = format!("{} read {position}, expected {expected}", record.who);
                    verdict.broken("a follower sees every event in order", detail);
                }
                *expected = position + 1;
                (position, id, content)
            }
            What::Delivered { position, id, content, .. } | What::Rebuilt { position, id, content, .. } => {
                (position, id, content)
            }
            _ => continue,
        };
        match log.at(*position) {
            Some(entry) if entry.id == *id && entry.content == *content => {}
            entry => {
                let detail = format!("{} saw {id} at {position}, the log has {entry:?}", record.who);
                verdict.broken("a position has one content", detail);
            }
        }
    }
}
