//! Answering reads: from memory at once, from disk on threads of their own, so
//! that a slow disk blocks nobody's socket.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, mpsc};

use daybook_model::{Event, Position, Timestamp};
use tokio::sync::oneshot;

use super::index::{KeyHead, Keys};
use super::page::{self, Source};
use super::{Inner, codec, index, written};
use crate::{Answer, Page, Query, ReadError, SubjectInfo, WrittenPage};

const THREADS: usize = 2;
/// Reads waiting for a thread; beyond that they are refused.
const WAITING: usize = 4_096;

type Job = Box<dyn FnOnce(&Inner) + Send>;

pub(super) struct Readers {
    inner: Arc<Inner>,
    jobs: mpsc::SyncSender<Job>,
}

impl Readers {
    pub fn start(inner: Arc<Inner>) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::sync_channel::<Job>(WAITING);
        let inbox = Arc::new(Mutex::new(inbox));
        for i in 0..THREADS {
            let (inner, inbox) = (inner.clone(), inbox.clone());
            std::thread::Builder::new().name(format!("reader-{i}")).spawn(move || {
                loop {
                    let job = inbox.lock().expect("no code panics while it holds this lock").recv();
                    match job {
                        Ok(job) => job(&inner),
                        // The store is gone.
                        Err(_) => return,
                    }
                }
            })?;
        }
        Ok(Self { inner, jobs })
    }

    pub fn read(&self, query: Query) -> Answer<Result<Page, ReadError>> {
        if let Some(page) = page::page(&self.inner, &query, Source::Memory) {
            return Box::pin(std::future::ready(page));
        }
        self.later(move |inner| {
            page::page(inner, &query, Source::Disk).unwrap_or_else(|| Ok(Page::default()))
        })
    }

    /// What memory answers is written when the answer is awaited.
    pub fn read_written(&self, query: Query, json: Vec<u8>) -> Answer<Result<WrittenPage, ReadError>> {
        if let Some(page) = page::page(&self.inner, &query, Source::Memory) {
            return Box::pin(async move { Ok(page?.write(json)) });
        }
        self.later(move |inner| written::page(inner, &query, json))
    }

    pub fn event_by_id(&self, id: &str) -> Answer<Result<Option<Arc<Event>>, ReadError>> {
        let lookup = self.inner.visible().index.lookup_id(id);
        if lookup.near.is_empty() && lookup.far.is_empty() {
            return Box::pin(std::future::ready(Ok(None)));
        }
        let id = id.to_owned();
        self.later(move |inner| find_by_id(inner, &id))
    }

    pub fn position_at(&self, time: Timestamp) -> Answer<Result<Position, ReadError>> {
        let near = self.inner.visible().index.position_at(time);
        match near {
            Some(position) => Box::pin(std::future::ready(Ok(Position(position)))),
            None => self.later(move |inner| position_at(inner, time)),
        }
    }

    pub fn subjects(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
    ) -> Answer<Result<Vec<SubjectInfo>, ReadError>> {
        self.later(move |inner| {
            let keys = Keys::subjects(&prefix, after.as_deref(), limit);
            let found = all_keys(inner, &keys)?;
            Ok(found.iter().take(limit).map(|(subject, head)| index::info(subject, *head)).collect())
        })
    }

    pub fn subject(&self, subject: &str) -> Answer<Result<Option<SubjectInfo>, ReadError>> {
        let lookup = self.inner.visible().index.lookup_head(subject);
        match lookup {
            Ok(head) => Box::pin(std::future::ready(Ok(Some(index::info(subject, head))))),
            Err(lookup) if lookup.far.is_empty() => Box::pin(std::future::ready(Ok(None))),
            Err(_) => {
                let subject = subject.to_owned();
                self.later(move |inner| Ok(head(inner, &subject)?.map(|head| index::info(&subject, head))))
            }
        }
    }

    fn later<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Inner) -> Result<T, ReadError> + Send + 'static,
    ) -> Answer<Result<T, ReadError>> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |inner| {
            let _ = reply.send(job(inner));
        });
        if self.jobs.try_send(job).is_err() {
            let busy = ReadError::Unavailable("too many reads are waiting for the disk".into());
            return Box::pin(std::future::ready(Err(busy)));
        }
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| Err(ReadError::Unavailable("the log is closed".into())))
        })
    }
}

