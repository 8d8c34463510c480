//! The store on a local disk: a [`daybook_log::Log`] with one committer, an
//! index beside it, and group checkpoints.
//!
//! # Promises
//! Those of [`EventStore`]. One `fdatasync` serves everybody who waits.
//!
//! # After a crash
//! Opening cuts a torn tail and reads what the index on disk does not cover yet:
//! time proportional to that, not to the log. An index that is missing or
//! damaged is made again, which reads the whole log.
//!
//! # Not here
//! Bytes and files of the log: `daybook_log`. Who may do what, and who gets what.

mod backup;
mod checkpoints;
mod codec;
mod committer;
mod contest;
mod gate;
mod group;
mod heads;
mod index;
mod lanes;
mod loan;
mod lookup;
mod page;
mod patience;
mod placed;
mod query;
mod queue;
mod reached;
mod read_only;
mod restoring;
mod room;
mod sequencer;
mod tail;
mod verify;
mod written;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use daybook_log::{Disk, Log, LogId, RealDisk};
use daybook_model::{Event, Position, Timestamp};
use tokio::sync::{oneshot, watch};

use crate::durations::Stopwatch;
use crate::{
    Answer, AppendError, Batch, CheckpointError, Chore, EventStore, Fence, Health, Lender, Page, Query,
    ReadError, Reply, Stats, SubjectInfo, Usage, WrittenPage,
};
use checkpoints::Checkpoints;
use committer::{Committer, Committers};
use gate::{Cause, Gate};
use index::{Index, Limits, OpenedRuns, Worker};
use lookup::Lookups;
use query::Readers;
use queue::{Append, Queue, Work};
use reached::Way;
use room::Space;
use tail::{Records, Tail};

pub use backup::{Backup, Checkpoints as CopiedCheckpoints};
pub use daybook_log::{Lock, OpenError};
pub use reached::Reached;
pub use restoring::Restoring;
pub use room::FreeBytes;
pub use verify::{Verified, VerifyError, verify};

/// What can be set of a local store.
#[derive(Clone)]
pub struct Options {
    /// Bytes waiting to be written; beyond that `overloaded`.
    pub queue_bytes: usize,
    /// Bytes of recent events kept for those who follow the log: their records, and
    /// what somebody has made of them.
    pub tail_bytes: usize,
    pub first_segment_bytes: u64,
    pub segment_bytes: u64,
    /// Events indexed in memory before they become a file of the index.
    pub run_events: usize,
    /// What the index of such events may take, roughly, also while no file can be
    /// written; beyond that `overloaded`.
    pub index_bytes: usize,
    /// Bytes of the disk kept free for the index and the groups' checkpoints:
    /// with less than this and the next segment's size, publishes are refused.
    pub reserve_bytes: u64,
    /// Asked for the free bytes; by default the file system of the directory.
    pub free_bytes: Option<FreeBytes>,
    /// Told how far it is when opening has to read much: the index is made again.
    pub progress: Option<Arc<dyn Fn(Reached) + Send + Sync>>,
    /// The wall clock, in microseconds since 1970.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_bytes: 64 << 20,
            tail_bytes: 8 << 20,
            first_segment_bytes: 1 << 20,
            segment_bytes: 64 << 20,
            run_events: 128 << 10,
            index_bytes: 48 << 20,
            reserve_bytes: 32 << 20,
            free_bytes: None,
            progress: None,
            clock: Arc::new(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
            }),
        }
    }
}

/// Where a store keeps what: one directory each.
pub struct Disks {
    pub log: Arc<dyn Disk>,
    pub index: Arc<dyn Disk>,
    pub groups: Arc<dyn Disk>,
}

/// What readers see; changes only when events have become durable.
pub(crate) struct Visible {
    pub index: Index,
    pub tail: Tail,
}

/// Shared by the committer, the readers and the handle.
pub(crate) struct Inner {
    pub queue: Queue,
    pub visible: RwLock<Visible>,
    pub stats: Mutex<Stats>,
    pub appends: Stopwatch,
    pub syncs: Stopwatch,
    pub head: watch::Sender<Position>,
    pub gate: Gate,
    pub space: Space,
    pub log: daybook_log::Reader,
}

impl Inner {
    pub fn visible(&self) -> std::sync::RwLockReadGuard<'_, Visible> {
        self.visible.read().expect("no code panics while it holds this lock")
    }
}

/// See the module. Dropping it without [`EventStore::close`] stops it like a
/// crash: what was not answered may or may not be stored.
pub struct LocalStore {
    inner: Arc<Inner>,
    readers: Readers,
    checkpoints: Checkpoints,
    committers: Arc<Committers>,
    id: LogId,
    _lock: Option<Lock>,
}

