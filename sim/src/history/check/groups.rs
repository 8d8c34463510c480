//! One group: who got what when, and what became of it.
//!
//! Nobody sees the server's own moments, so every rule is said in what members
//! can see. A token is *lost* once one is seen that was given later, of the key, to
//! another session or for the same or an earlier event: whoever begins to act
//! under it from then on must fail. With a window, a session has several events
//! of a key, none of them lost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::{Excluded, Unbounded};

use super::{Logged, Record, Verdict, What};
use crate::history::{Entry, GroupSpec, Key, Runs, Token};

pub(super) fn check(
    records: &[Record],
    log: &Logged,
    group: &GroupSpec,
    settled: bool,
    verdict: &mut Verdict,
) {
    let mut run = Run::new(log, group, Runs::noted(records));
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
    runs: Runs,
    /// The event of the same key that must be settled first.
    before: HashMap<u64, u64>,
    /// What was given of each key, as far as anybody saw.
    given_of: HashMap<Key<'a>, BTreeMap<Token, Given>>,
    given: HashMap<Token, Given>,
    /// The last that was given of each event.
    last_given: HashMap<u64, Token>,
    /// Given while its session had an earlier one of the key.
    in_window: HashSet<Token>,
    /// How many events of one key each process takes at once.
    windows: HashMap<&'a str, u64>,
    /// Begun to be settled by whoever had the say, and not given again since.
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

#[derive(Clone, Copy)]
struct Given {
    position: u64,
    attempt: u32,
}

impl<'a> Run<'a> {
    fn new(log: &'a Logged, group: &'a GroupSpec, runs: Runs) -> Self {
        Self {
            log,
            group,
            runs,
            before: group.predecessors(log),
            given_of: HashMap::new(),
            given: HashMap::new(),
            last_given: HashMap::new(),
            in_window: HashSet::new(),
            windows: HashMap::new(),
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
            What::Joining { group, window } if group == self.group.name => {
                self.windows.insert(who, *window);
                return;
            }
            What::Publish { call, token: Some(token), .. } => {
                if self.runs.token(token).is_some_and(|token| self.is_lost(token)) {
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
        let Some(token) = self.runs.token(token) else {
            return verdict.broken("a token is of a run of the server", format!("{group}: {token}"));
        };
        match &record.what {
            What::Delivered { position, attempt, .. } => {
                if *attempt == 0 || *attempt > self.group.max_attempts {
                    let detail = format!("{group}: {position} came to {who} for the {attempt}. time");
                    verdict.broken("no more attempts than allowed", detail);
                }
                self.delivered(who, token, Given { position: *position, attempt: *attempt }, verdict);
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
                if let Some(previous) = self.before.get(position) {
                    verdict.counts.acked_in_window += u64::from(self.in_window.contains(&token));
                    if !self.settled.contains(previous) {
                        let detail = format!("{group}: {position} for {who}, and {previous} was not settled");
                        verdict.broken("an ack is answered once all before it is settled", detail);
                    }
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

    fn delivered(&mut self, who: &str, token: Token, given: Given, verdict: &mut Verdict) {
        verdict.counts.delivered += 1;
        let (name, position) = (self.group.name, given.position);
        let Some(entry) = self.log.at(position) else { return };
        let key = self.group.key(entry);
        if !self.group.wants(entry) {
            verdict
                .broken("a group gets only what it wants", format!("{name}: {} at {position}", entry.kind));
        }
        if self.given.insert(token, given).is_some() {
            verdict.broken("a token is given once", format!("{name}: {token:?} at {position}"));
        }
        if self.durable.get(&position).is_some_and(|acked| *acked < token) {
            let detail = format!("{name}: {position} was given to {who} again after its ack was answered");
            verdict.broken("an answered ack is for ever", detail);
        }
        let last = self.last_given.entry(position).or_insert(token);
        if *last != token {
            verdict.counts.again += 1;
        }
        // Given again: what was done to settle it has not settled it.
        if *last < token {
            *last = token;
            self.settled.remove(&position);
        }
        // One that hung in the network is older than what was seen of the key since.
        let of_key = self.given_of.entry(key).or_default();
        of_key.insert(token, given);
        if of_key.last_key_value().is_some_and(|(last, _)| *last == token) {
            self.waits_its_turn(who, token, given, verdict);
        }
    }

    /// All before it in its key is settled, or with the same session and its window.
    fn waits_its_turn(&mut self, who: &str, token: Token, given: Given, verdict: &mut Verdict) {
        let (name, position) = (self.group.name, given.position);
        let window = self.windows.get(who).copied().unwrap_or(1);
        let (mut at, mut of_key) = (position, 1);
        while let Some(previous) = self.before.get(&at).copied().filter(|p| !self.settled.contains(p)) {
            at = previous;
            of_key += 1;
            if window == 1 || !self.is_behind(token, previous) {
                let detail = format!("{name}: {who} got {position}, and {previous} was not settled");
                return verdict.broken("the next event waits until this one is settled", detail);
            }
            let attempt = |token| self.given.get(token).map_or(1, |given| given.attempt);
            if given.attempt > 1 || self.last_given.get(&previous).is_some_and(|last| attempt(last) > 1) {
                let detail = format!("{name}: {who} got {position} while it had {previous}");
                verdict.broken("what has failed comes alone", detail);
            }
        }
        if of_key > 1 {
            verdict.counts.in_window += 1;
            self.in_window.insert(token);
        }
        if of_key > window {
            let detail = format!("{name}: {who} has {of_key} events of the key of {position}, not {window}");
            verdict.broken("no more of a key than the window", detail);
        }
    }

    /// The session that has this token was the last to get `previous`, before it.
    fn is_behind(&self, token: Token, previous: u64) -> bool {
        self.last_given.get(&previous).is_some_and(|last| *last < token && last.same_session(token))
    }

    /// Somebody has seen a later delivery of the key, to another session or of
    /// an event that is not behind this one.
    fn is_lost(&self, token: Token) -> bool {
        let Some(given) = self.given.get(&token) else { return false };
        let Some(entry) = self.log.at(given.position) else { return false };
        let Some(of_key) = self.given_of.get(&self.group.key(entry)) else { return false };
        let mut later = of_key.range((Excluded(token), Unbounded));
        later.any(|(other, later)| !other.same_session(token) || later.position <= given.position)
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
