//! The one thread that orders and writes.
//!
//! It takes everything that waits, checks it in order, writes one batch, syncs
//! once, then makes it visible and answers everybody. Verdicts are told after
//! the sync too, since they may rest on events of the same group; if the sync
//! fails they are `unknown-outcome`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daybook_log::Log;
use daybook_model::{Event, Invalid, NewEvent, Position, Sequence, Timestamp};
use std::collections::hash_map::Entry;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use tokio::sync::oneshot;

use super::codec::{self, Defaulted};
use super::gate::Cause;
use super::heads::Heads;
use super::index::{Lookup, Worker};
use super::queue::Work;
use super::room::Room;
use super::{Inner, query};
use crate::{AppendError, Batch, Fence, ReadError, Stored};

type Reply = oneshot::Sender<Result<Vec<Stored>, AppendError>>;

pub(super) struct Committer {
    inner: Arc<Inner>,
    log: Log,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    last_time: Timestamp,
    room: Room,
    indexer: Worker,
    heads: Heads,
    /// How many requests are likely to come together: those of the last group
    /// and those that came while it was written.
    expected: usize,
}

/// What one group of requests has decided so far, not yet durable.
#[derive(Default)]
struct Group {
    events: Vec<Event>,
    bodies: Vec<u8>,
    /// End of each body in `bodies`.
    ends: Vec<usize>,
    defaulted: Vec<Defaulted>,
    ids: HashMap<Box<str>, usize>,
    next_sequence: HashMap<Box<str>, u64>,
    appends: Vec<(Result<Vec<Stored>, AppendError>, Reply)>,
    barriers: Vec<oneshot::Sender<Result<Position, AppendError>>>,
}

/// Requests of one group: bounds the time between the first and its answer.
const GROUP_BYTES: usize = 8 << 20;

/// Damage to the last batch cannot be told from a torn tail until something
/// proves that it was durable. Busy writers prove it by their next batch.
const IDLE: Duration = Duration::from_millis(10);