impl LocalStore {
    /// Opens or makes the log in `dir`. Blocks while it reads the log.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let io = |what, source| OpenError::Io { what, path: dir.to_owned(), source };
        let disk = RealDisk::open(dir).map_err(|e| io("open", e))?;
        refuse_foreign(dir, &disk)?;
        restoring::refuse_unfinished(dir)?;
        let index = RealDisk::open(&dir.join("index")).map_err(|e| io("open the index in", e))?;
        let groups = RealDisk::open(&dir.join("groups")).map_err(|e| io("open the groups in", e))?;
        let disks = Disks { log: Arc::new(disk), index: Arc::new(index), groups: Arc::new(groups) };
        Self::open_on(dir, disks, options)
    }

    /// The same with everything on other disks than `dir`: for tests, whose disks
    /// crash and fail.
    pub fn open_on(dir: &Path, disks: Disks, options: Options) -> Result<Self, OpenError> {
        let lock = Lock::take(dir)?;
        Self::open_with(dir, Some(lock), disks, options)
    }

    /// Without a lock nothing may be written: no checkpoints either.
    fn open_with(dir: &Path, lock: Option<Lock>, disks: Disks, options: Options) -> Result<Self, OpenError> {
        let Disks { log: disk, index: index_disk, groups } = disks;
        let io = |what, source| OpenError::Io { what, path: dir.to_owned(), source };
        let known = Log::identify(&*disk)?;
        let opened = match known {
            Some(id) => index::open_runs(&*index_disk, id).map_err(|e| io("read the index in", e))?,
            None => OpenedRuns::default(),
        };
        for why in &opened.dropped {
            tracing_line(&format!("making a part of the index again: {why}"));
        }
        let id = known.unwrap_or(LogId(fresh_id()));
        let limits = Limits { events: options.run_events, bytes: options.index_bytes };
        let mut index = Index::new(id, opened.runs, limits);
        let indexed = index.memory_from();
        let mut tail = Tail::new(options.tail_bytes);
        let log_options = daybook_log::Options {
            new_id: id,
            first_segment_bytes: options.first_segment_bytes,
            segment_bytes: options.segment_bytes,
        };
        let mut way = Way::new(&*disk);
        let mut no_index = None;
        let opened = Log::open_behind(disk, log_options, &opened.sealed, |position, place, body| {
            if position >= indexed {
                let (event, defaulted) =
                    codec::decode(Position(position), body).map_err(|e| e.to_string())?;
                index.memory().insert(&event, place);
                tail.push(Records::of(Arc::new(event), defaulted));
                index.flush_now(&*index_disk, id).map_err(|e| no_index.insert(e).to_string())?;
                way.event(place, |reached| options.progress.iter().for_each(|tell| tell(reached)));
            }
            Ok(())
        });
        // That is no damage to the log.
        if let Some(error) = no_index {
            return Err(io("write the index in", error));
        }
        let (log, recovered) = opened?;
        if recovered.next < indexed {
            return Err(OpenError::Damaged {
                path: dir.to_owned(),
                offset: 0,
                reason: format!(
                    "the log ends at position {}, and the index has seen {indexed} durable events of it",
                    recovered.next
                ),
            });
        }
        if recovered.cut_bytes > 0 && lock.is_some() {
            tracing_line(&format!(
                "cut {} bytes of a torn tail that nobody was told of",
                recovered.cut_bytes
            ));
        }
        let checkpoints = match &lock {
            Some(_) => Checkpoints::open(groups, recovered.id)?,
            None => Checkpoints::refused(read_only::WHY),
        };
        let of_disk = dir.to_owned();
        let free: FreeBytes = Arc::new(move || daybook_log::free_bytes(&of_disk));
        let gate = Gate::new();
        if lock.is_none() {
            gate.close(Cause::Segment, read_only::WHY.to_owned());
        }
        let inner = Arc::new(Inner {
            queue: Queue::new(options.queue_bytes),
            stats: Mutex::default(),
            appends: Stopwatch::default(),
            syncs: Stopwatch::default(),
            head: watch::Sender::new(Position(recovered.next)),
            gate,
            space: Space { free: options.free_bytes.unwrap_or(free), reserve: options.reserve_bytes },
            log: log.reader(),
            visible: RwLock::new(Visible { index, tail }),
        });
        let indexer = Worker::start(inner.clone(), index_disk, recovered.id, options.run_events)
            .map_err(|e| io("start the indexer of", e))?;
        let lookups = Lookups::start(inner.clone()).map_err(|e| io("start the look-ups of", e))?;
        let committer = Committer::new(inner.clone(), log, indexer, lookups, options.clock)
            .map_err(|e| io("read the last event of", std::io::Error::other(e)))?;
        let committers = Committers::start(committer).map_err(|e| {
            inner.queue.close();
            io("start the committers of", e)
        })?;
        let readers = Readers::start(inner.clone()).map_err(|e| io("start the readers of", e))?;
        Ok(Self { inner, readers, checkpoints, committers, id: recovered.id, _lock: lock })
    }

    pub fn id(&self) -> LogId {
        self.id
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        self.inner.queue.close();
        self.committers.join();
    }
}

