//! A store in RAM: for tests, and the model that other stores are held against.
//! Written to be obviously right rather than fast; nothing survives it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use daybook_model::{Event, Invalid, NewEvent, Position, Sequence, Timestamp};
use tokio::sync::watch;

use crate::{
    Answer, AppendError, Batch, CheckpointError, EventStore, Fence, Health, Page, Query, ReadError, Reply,
    Stats, Stored, SubjectInfo,
};

/// Every operation looks at all events.
pub struct MemoryStore {
    state: Mutex<State>,
    head: watch::Sender<Position>,
    health: watch::Sender<Health>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// A mistake on purpose: its time goes back when the clock does.
    believes: bool,
}

#[derive(Default)]
struct State {
    events: Vec<(Arc<Event>, NewEvent)>,
    checkpoints: HashMap<String, Vec<u8>>,
    closed: bool,
    batches: u64,
}

impl MemoryStore {
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            state: Mutex::default(),
            head: watch::Sender::new(Position::ZERO),
            health: watch::Sender::new(Health::Ok),
            clock: Arc::new(clock),
            believes: false,
        }
    }

    /// Makes the mistake to take every time of the clock for later than those before.
    #[cfg(feature = "planted")]
    pub fn believing_the_clock(self) -> Self {
        Self { believes: true, ..self }
    }

    /// A copy with the events before `head` and all checkpoints: what a crash
    /// leaves if no more had reached the disk.
    pub fn up_to(&self, head: Position) -> Self {
        let state = self.lock();
        let kept = state.events.len().min(usize::try_from(head.0).unwrap_or(usize::MAX));
        let copy = State {
            events: state.events[..kept].to_vec(),
            checkpoints: state.checkpoints.clone(),
            ..State::default()
        };
        Self {
            state: Mutex::new(copy),
            head: watch::Sender::new(Position(kept as u64)),
            health: watch::Sender::new(Health::Ok),
            clock: self.clock.clone(),
            believes: self.believes,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

impl State {
    fn by_id(&self, id: &str) -> Option<&(Arc<Event>, NewEvent)> {
        self.events.iter().find(|(event, _)| event.id == id)
    }

    fn append(&mut self, batch: Batch, now: Timestamp, believed: bool) -> Result<Vec<Stored>, AppendError> {
        if self.closed {
            return Err(AppendError::Unavailable { reason: "the store is closed".into() });
        }
        let events = batch.events.into_vec();
        for (i, new) in events.iter().enumerate() {
            if events[..i].iter().any(|earlier| earlier.id == new.id) {
                return Err(AppendError::Invalid(Invalid::new(
                    format!("events[{i}].id"),
                    "occurs twice in the batch",
                )));
            }
        }
        let known: Vec<_> = events.iter().filter_map(|new| Some((new, self.by_id(&new.id)?))).collect();
        if let Some((new, _)) = known.iter().find(|(new, (_, sent))| !new.lend().same_content(&sent.lend())) {
            return Err(AppendError::IdConflict { id: new.id.clone() });
        }
        if known.len() == events.len() {
            return Ok(known.iter().map(|(_, (event, _))| receipt(event, true)).collect());
        }
        if let Some((new, _)) = known.first() {
            return Err(AppendError::PartlyKnown { id: new.id.clone() });
        }
        if batch.fence.as_ref().is_some_and(Fence::is_raised) {
            return Err(AppendError::Fenced);
        }
        let before = self.events.len();
        let last = self.events.last().map(|(last, _)| last.recordedtime).filter(|_| !believed);
        let now = last.map_or(now, |last| last.max(now));
        let first = Position(before as u64);
        let size = events.len() as u32;
        for new in events {
            let sequence = new.subject.as_ref().map(|subject| {
                Sequence(
                    self.events.iter().filter(|(e, _)| e.subject.as_ref() == Some(subject)).count() as u64
                )
            });
            if new.sequence.is_some() && new.sequence != sequence {
                self.events.truncate(before);
                return Err(AppendError::Conflict { subject: new.subject.unwrap_or_default() });
            }
            let cause = new.causationid.as_ref().and_then(|id| self.by_id(id));
            let inherited =
                cause.map_or(&batch.fallback_correlation, |(event, _)| &event.correlationid).clone();
            let sent = new.clone();
            let event = Event {
                id: new.id,
                source: new.source.unwrap_or_else(|| batch.default_source.to_string()),
                kind: new.kind,
                subject: new.subject,
                sequence,
                correlationid: new.correlationid.unwrap_or(inherited),
                causationid: new.causationid,
                sessionid: batch.session.to_string(),
                authid: batch.principal.as_ref().map(ToString::to_string),
                time: new.time.unwrap_or_else(|| now.to_string()),
                recordedtime: now,
                position: Position(self.events.len() as u64),
                batch: (size > 1).then_some((first, size)),
                datacontenttype: new.datacontenttype,
                dataschema: new.dataschema,
                traceparent: new.traceparent,
                extensions: new.extensions,
                data: new.data,
            };
            self.events.push((Arc::new(event), sent));
        }
        self.batches += 1;
        Ok(self.events[before..].iter().map(|(event, _)| receipt(event, false)).collect())
    }

    fn read(&self, query: &Query) -> Page {
        let head = self.events.len() as u64;
        let until = query.until.map_or(head, |until| until.0.min(head));
        let range: Vec<u64> = if query.reverse {
            (query.from.0..until).rev().collect()
        } else {
            (query.from.0..until).collect()
        };
        let mut page = Page::default();
        let mut bytes = 0;
        for position in range {
            let (event, _) = &self.events[position as usize];
            if !query.filter.matches(event) {
                continue;
            }
            let full = page.events.len() >= query.max_events || bytes + event.weight() > query.max_bytes;
            if full && !(page.events.is_empty() && query.max_events > 0) {
                page.next = Some(Position(if query.reverse { position + 1 } else { position }));
                break;
            }
            bytes += event.weight();
            page.events.push(event.clone());
        }
        page
    }

    fn subjects(&self) -> Vec<SubjectInfo> {
        let mut all: std::collections::BTreeMap<&str, (u64, Position)> = std::collections::BTreeMap::new();
        for (event, _) in &self.events {
            if let Some(subject) = &event.subject {
                let entry = all.entry(subject).or_default();
                *entry = (entry.0 + 1, event.position);
            }
        }
        let info =
            |(subject, (events, last)): (&str, _)| SubjectInfo { subject: subject.to_owned(), events, last };
        all.into_iter().map(info).collect()
    }
}

fn receipt(event: &Event, duplicate: bool) -> Stored {
    Stored {
        id: event.id.clone(),
        position: event.position,
        sequence: event.sequence,
        recordedtime: event.recordedtime,
        duplicate,
    }
}

fn now<T: Send + 'static>(value: T) -> Answer<T> {
    Box::pin(std::future::ready(value))
}

impl EventStore for MemoryStore {
    fn submit(&self, batch: Batch, reply: Reply) {
        let outcome = {
            let mut state = self.lock();
            let outcome = state.append(batch, (self.clock)(), self.believes);
            self.head.send_replace(Position(state.events.len() as u64));
            outcome
        };
        reply.tell(outcome);
    }

    fn barrier(&self, fences: Vec<Fence>) -> Answer<Result<Position, AppendError>> {
        fences.iter().for_each(Fence::raise);
        now(Ok(*self.head.borrow()))
    }

    fn read(&self, query: Query) -> Answer<Result<Page, ReadError>> {
        now(Ok(self.lock().read(&query)))
    }

    fn event_by_id(&self, id: &str) -> Answer<Result<Option<Arc<Event>>, ReadError>> {
        now(Ok(self.lock().by_id(id).map(|(event, _)| event.clone())))
    }

    fn position_at(&self, time: Timestamp) -> Answer<Result<Position, ReadError>> {
        let state = self.lock();
        let found = state.events.iter().find(|(event, _)| event.recordedtime >= time);
        now(Ok(found.map_or(Position(state.events.len() as u64), |(event, _)| event.position)))
    }

    fn subjects(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Answer<Result<Vec<SubjectInfo>, ReadError>> {
        let all = self.lock().subjects().into_iter();
        let wanted = |s: &SubjectInfo| {
            s.subject.starts_with(prefix) && after.is_none_or(|after| s.subject.as_str() > after)
        };
        now(Ok(all.filter(wanted).take(limit).collect()))
    }

    fn subject(&self, subject: &str) -> Answer<Result<Option<SubjectInfo>, ReadError>> {
        now(Ok(self.lock().subjects().into_iter().find(|s| s.subject == subject)))
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    fn save_checkpoint(&self, group: &str, bytes: Vec<u8>) -> Answer<Result<(), CheckpointError>> {
        self.lock().checkpoints.insert(group.to_owned(), bytes);
        now(Ok(()))
    }

    fn checkpoints(&self) -> Answer<Result<Vec<(String, Vec<u8>)>, CheckpointError>> {
        now(Ok(self.lock().checkpoints.clone().into_iter().collect()))
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn stats(&self) -> Stats {
        let state = self.lock();
        Stats { events: state.events.len() as u64, batches: state.batches, ..Stats::default() }
    }

    fn close(&self) -> Answer<()> {
        self.lock().closed = true;
        now(())
    }
}