impl Committer {
    pub fn new(
        inner: Arc<Inner>,
        log: Log,
        indexer: Worker,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> Result<Self, ReadError> {
        let near = inner.visible().index.last_time();
        let last_time = match (near, log.next().checked_sub(1)) {
            (Some(time), _) => time,
            (None, Some(last)) => query::event(&inner, Position(last))?.recordedtime,
            (None, None) => Timestamp(i64::MIN),
        };
        let room = Room::start(&log, inner.clone());
        let heads = Heads::default();
        Ok(Self { inner, log, clock, last_time, room, indexer, heads, expected: 0 })
    }

    pub fn run(mut self) {
        while let Some(mut work) = self.inner.queue.take(self.expected, self.patience()) {
            if work.is_empty() {
                self.vouch();
            }
            while !work.is_empty() {
                self.commit(&mut work);
            }
        }
        self.vouch();
    }

    /// How long the log may be idle before its last batch is vouched for.
    fn patience(&self) -> Option<Duration> {
        (!self.log.is_vouched() && self.log.poisoned().is_none()).then_some(IDLE)
    }

    /// Nobody waits for this, so its failure is nobody's answer.
    fn vouch(&mut self) {
        if self.log.poisoned().is_none()
            && let Err(error) = self.log.vouch()
        {
            self.fail(Group::default(), &error.to_string());
        }
    }

    fn commit(&mut self, work: &mut VecDeque<Work>) {
        let mut group = Group::default();
        while group.bodies.len() < GROUP_BYTES {
            match work.pop_front() {
                Some(Work::Append { batch, reply }) => {
                    let verdict = match self.log.poisoned() {
                        Some(since) => Err(AppendError::Unavailable { reason: since.to_owned() }),
                        None => self.admit(&mut group, *batch),
                    };
                    group.appends.push((verdict, reply));
                }
                Some(Work::Barrier { fences, reply }) => {
                    fences.iter().for_each(Fence::raise);
                    group.barriers.push(reply);
                }
                None => break,
            }
        }
        let result = self.write(&group);
        self.expected = group.appends.len() + work.len() + self.inner.queue.len();
        self.answer(group, result);
    }

    /// Checks one batch against the log and the group so far, and adds it.
    fn admit(&mut self, group: &mut Group, batch: Batch) -> Result<Vec<Stored>, AppendError> {
        if let Some(receipt) = self.known(group, &batch)? {
            return Ok(receipt);
        }
        if batch.fence.as_ref().is_some_and(Fence::is_raised) {
            return Err(AppendError::Fenced);
        }
        let sequences = self.sequences(group, &batch.events)?;
        // Last, and here: what is stored already keeps its receipt.
        self.inner.gate.check()?;
        let now = (self.clock)().max(self.last_time);
        self.last_time = now;
        let first = Position(self.log.next() + group.events.len() as u64);
        let size = batch.events.len() as u32;
        let correlations = self.correlations(group, &batch);
        let mut stored = Vec::with_capacity(batch.events.len());
        for (i, ((new, sequence), correlation)) in
            batch.events.into_iter().zip(sequences).zip(correlations).enumerate()
        {
            let position = Position(first.0 + i as u64);
            let defaulted = Defaulted::of(&new);
            let event = Event {
                source: new.source.unwrap_or_else(|| batch.default_source.to_string()),
                correlationid: new.correlationid.unwrap_or(correlation),
                time: new.time.unwrap_or_else(|| now.to_string()),
                id: new.id,
                kind: new.kind,
                sequence,
                causationid: new.causationid,
                sessionid: batch.session.to_string(),
                authid: batch.principal.as_ref().map(ToString::to_string),
                recordedtime: now,
                position,
                batch: (size > 1).then_some((first, size)),
                datacontenttype: new.datacontenttype,
                dataschema: new.dataschema,
                traceparent: new.traceparent,
                extensions: new.extensions,
                subject: new.subject,
                data: new.data,
            };
            stored.push(Stored {
                id: event.id.clone(),
                position,
                sequence,
                recordedtime: now,
                duplicate: false,
            });
            group.ids.insert(event.id.as_str().into(), group.events.len());
            if let (Some(subject), Some(sequence)) = (&event.subject, sequence) {
                group.next_sequence.insert(subject.as_str().into(), sequence.0 + 1);
            }
            codec::encode(&event, defaulted, &mut group.bodies);
            group.ends.push(group.bodies.len());
            group.events.push(event);
            group.defaulted.push(defaulted);
        }
        Ok(stored)
    }

    /// The old receipt, if all ids are known with the same content.
    fn known(&self, group: &Group, batch: &Batch) -> Result<Option<Vec<Stored>>, AppendError> {
        let several = batch.events.len() > 1;
        let mut seen = HashSet::new();
        if let Some(i) = batch.events.iter().position(|new| several && !seen.insert(new.id.as_str())) {
            return Err(AppendError::Invalid(Invalid::new(
                format!("events[{i}].id"),
                "occurs twice in the batch",
            )));
        }
        let mut receipt = Vec::new();
        for new in &batch.events {
            let (event, defaulted) = match group.ids.get(new.id.as_str()) {
                Some(at) => (group.events[*at].clone(), group.defaulted[*at]),
                None => match query::stored_by_id(&self.inner, &new.id).map_err(unreadable)? {
                    Some(found) => found,
                    None => continue,
                },
            };
            let (position, sequence, recordedtime) = (event.position, event.sequence, event.recordedtime);
            if !codec::as_sent(event, defaulted).same_content(new) {
                return Err(AppendError::IdConflict { id: new.id.clone() });
            }
            receipt.push(Stored { id: new.id.clone(), position, sequence, recordedtime, duplicate: true });
        }
        match receipt.first() {
            None => Ok(None),
            Some(_) if receipt.len() == batch.events.len() => Ok(Some(receipt)),
            Some(some) => Err(AppendError::PartlyKnown { id: some.id.clone() }),
        }
    }

    /// The value each event takes, or which key is in conflict.
    fn sequences(
        &mut self,
        group: &Group,
        events: &[NewEvent],
    ) -> Result<Vec<Option<Sequence>>, AppendError> {
        let mut next: HashMap<&str, u64> = HashMap::new();
        let mut sequences = Vec::with_capacity(events.len());
        for event in events {
            let Some(subject) = event.subject.as_deref() else {
                sequences.push(None);
                continue;
            };
            let next = match next.entry(subject) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(match group.next_sequence.get(subject) {
                    Some(pending) => *pending,
                    None => self.next_sequence(subject)?,
                }),
            };
            if event.sequence.is_some_and(|expected| expected.0 != *next) {
                return Err(AppendError::Conflict { subject: subject.to_owned() });
            }
            sequences.push(Some(Sequence(*next)));
            *next += 1;
        }
        Ok(sequences)
    }

    /// What each event inherits if it names no correlation itself: that of its
    /// cause, wherever that is, else the batch's own.
    fn correlations(&self, group: &Group, batch: &Batch) -> Vec<String> {
        let mut inherited: Vec<String> = Vec::with_capacity(batch.events.len());
        for (i, new) in batch.events.iter().enumerate() {
            let cause = match (&new.correlationid, &new.causationid) {
                (None, Some(cause)) => cause,
                _ => {
                    inherited.push(batch.fallback_correlation.clone());
                    continue;
                }
            };
            let in_batch = batch.events[..i].iter().position(|earlier| earlier.id == *cause);
            let correlation = match in_batch {
                Some(at) => {
                    Some(batch.events[at].correlationid.clone().unwrap_or_else(|| inherited[at].clone()))
                }
                None => match group.ids.get(cause.as_str()) {
                    Some(at) => Some(group.events[*at].correlationid.clone()),
                    None => self.correlation_in_log(cause),
                },
            };
            inherited.push(correlation.unwrap_or_else(|| batch.fallback_correlation.clone()));
        }
        inherited
    }

