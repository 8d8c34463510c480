//! What memory cannot tell of a batch's ids, causes and keys, found out on
//! threads that may wait for the disk, so that the committers never do.
//!
//! # Promises
//! 1. [`Facts`] are true of every position below their `upto`, for ever: the
//!    sequencer adds what is younger, which is in memory.
//! 2. A batch comes back, whatever happens to the thread that looks.

use std::io;
use std::sync::{Arc, Mutex, mpsc};

use daybook_model::{Event, Position};
use foldhash::{HashMap, HashMapExt};

use super::codec::Defaulted;
use super::queue::Append;
use super::{Inner, query};
use crate::{AppendError, Batch, ReadError};

/// Two, so that one slow read does not hold up the next batch.
const THREADS: usize = 2;

/// An event as it was stored, and what the server had filled in.
pub(super) type Known = (Arc<Event>, Defaulted);

/// What was found of one batch.
#[derive(Default)]
pub(super) struct Facts {
    upto: u64,
    ids: HashMap<Box<str>, Option<Known>>,
    /// What each key's next event takes, and where its last one is.
    heads: HashMap<Box<str>, Option<(u64, Position)>>,
    pub failed: Option<AppendError>,
}

impl Facts {
    /// `None`: not asked, or no longer enough, since memory begins later by now.
    pub fn id(&self, id: &str, remembered_from: u64) -> Option<Option<&Known>> {
        let found = self.ids.get(id)?.as_ref();
        (found.is_some() || remembered_from <= self.upto).then_some(found)
    }

    /// As [`Self::id`]; the sequencer has looked at what is in memory before.
    pub fn head(&self, subject: &str, remembered_from: u64) -> Option<Option<(u64, Position)>> {
        (remembered_from <= self.upto).then(|| self.heads.get(subject).copied()).flatten()
    }

    /// Everything younger has to be asked of memory.
    pub fn upto(&self) -> u64 {
        self.upto
    }

    fn find(inner: &Inner, batch: &Batch) -> Result<Self, ReadError> {
        let upto = inner.visible().index.end();
        let mut facts = Self { upto, ids: HashMap::with_capacity(batch.events.len()), ..Self::default() };
        for event in batch.events.iter() {
            let cause = event.causationid.filter(|_| event.correlationid.is_none());
            for id in [Some(event.id), cause].into_iter().flatten() {
                if !facts.ids.contains_key(id) {
                    let found = query::stored_by_id(inner, id)?;
                    let known = found.map(|(event, defaulted)| (Arc::new(event), defaulted));
                    facts.ids.insert(id.into(), known);
                }
            }
            if let Some(subject) = event.subject
                && !facts.heads.contains_key(subject)
            {
                let head = query::head(inner, subject)?.map(|head| (head.next, head.last));
                facts.heads.insert(subject.into(), head);
            }
        }
        Ok(facts)
    }
}

/// A batch that was looked up.
pub(super) struct Returned {
    pub ticket: u64,
    pub append: Append,
}

pub(super) struct Lookups {
    inner: Arc<Inner>,
    jobs: mpsc::Sender<Away>,
}

impl Lookups {
    pub fn start(inner: Arc<Inner>) -> io::Result<Self> {
        // Bounded by the queue's bytes: what is away still counts there.
        let (jobs, inbox) = mpsc::channel::<Away>();
        let inbox = Arc::new(Mutex::new(inbox));
        for i in 0..THREADS {
            let inbox = inbox.clone();
            std::thread::Builder::new().name(format!("look-up-{i}")).spawn(move || {
                loop {
                    let away = inbox.lock().expect("no code panics while it holds this lock").recv();
                    match away {
                        Ok(away) => away.look_up(),
                        // The store is gone.
                        Err(_) => return,
                    }
                }
            })?;
        }
        Ok(Self { inner, jobs })
    }

    pub fn ask(&self, ticket: u64, append: Append) {
        self.inner.queue.sent_away();
        // Were the threads gone, this would drop it, and so bring it back.
        let _ = self.jobs.send(Away { inner: self.inner.clone(), ticket, append: Some(append), found: None });
    }
}

/// On its way; being dropped in any way brings it back.
struct Away {
    inner: Arc<Inner>,
    ticket: u64,
    append: Option<Append>,
    found: Option<Result<Facts, ReadError>>,
}

impl Away {
    fn look_up(mut self) {
        self.found = self.append.as_ref().map(|append| Facts::find(&self.inner, &append.batch));
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let Some(mut append) = self.append.take() else { return };
        let broken = || Err(ReadError::Unavailable("the look-up of its ids and keys broke down".into()));
        append.facts = self.found.take().unwrap_or_else(broken).unwrap_or_else(|error| {
            let failed = Some(AppendError::Unavailable { reason: error.to_string() });
            Facts { failed, ..Facts::default() }
        });
        self.inner.queue.bring_back(Returned { ticket: self.ticket, append });
    }
}