pub(super) fn event(inner: &Inner, position: Position) -> Result<Arc<Event>, ReadError> {
    stored(inner, position).map(|(event, _)| Arc::new(event))
}

/// The event with what the server had filled in, from disk.
pub(super) fn stored(inner: &Inner, position: Position) -> Result<(Event, codec::Defaulted), ReadError> {
    let near = inner.visible().index.place(position.0);
    let place = match near {
        Some(place) => Some(place),
        None => {
            let view = inner.visible().index.view();
            view.places(position.0).map_err(unreadable)?.first().copied()
        }
    };
    let place = place.ok_or_else(|| ReadError::Unavailable(format!("there is no position {position}")))?;
    let body = inner.log.read(place).map_err(log_error)?;
    decode(position, &body)
}

pub(super) fn decode(position: Position, body: &[u8]) -> Result<(Event, codec::Defaulted), ReadError> {
    codec::decode(position, body).map_err(|error| no_event(position, error))
}

pub(super) fn no_event(position: Position, error: codec::NoEvent) -> ReadError {
    ReadError::Damaged(format!("position {position}: {error}"))
}

pub(super) fn log_error(error: daybook_log::Error) -> ReadError {
    match error {
        daybook_log::Error::Damaged { .. } => ReadError::Damaged(error.to_string()),
        _ => ReadError::Unavailable(error.to_string()),
    }
}

/// An index that cannot be read is no damage to the log.
pub(super) fn unreadable(error: io::Error) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

/// The event of this id, with what the server had filled in.
pub(super) fn stored_by_id(inner: &Inner, id: &str) -> Result<Option<(Event, codec::Defaulted)>, ReadError> {
    let lookup = inner.visible().index.lookup_id(id);
    if lookup.near.is_empty() && lookup.far.is_empty() {
        return Ok(None);
    }
    let far = lookup.far_positions().map_err(unreadable)?;
    for position in lookup.near.into_iter().chain(far) {
        let found = stored(inner, Position(position))?;
        // Another id may have the same hash.
        if found.0.id == id {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The key's head, wherever it is.
pub(super) fn head(inner: &Inner, subject: &str) -> Result<Option<KeyHead>, ReadError> {
    let lookup = inner.visible().index.lookup_head(subject);
    match lookup {
        Ok(head) => Ok(Some(head)),
        Err(lookup) => lookup.head(subject).map_err(unreadable),
    }
}

pub(super) fn find_by_id(inner: &Inner, id: &str) -> Result<Option<Arc<Event>>, ReadError> {
    Ok(stored_by_id(inner, id)?.map(|(event, _)| Arc::new(event)))
}

/// Times never go backwards along positions: halving finds the place.
fn position_at(inner: &Inner, time: Timestamp) -> Result<Position, ReadError> {
    let (mut low, mut high) = {
        let visible = inner.visible();
        // It may have become memory's to answer meanwhile.
        if let Some(position) = visible.index.position_at(time) {
            return Ok(Position(position));
        }
        visible.index.view().around(time)
    };
    if low == high {
        high = inner.head.borrow().0;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if event(inner, Position(middle))?.recordedtime < time {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(Position(low))
}

pub(super) fn all_keys(inner: &Inner, keys: &Keys) -> Result<BTreeMap<Arc<str>, KeyHead>, ReadError> {
    let mut found = BTreeMap::new();
    let view = {
        let visible = inner.visible();
        visible.index.keys(keys, &mut found);
        visible.index.view()
    };
    view.keys(keys, &mut found).map_err(unreadable)?;
    Ok(found)
}