    fn correlation_in_log(&self, id: &str) -> Option<String> {
        query::find_by_id(&self.inner, id).ok().flatten().map(|event| event.correlationid.clone())
    }

    /// What the key's next event takes, from memory or, for a key that was not
    /// written for long, from the index on disk.
    fn next_sequence(&mut self, subject: &str) -> Result<u64, AppendError> {
        let (lookup, generation): (Lookup, u64) = {
            let visible = self.inner.visible();
            match visible.index.lookup_head(subject) {
                Ok(head) => return Ok(head.next),
                Err(lookup) if lookup.far.is_empty() => return Ok(0),
                Err(lookup) => (lookup, visible.index.generation()),
            }
        };
        if let Some(next) = self.heads.get(generation, subject) {
            return Ok(next);
        }
        let head = lookup.head(subject).map_err(|e| unreadable(ReadError::Unavailable(e.to_string())))?;
        let next = head.map_or(0, |head| head.next);
        self.heads.put(subject, next);
        Ok(next)
    }

    fn write(&mut self, group: &Group) -> Result<Vec<daybook_log::Place>, daybook_log::Error> {
        if group.events.is_empty() {
            return Ok(Vec::new());
        }
        let mut start = 0;
        let bodies: Vec<&[u8]> = group
            .ends
            .iter()
            .map(|end| {
                let body = &group.bodies[start..*end];
                start = *end;
                body
            })
            .collect();
        let places = self.log.append(bodies.into_iter())?;
        let begun = Instant::now();
        self.log.sync()?;
        let took = begun.elapsed();
        let mut stats = self.inner.stats.lock().expect("no code panics while it holds this lock");
        stats.events += group.events.len() as u64;
        stats.batches += 1;
        stats.bytes_written += group.bodies.len() as u64;
        self.inner.syncs.took(took);
        Ok(places)
    }

    fn answer(&mut self, group: Group, written: Result<Vec<daybook_log::Place>, daybook_log::Error>) {
        let places = match written {
            Ok(places) => places,
            Err(error) if self.log.poisoned().is_none() => return self.refuse(group, &error.to_string()),
            Err(error) => return self.fail(group, &error.to_string()),
        };
        if !places.is_empty() {
            let mut visible = self.inner.visible.write().expect("no code panics while it holds this lock");
            for (event, place) in group.events.into_iter().zip(places) {
                visible.index.insert(&event, place);
                visible.tail.push(Arc::new(event));
            }
            let full = visible.index.freeze();
            // Under the lock, as the indexer does when it opens it again.
            if let Some((cause, reason)) = visible.index.crowded() {
                self.inner.gate.close(cause, reason);
            }
            drop(visible);
            if full {
                self.indexer.ask();
            }
            self.inner.head.send_replace(Position(self.log.next()));
            if self.log.wants_spare() {
                self.room.ask();
            }
        }
        for (verdict, reply) in group.appends {
            let _ = reply.send(verdict);
        }
        // A failed log counts positions that nobody knows to be durable.
        let head = match self.log.poisoned() {
            Some(since) => Err(AppendError::Unavailable { reason: since.to_owned() }),
            None => Ok(Position(self.log.next())),
        };
        for reply in group.barriers {
            let _ = reply.send(head.clone());
        }
    }

    /// No room: nothing of the group was written, and the log is as it was.
    /// Whoever makes the next segment's file opens the gate again.
    fn refuse(&self, group: Group, reason: &str) {
        self.inner.gate.close(Cause::Segment, reason.to_owned());
        self.room.ask();
        let refused = || AppendError::Unavailable { reason: reason.to_owned() };
        for (_, reply) in group.appends {
            let _ = reply.send(Err(refused()));
        }
        // Everything ordered before is settled: stored, or refused for good.
        let head = *self.inner.head.borrow();
        for reply in group.barriers {
            let _ = reply.send(Ok(head));
        }
    }

    /// Nobody knows what the disk has: whatever rested on it is unknown.
    fn fail(&self, group: Group, reason: &str) {
        self.inner.gate.poison(reason);
        self.inner.queue.close_because(reason);
        for (verdict, reply) in group.appends {
            let told = match verdict {
                Err(AppendError::Unavailable { reason }) => AppendError::Unavailable { reason },
                _ => AppendError::UnknownOutcome { reason: reason.to_owned() },
            };
            let _ = reply.send(Err(told));
        }
        for reply in group.barriers {
            let _ = reply.send(Err(AppendError::UnknownOutcome { reason: reason.to_owned() }));
        }
    }
}

fn unreadable(error: ReadError) -> AppendError {
    AppendError::Unavailable { reason: error.to_string() }
}