/// A log of files that are not ours is an accident: nothing is touched.
fn refuse_foreign(dir: &Path, disk: &RealDisk) -> Result<(), OpenError> {
    let names = disk.list().map_err(|source| OpenError::Io { what: "list", path: dir.to_owned(), source })?;
    if names.is_empty() || names.iter().any(|name| name == "LOG") {
        return Ok(());
    }
    let ours = |name: &String| {
        ["LOCK", "LOG.new", "spare", "index", "groups", "backup.json", restoring::FILE]
            .contains(&name.as_str())
            || name.ends_with(".segment")
    };
    match names.iter().find(|name| !ours(name)) {
        Some(name) => Err(OpenError::NotALog {
            path: PathBuf::from(dir),
            reason: format!("it holds the foreign file `{name}`; give an empty or new directory"),
        }),
        None => Ok(()),
    }
}

/// Names a log: 16 bytes from the operating system's random source, by way of
/// the standard library's keyed hasher.
fn fresh_id() -> [u8; 16] {
    use std::hash::{BuildHasher, Hasher};
    let mut id = [0; 16];
    for half in id.chunks_mut(8) {
        let hash = std::collections::hash_map::RandomState::new().build_hasher().finish();
        half.copy_from_slice(&hash.to_le_bytes());
    }
    id
}

fn tracing_line(message: &str) {
    eprintln!("daybook: {message}");
}

impl EventStore for LocalStore {
    fn submit(&self, batch: Batch, reply: Reply) {
        self.inner.queue.push(Work::Append(Append::new(batch, reply)));
    }

    fn barrier(&self, fences: Vec<Fence>) -> Answer<Result<Position, AppendError>> {
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push(Work::Barrier { fences, share: Arc::new(reply) });
        Box::pin(async move {
            let gone = || AppendError::Unavailable { reason: "the log is closed".into() };
            answer.await.unwrap_or_else(|_| Err(gone()))
        })
    }

    fn read(&self, query: Query) -> Answer<Result<Page, ReadError>> {
        self.readers.read(query)
    }

    fn read_written(&self, query: Query, json: Vec<u8>) -> Answer<Result<WrittenPage, ReadError>> {
        self.readers.read_written(query, json)
    }

    fn event_by_id(&self, id: &str) -> Answer<Result<Option<Arc<Event>>, ReadError>> {
        self.readers.event_by_id(id)
    }

    fn position_at(&self, time: Timestamp) -> Answer<Result<Position, ReadError>> {
        self.readers.position_at(time)
    }

    fn subjects(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Answer<Result<Vec<SubjectInfo>, ReadError>> {
        self.readers.subjects(prefix.to_owned(), after.map(str::to_owned), limit)
    }

    fn subject(&self, subject: &str) -> Answer<Result<Option<SubjectInfo>, ReadError>> {
        self.readers.subject(subject)
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.inner.head.subscribe()
    }

    fn save_checkpoint(&self, group: &str, bytes: Vec<u8>) -> Answer<Result<(), CheckpointError>> {
        self.checkpoints.save(group, bytes)
    }

    fn checkpoints(&self) -> Answer<Result<Vec<(String, Vec<u8>)>, CheckpointError>> {
        Box::pin(std::future::ready(Ok(self.checkpoints.loaded())))
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.gate.health()
    }

    fn stats(&self) -> Stats {
        let stats = *self.inner.stats.lock().expect("no code panics while it holds this lock");
        Stats { append: self.inner.appends.read(), fsync: self.inner.syncs.read(), ..stats }
    }

    fn usage(&self) -> Usage {
        let (index_bytes, index_runs, index_memory_events) = self.inner.visible().index.size();
        Usage {
            log_bytes: self.inner.log.size_bytes(),
            index_bytes,
            index_runs,
            index_memory_events,
            free_bytes: (self.inner.space.free)().ok(),
        }
    }

    fn borrow_threads(&self, lender: Arc<dyn Lender>) -> Option<Chore> {
        self.inner.queue.borrow_threads(lender);
        // Not the store itself: whoever is late must not hold its lock.
        let committers = self.committers.clone();
        Some(Arc::new(move || committers.help()))
    }

    fn close(&self) -> Answer<()> {
        self.inner.queue.close();
        let committers = self.committers.clone();
        let (done, closed) = oneshot::channel();
        // Joining blocks, so a thread of its own does it.
        let waiter = std::thread::spawn(move || {
            committers.join();
            let _ = done.send(());
        });
        drop(waiter);
        Box::pin(async move {
            let _ = closed.await;
        })
    }
}

#[cfg(test)]
mod tests;
