//! Who gets which place: checks in the order id → fence → sequence, positions,
//! sequence values, correlations, and the record of each event.
//!
//! # Promises
//! 1. Nothing here waits for a disk. What memory cannot tell is looked up
//!    elsewhere, while others get their places; a session's own order is kept.
//! 2. A verdict knows whether it rests on events that are not durable yet.
//!
//! # Not here
//! Writing, and what becomes of a verdict when that fails: `committer.rs`, `group.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use daybook_log::Draft;
use daybook_model::{Event, Invalid, NewEvents, Position, Sequence, Timestamp};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use super::Inner;
use super::codec;
use super::contest::Contest;
use super::group::{Group, Rests, Verdict};
use super::heads::Heads;
use super::index::{Hasher, Kind};
use super::lanes::{Lanes, Next};
use super::lookup::{Facts, Known, Lookups};
use super::placed::{Given, Ids, Placed};
use super::queue::{Append, Work};
use crate::planted::{Bug, has};
use crate::{AppendError, Batch, Fence, Stored};

pub(super) struct Sequencer {
    inner: Arc<Inner>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    last_time: Timestamp,
    /// Position that the next event gets.
    next: u64,
    heads: Heads,
    /// Ids of the group in the making, and of those being written: until they are visible.
    ids: Ids,
    flights: VecDeque<(u64, Ids)>,
    lanes: Lanes,
    hasher: Hasher,
    /// Requests of the last group, who are being answered.
    pub answered: usize,
    contest: Contest,
    poisoned: Option<String>,
}

/// Why a batch gets no place now.
enum No {
    Refused(AppendError),
    /// Memory cannot tell.
    Cold,
}

impl From<AppendError> for No {
    fn from(error: AppendError) -> Self {
        Self::Refused(error)
    }
}

impl Sequencer {
    pub fn new(
        inner: Arc<Inner>,
        lookups: Lookups,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        last_time: Timestamp,
        next: u64,
    ) -> Self {
        let hasher = inner.visible().index.hasher();
        Self {
            hasher,
            inner,
            clock,
            last_time,
            next,
            heads: Heads::default(),
            ids: Ids::default(),
            flights: VecDeque::new(),
            lanes: Lanes::new(lookups),
            answered: 0,
            contest: Contest::default(),
            poisoned: None,
        }
    }

    pub fn group(&self, draft: Draft) -> Group {
        Group::new(self.next, draft)
    }

    /// The group is complete; its ids stay known until they are visible.
    pub fn complete(&mut self, group: &Group) {
        let late = group.verdicts.iter().filter(|verdict| verdict.is_conflict()).count();
        self.contest.note(group.requests(), late);
        self.answered = group.requests();
        if group.events > 0 {
            let next = Ids::with_capacity(group.events);
            self.flights.push_back((group.next(), std::mem::replace(&mut self.ids, next)));
        }
    }

    /// Whether most of those who come want a place that somebody else gets.
    pub fn is_contested(&self) -> bool {
        self.contest.is_on()
    }

    /// The last group was refused: what was given since is void. Everything
    /// else given before is visible.
    pub fn go_back(&mut self, next: u64) {
        self.next = next;
        if has(Bug::PlacesKept) {
            return;
        }
        self.heads.clear();
        self.ids = Ids::default();
        self.flights.clear();
    }

    /// From now on everything is refused.
    pub fn poison(&mut self, reason: &str) {
        self.poisoned.get_or_insert_with(|| reason.to_owned());
    }

    pub fn take(&mut self, work: Work, group: &mut Group) {
        match work {
            Work::Append(append) if self.lanes.holds(&append.batch.session) => self.lanes.hold(append),
            Work::Append(append) => {
                if let Some(cold) = self.place(append, group) {
                    self.lanes.hold(cold);
                }
            }
            Work::Barrier { fences, share } => {
                let free = self.lanes.barrier(fences, &share);
                free.iter().for_each(Fence::raise);
                group.barriers.push(share);
            }
            Work::Returned(returned) => {
                let session = returned.append.batch.session.clone();
                self.lanes.returned(returned);
                while let Some(next) = self.lanes.next(&session) {
                    match next {
                        Next::Append(append) => {
                            if let Some(cold) = self.place(append, group) {
                                self.lanes.hold_again(cold);
                                return;
                            }
                        }
                        Next::Barrier { fences, share } => {
                            fences.iter().for_each(Fence::raise);
                            group.barriers.push(share);
                        }
                    }
                }
            }
        }
    }

    /// Gives the batch its place or its refusal; gives it back if that cannot
    /// be told without the disk.
    fn place(&mut self, append: Append, group: &mut Group) -> Option<Append> {
        let mut rests = Rests::default();
        let mut given = Given::nothing(&append.batch.events, self.hasher);
        let answer = match self.check(&append, &mut given, group, &mut rests) {
            Err(No::Cold) => return Some(append),
            Err(No::Refused(error)) => Err(error),
            Ok(Some(receipt)) => Ok(receipt),
            Ok(None) => {
                rests.on_group = true;
                Ok(self.add(group, *append.batch, given))
            }
        };
        group.weight += append.weight;
        group.verdicts.push(Verdict { answer, rests, reply: append.reply, begun: append.begun });
        None
    }

