//! One group: who got what when, and what became of it.
//!
//! Nobody sees the server's own moments, so every rule is said in what members
//! can see. A token *rules* its key until a token that was given later is seen:
//! whoever begins to act under the older one from then on must fail.

use std::collections::{HashMap, HashSet};

use super::{Logged, Record, Verdict, What};
use crate::history::{Entry, GroupSpec, Key, Token};

pub(super) fn check(
    records: &[Record],
    log: &Logged,
    group: &GroupSpec,
    settled: bool,
    verdict: &mut Verdict,
) {
    let mut run = Run::new(log, group);
    for record in records {
        run.take(record, verdict);
    }
    effects_in_order(log, group, verdict);
    if settled {
        for entry in log.entries.iter().filter(|entry| group.wants(entry)) {
            if !run.settled.contains(&entry.position) {
                let detail = format!("{}: {} at {} was never settled", group.name, entry.id, entry.position);
                verdict.broken("every event is settled in the end", detail);
            }
        }
    }
}

struct Run<'a> {
    log: &'a Logged,
    group: &'a GroupSpec,
    /// The event of the same key that must be settled first.
    before: HashMap<u64, u64>,
    /// Key → the last token that was given for it, as far as anybody saw.
    ruling: HashMap<Key<'a>, Token>,
    /// Token → position.
    given: HashMap<Token, u64>,
    seen: HashSet<u64>,
    /// Begun to be settled by whoever had the say.
    settled: HashSet<u64>,
    /// An ack was answered: it will survive everything.
    durable: HashMap<u64, Token>,
    /// Tokens acked while they ruled: acking them again is fine.
    acked: HashSet<Token>,
    /// Publishes that began under a token that had lost its key.
    fenced: HashSet<(&'a str, u64)>,
    /// Acks that began so.
    late: HashSet<(&'a str, Token)>,
}

impl<'a> Run<'a> {
    fn new(log: &'a Logged, group: &'a GroupSpec) -> Self {
        let (mut last, mut before) = (HashMap::new(), HashMap::new());
        for entry in log.entries.iter().filter(|entry| group.wants(entry)) {
            if let Some(previous) = last.insert(group.key(entry), entry.position) {
                before.insert(entry.position, previous);
            }
        }
        Self {
            log,
            group,
            before,
            ruling: HashMap::new(),
            given: HashMap::new(),
            seen: HashSet::new(),
            settled: HashSet::new(),
            durable: HashMap::new(),
            acked: HashSet::new(),
            fenced: HashSet::new(),
            late: HashSet::new(),
        }
    }

    fn take(&mut self, record: &'a Record, verdict: &mut Verdict) {
        let who = record.who.as_str();
        let (group, token) = match &record.what {
            What::Delivered { group, token, .. }
            | What::Ack { group, token, .. }
            | What::Acked { group, token, .. }
            | What::Skip { group, token, .. }
            | What::GivenBack { group, token, .. } => (group.as_str(), token),
            What::Publish { call, token: Some(token), .. } => {
                if Token::parse(token).is_some_and(|token| self.is_lost(token)) {
                    self.fenced.insert((who, *call));
                }
                return;
            }
            What::Stored { call, events } => {
                if self.fenced.contains(&(who, *call))
                    && let Some(new) = events.iter().find(|told| !told.duplicate)
                {
                    let detail =
                        format!("{}: {who} stored {} under a claim that was lost", self.group.name, new.id);
                    verdict.broken("a lost claim cannot publish", detail);
                }
                return;
            }
            _ => return,
        };
        if group != self.group.name {
            return;
        }
        let Some(token) = Token::parse(token) else {
            return verdict.broken("a token is four numbers", format!("{group}: {token}"));
        };
        match &record.what {
            What::Delivered { position, attempt, .. } => {
                if *attempt == 0 || *attempt > self.group.max_attempts {
                    let detail = format!("{group}: {position} came to {who} for the {attempt}. time");
                    verdict.broken("no more attempts than allowed", detail);
                }
                self.delivered(who, token, *position, verdict);
            }
            What::Ack { position, .. } if !self.is_lost(token) => {
                self.settled.insert(*position);
                self.acked.insert(token);
            }
            What::Ack { .. } if !self.acked.contains(&token) => {
                verdict.counts.late_acks += 1;
                self.late.insert((who, token));
            }
            What::Acked { position, .. } => {
                verdict.counts.acked += 1;
                if self.late.contains(&(who, token)) {
                    let detail =
                        format!("{group}: {who} settled {position} under {token:?}, a claim that was lost");
                    verdict.broken("a stale ack settles nothing", detail);
                }
                self.durable.insert(*position, token);
            }
            What::Skip { position, .. } => {
                verdict.counts.skipped += 1;
                if !self.is_lost(token) {
                    self.settled.insert(*position);
                }
            }
            What::GivenBack { .. } => verdict.counts.given_back += 1,
            _ => {}
        }
    }

    fn delivered(&mut self, who: &str, token: Token, position: u64, verdict: &mut Verdict) {
        verdict.counts.delivered += 1;
        let name = self.group.name;
        let Some(entry) = self.log.at(position) else { return };
        if !self.group.wants(entry) {
            verdict
                .broken("a group gets only what it wants", format!("{name}: {} at {position}", entry.kind));
        }
        if !self.seen.insert(position) {
            verdict.counts.again += 1;
        }
        if self.given.insert(token, position).is_some() {
            verdict.broken("a token is given once", format!("{name}: {token:?} at {position}"));
        }
        if self.durable.get(&position).is_some_and(|acked| *acked < token) {
            let detail = format!("{name}: {position} was given to {who} again after its ack was answered");
            verdict.broken("an answered ack is for ever", detail);
        }
        if let Some(previous) = self.before.get(&position).filter(|p| !self.settled.contains(p)) {
            let detail = format!(
                "{name}: {who} got {position} of {:?}, and {previous} was not settled",
                self.group.key(entry)
            );
            verdict.broken("the next event waits until this one is settled", detail);
        }
        let ruling = self.ruling.entry(self.group.key(entry)).or_insert(token);
        *ruling = token.max(*ruling);
    }

    /// Somebody has seen a delivery of the key that was given later.
    fn is_lost(&self, token: Token) -> bool {
        let Some(entry) = self.given.get(&token).and_then(|position| self.log.at(*position)) else {
            return false;
        };
        self.ruling.get(&self.group.key(entry)).is_some_and(|ruling| *ruling > token)
    }
}

/// What handlers published stands in the log in the order of its causes.
fn effects_in_order(log: &Logged, group: &GroupSpec, verdict: &mut Verdict) {
    let mut last: HashMap<Key<'_>, &Entry> = HashMap::new();
    for effect in log.entries.iter().filter(|entry| entry.kind == group.effects) {
        let Some(cause) = effect.cause.as_deref().and_then(|id| log.by_id(id)) else {
            verdict.broken("an effect has its cause", format!("{}: {}", group.name, effect.id));
            continue;
        };
        if cause.position >= effect.position {
            verdict.broken("an effect has its cause", format!("{}: {} came first", group.name, effect.id));
        }
        if let Some(previous) =
            last.insert(group.key(cause), cause).filter(|previous| previous.position > cause.position)
        {
            let detail = format!(
                "{}: the effect of {} stands behind that of {}",
                group.name, cause.position, previous.position
            );
            verdict.broken("effects of a key stand in the order of its events", detail);
        }
    }
}