    /// Tells the old receipt of what is stored already; what is new is `given`
    /// sequence values and correlations.
    fn check(
        &self,
        append: &Append,
        given: &mut Vec<Given>,
        group: &Group,
        rests: &mut Rests,
    ) -> Result<Option<Vec<Stored>>, No> {
        let (batch, facts) = (&*append.batch, &append.facts);
        if let Some(since) = &self.poisoned {
            return Err(AppendError::Unavailable { reason: since.clone() }.into());
        }
        if let Some(failed) = &facts.failed {
            return Err(failed.clone().into());
        }
        if let Some(receipt) = self.known(group, batch, given, facts, rests)? {
            return Ok(Some(receipt));
        }
        if batch.fence.as_ref().is_some_and(Fence::is_raised) && !has(Bug::FenceIgnored) {
            return Err(AppendError::Fenced.into());
        }
        self.give_sequences(given, group, &batch.events, facts, rests)?;
        self.give_correlations(given, group, &batch.events, facts, rests)?;
        // Last, and here: what is stored already keeps its receipt.
        self.inner.gate.check()?;
        Ok(None)
    }

    fn add(&mut self, group: &mut Group, batch: Batch, given: Vec<Given>) -> Vec<Stored> {
        let now = if has(Bug::ClockBelieved) { (self.clock)() } else { (self.clock)().max(self.last_time) };
        self.last_time = now;
        let visible = self.visible();
        let placed = Placed::new(batch, (Position(self.next), now), self.hasher, given);
        let mut stored = Vec::with_capacity(placed.len());
        for at in 0..placed.len() {
            let event = placed.stamped(at);
            stored.push(Stored {
                id: event.new.id.to_owned(),
                position: event.position,
                sequence: event.sequence,
                recordedtime: now,
                duplicate: false,
            });
            group.draft.record(|out| event.encode(out));
        }
        placed.heads().for_each(|(subject, head)| self.heads.put(subject, head, visible));
        self.next += placed.len() as u64;
        group.events += placed.len();
        let placed = Arc::new(placed);
        self.ids.insert(&placed);
        group.placed.push(placed);
        stored
    }

    /// The old receipt, if all ids are known with the same content.
    fn known(
        &self,
        group: &Group,
        batch: &Batch,
        given: &[Given],
        facts: &Facts,
        rests: &mut Rests,
    ) -> Result<Option<Vec<Stored>>, No> {
        if let Some(i) = repeated(&batch.events, given) {
            let invalid = Invalid::new(format!("events[{i}].id"), "occurs twice in the batch");
            return Err(AppendError::Invalid(invalid).into());
        }
        if self.all_new(given) {
            return Ok(None);
        }
        let mut receipt = Vec::new();
        for (new, given) in batch.events.iter().zip(given) {
            let Some((event, defaulted)) = self.find(group, (new.id, given.id.hash), facts, rests)? else {
                continue;
            };
            if !codec::as_sent(Event::clone(&event), defaulted).lend().same_content(&new) {
                return Err(AppendError::IdConflict { id: new.id.to_owned() }.into());
            }
            receipt.push(Stored {
                id: new.id.to_owned(),
                position: event.position,
                sequence: event.sequence,
                recordedtime: event.recordedtime,
                duplicate: true,
            });
        }
        match receipt.first() {
            None => Ok(None),
            Some(_) if receipt.len() == batch.events.len() => Ok(Some(receipt)),
            Some(some) => Err(AppendError::PartlyKnown { id: some.id.clone() }.into()),
        }
    }

    /// Whether memory alone tells that nobody has seen any of them: nearly always.
    fn all_new(&self, given: &[Given]) -> bool {
        let visible = self.inner.visible();
        let may_hold =
            |hash| self.ids.may_hold(hash) || self.flights.iter().any(|(_, ids)| ids.may_hold(hash));
        given.iter().all(|Given { id, .. }| !may_hold(id.hash) && visible.index.is_new(*id))
    }

    /// The event of this id, given with its hash, if it has a place.
    fn find(
        &self,
        group: &Group,
        (id, hash): (&str, u64),
        facts: &Facts,
        rests: &mut Rests,
    ) -> Result<Option<Known>, No> {
        let pending = || self.flights.iter().find_map(|(_, ids)| ids.get(id, hash));
        let pending = || pending().filter(|_| !has(Bug::FlightForgotten));
        if let Some(known) = self.ids.get(id, hash).or_else(pending) {
            self.rest_on(known.0.position, group, rests);
            return Ok(Some(known));
        }
        let visible = self.inner.visible();
        let asked = facts.id(id, visible.index.remembered_from());
        if let Some(Some(known)) = asked {
            return Ok(Some(known.clone()));
        }
        let lookup = visible.index.lookup_id(id);
        for position in lookup.near {
            match visible.tail.get(Position(position)).map(|recent| recent.stored().clone()) {
                Some(known) if known.0.id == id => return Ok(Some(known)),
                // Another id has the same hash.
                Some(_) => {}
                None if asked.is_some() && position < facts.upto() => {}
                None => return Err(No::Cold),
            }
        }
        let surely_new = lookup.far.is_empty() || asked.is_some() || has(Bug::IdOnlyInMemory);
        if surely_new { Ok(None) } else { Err(No::Cold) }
    }

    /// The value each event takes, or which key is in conflict.
    fn give_sequences(
        &self,
        given: &mut Vec<Given>,
        group: &Group,
        events: &NewEvents,
        facts: &Facts,
        rests: &mut Rests,
    ) -> Result<(), No> {
        // A key and what its next event takes. Neighbours mostly share theirs.
        let mut key: Option<(&str, u64)> = None;
        let mut others: HashMap<&str, u64> = HashMap::new();
        for at in 0..events.len() {
            let event = events.get(at);
            let Some(subject) = event.subject else { continue };
            let next = match key {
                Some((known, next)) if known == subject => next,
                before => {
                    others.extend(before);
                    match others.get(subject) {
                        Some(next) => *next,
                        None => self.next_sequence(group, subject, facts, rests)?,
                    }
                }
            };
            if event.sequence.is_some_and(|expected| expected.0 != next) {
                if has(Bug::HalfBatchStored) && at > 0 {
                    given.truncate(at);
                    break;
                }
                return Err(AppendError::Conflict { subject: subject.to_owned() }.into());
            }
            given[at].sequence = Some(Sequence(next));
            key = Some((subject, next + 1));
        }
        Ok(())
    }

    /// What the key's next event takes.
    fn next_sequence(
        &self,
        group: &Group,
        subject: &str,
        facts: &Facts,
        rests: &mut Rests,
    ) -> Result<u64, No> {
        if let Some(head) = self.heads.get(subject) {
            self.rest_on(head.last, group, rests);
            return Ok(head.next);
        }
        let visible = self.inner.visible();
        match visible.index.lookup_head(subject) {
            Ok(head) => Ok(head.next),
            Err(lookup) if lookup.far.is_empty() || has(Bug::KeyOnlyInMemory) => Ok(0),
            Err(_) => match facts.head(subject, visible.index.remembered_from()) {
                Some(head) => Ok(head.map_or(0, |(next, _)| next)),
                None => Err(No::Cold),
            },
        }
    }

    /// What each event inherits if it names no correlation itself: that of its
    /// cause, wherever that is; nothing: the batch's own.
    fn give_correlations(
        &self,
        given: &mut [Given],
        group: &Group,
        events: &NewEvents,
        facts: &Facts,
        rests: &mut Rests,
    ) -> Result<(), No> {
        for at in 0..given.len() {
            let new = events.get(at);
            let (None, Some(cause)) = (new.correlationid, new.causationid) else { continue };
            let in_batch = events.iter().take(at).position(|earlier| earlier.id == cause);
            given[at].correlation = match in_batch {
                Some(earlier) => {
                    let named = events.get(earlier).correlationid.map(str::to_owned);
                    named.or_else(|| given[earlier].correlation.clone())
                }
                None => {
                    let id = (cause, self.hasher.hash(Kind::Id, cause));
                    let found = self.find(group, id, facts, rests)?;
                    found.map(|(event, _)| event.correlationid.clone())
                }
            };
        }
        Ok(())
    }

    fn rest_on(&self, position: Position, group: &Group, rests: &mut Rests) {
        rests.on_group |= position.0 >= group.first;
        rests.on_flight |= position.0 < group.first && position.0 >= self.visible();
    }

    fn visible(&self) -> u64 {
        self.inner.head.borrow().0
    }

    /// Forgets what has become visible.
    pub fn land(&mut self) {
        let visible = self.visible();
        while self.flights.front().is_some_and(|(end, _)| *end <= visible) {
            self.flights.pop_front();
        }
    }
}

/// The first event whose id an earlier one has.
fn repeated(events: &NewEvents, given: &[Given]) -> Option<usize> {
    // Ids are mostly made in their order: then none comes again.
    if (1..given.len()).all(|i| events.get(i - 1).id < events.get(i).id) {
        return None;
    }
    let mut seen = HashSet::with_capacity(given.len());
    let mut again = given.iter().enumerate().filter(|(_, given)| !seen.insert(given.id.hash));
    again.find_map(|(i, _)| events.iter().take(i).any(|earlier| earlier.id == events.get(i).id).then_some(i))
}
