//! Derived state: views, the service's own table, snapshots of entities, timers.
//! It may be deleted at any time; the log has everything.
//!
//! # Promises
//! 1. A commit is all or nothing, and is refused if something it rests on has
//!    changed: a row it read, the generation it wrote for, the lease it needs.
//! 2. A rebuild fills a generation of its own beside the one that is read, then
//!    moves to it in one step: readers see the old tables or the new ones.
//! 3. Tables that were lost are noticed (`Error::Lost`), not taken for empty.
//!
//! # After a failure
//! Commits are not synced (storage of a service is ephemeral, paper §9.2). A
//! process that is killed loses nothing; a machine that loses power loses the
//! tables, and they are filled again from the log.
//!
//! # Not here
//! What is in the tables (engine), and filling them (`engine::keeper`).

mod embedded;
mod redis;
#[cfg(test)]
mod suite;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{StartError, StateLocation};

/// `None` deletes.
pub(crate) type Write = (Vec<u8>, Option<Vec<u8>>);
/// A row as it was read.
pub(crate) type Read = (Vec<u8>, Option<Vec<u8>>);
pub(crate) type Row = (Vec<u8>, Vec<u8>);

const FILLED: &[u8] = b"meta/filled";

/// A leader that is silent for so long is not leader any more.
const LEASE: Duration = Duration::from_secs(6);

/// Why the state did not do what was asked. Nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("another call changed what this one had read")]
    Conflict,
    #[error("the tables were rebuilt meanwhile")]
    Moved,
    #[error("the tables are being rebuilt")]
    Filling,
    #[error("another host is this service's leader now")]
    NotLeader,
    #[error("the state was lost; it is rebuilt from the log")]
    Lost,
    #[error("the state in {place} does not answer: {reason}")]
    Unavailable { place: String, reason: String },
}

/// Rows of one service, by generation.
pub(crate) trait Backend: Send + Sync {
    /// The generation that is read; `None` if there never was one or all was lost.
    fn current(&self) -> Result<Option<u64>, Error>;
    fn get(&self, at: At, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    /// Rows whose key begins with `prefix` and is greater than `after`, in order.
    fn scan(&self, at: At, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Error>;
    fn commit(&self, commit: &Commit<'_>) -> Result<(), Error>;
    /// Makes `to` the generation that is read, if `from` is it now, and deletes `from`.
    fn advance(&self, from: Option<u64>, to: u64) -> Result<(), Error>;
    /// Deletes a generation that is not read.
    fn discard(&self, generation: u64) -> Result<(), Error>;
    /// Makes `holder` the leader, or keeps it so, if nobody else is; `filling`
    /// holds back commits of handlers meanwhile.
    fn lease(&self, holder: &str, filling: bool, time: Duration) -> Result<bool, Error>;
    fn release(&self, holder: &str) -> Result<(), Error>;
    /// Who leads, if others may.
    fn holder(&self) -> Result<Option<String>, Error>;
    /// Whether other processes may use it too.
    fn is_shared(&self) -> bool;
}

/// Whose rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub generation: u64,
    /// A generation that nobody reads yet.
    pub hidden: bool,
}

pub(crate) struct Commit<'a> {
    pub at: At,
    /// Held back while a rebuild fills the next generation.
    pub of_handler: bool,
    /// Refused unless this one is the leader.
    pub leader: Option<&'a str>,
    pub reads: &'a [Read],
    pub writes: &'a [Write],
}

/// One service's state, shared by its instances in this process.
#[derive(Clone)]
pub(crate) struct State(Arc<Inner>);

struct Inner {
    backend: Box<dyn Backend>,
    /// The generation last known to be read; 0 is none.
    current: AtomicU64,
    /// The generation last known to be filled.
    filled: AtomicU64,
    holder: String,
}

impl State {
    pub fn open(location: &StateLocation, service: &str) -> Result<Self, StartError> {
        Self::open_at(location, service, "")
    }

    /// `host` is where this one can be asked, for those that do not lead.
    pub fn open_at(location: &StateLocation, service: &str, host: &str) -> Result<Self, StartError> {
        let backend: Box<dyn Backend> = match location {
            StateLocation::Dir(dir) => Box::new(embedded::Embedded::open(dir, service)?),
            StateLocation::Redis(url) => Box::new(redis::Shared::open(url, service)?),
        };
        Ok(Self::new(backend, host))
    }

    fn new(backend: Box<dyn Backend>, host: &str) -> Self {
        let holder = format!("{}@{host}", uuid::Uuid::new_v4().simple());
        Self(Arc::new(Inner { backend, current: AtomicU64::new(0), filled: AtomicU64::new(0), holder }))
    }

    /// The tables that are read now, made if there are none.
    pub fn tables(&self) -> Result<Tables, Error> {
        let known = self.0.current.load(Ordering::Acquire);
        if known == 0 { self.look_again() } else { Ok(self.at(known, false)) }
    }

    /// After `Moved` or `Lost`: which tables are there now?
    pub fn look_again(&self) -> Result<Tables, Error> {
        let current = match self.0.backend.current()? {
            Some(current) => current,
            None => {
                // Of several hosts that find nothing one makes the new generation.
                match self.0.backend.advance(None, fresh(0)) {
                    Ok(()) | Err(Error::Moved) => {}
                    Err(error) => return Err(error),
                }
                self.0.backend.current()?.ok_or(Error::Lost)?
            }
        };
        self.0.current.store(current, Ordering::Release);
        Ok(self.at(current, false))
    }

    fn at(&self, generation: u64, hidden: bool) -> Tables {
        Tables { state: self.clone(), at: At { generation, hidden } }
    }

    /// An empty generation beside the one that is read.
    pub fn beside(&self) -> Tables {
        self.at(fresh(self.0.current.load(Ordering::Acquire)), true)
    }

    /// From now on `tables` are read; the old ones are deleted.
    pub fn advance(&self, old: &Tables, tables: &Tables) -> Result<Tables, Error> {
        self.0.backend.advance(Some(old.at.generation), tables.at.generation)?;
        self.0.current.store(tables.at.generation, Ordering::Release);
        Ok(self.at(tables.at.generation, false))
    }

    pub fn discard(&self, tables: &Tables) -> Result<(), Error> {
        self.0.backend.discard(tables.at.generation)
    }

    /// Whether this host leads the service: writes views, fires timers, rebuilds.
    pub fn lead(&self, filling: bool) -> Result<bool, Error> {
        self.0.backend.lease(&self.0.holder, filling, LEASE)
    }

    /// Where the host that leads can be asked.
    pub fn leader(&self) -> Result<Option<String>, Error> {
        let holder = self.0.backend.holder()?;
        Ok(holder.and_then(|holder| Some(holder.split_once('@')?.1.to_owned())))
    }

    pub fn release(&self) {
        let _ = self.0.backend.release(&self.0.holder);
    }

    pub fn is_shared(&self) -> bool {
        self.0.backend.is_shared()
    }

    /// How often the lease must be renewed.
    pub const RENEW: Duration = Duration::from_secs(2);
}

/// Later than every generation there was, also before all was lost.
fn fresh(known: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX).max(known + 1)
}

/// The rows of one generation.
#[derive(Clone)]
pub(crate) struct Tables {
    state: State,
    at: At,
}

impl Tables {
    pub fn generation(&self) -> u64 {
        self.at.generation
    }

    /// Whether they hold all that was settled when they were made. Until then no
    /// handler may use them: what it would find missing is not missing.
    pub fn is_filled(&self) -> Result<bool, Error> {
        let known = &self.state.0.filled;
        if known.load(Ordering::Acquire) != self.at.generation {
            if self.get(FILLED)?.is_none() {
                return Ok(false);
            }
            known.store(self.at.generation, Ordering::Release);
        }
        Ok(true)
    }

    pub fn mark_filled(&self) -> Result<(), Error> {
        self.commit_leader(&[(FILLED.to_vec(), Some(b"1".to_vec()))])
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.state.0.backend.get(self.at, key)
    }

    /// All rows whose key begins with `prefix`, in order.
    pub fn scan(&self, prefix: &[u8]) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        self.each(prefix, |row| rows.push(row))?;
        Ok(rows)
    }

    /// The same without holding all of them.
    pub fn each(&self, prefix: &[u8], mut take: impl FnMut(Row)) -> Result<(), Error> {
        const PAGE: usize = 1_000;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.state.0.backend.scan(self.at, prefix, after.as_deref(), PAGE)?;
            let more = page.len() == PAGE;
            after = page.last().map(|(key, _)| key.clone());
            page.into_iter().for_each(&mut take);
            if !more {
                return Ok(());
            }
        }
    }

    /// What nobody else may change or rest upon.
    pub fn commit(&self, writes: &[Write]) -> Result<(), Error> {
        self.write(false, None, &[], writes)
    }

    /// The end of a handler: refused if what it read is not so any more.
    pub fn commit_handler(&self, reads: &[Read], writes: &[Write]) -> Result<(), Error> {
        self.write(true, None, reads, writes)
    }

    /// The end of a timer: the leader's, and held to what it read.
    pub fn commit_timer(&self, reads: &[Read], writes: &[Write]) -> Result<(), Error> {
        self.write(false, Some(&self.state.0.holder), reads, writes)
    }

    /// By the leader only.
    pub fn commit_leader(&self, writes: &[Write]) -> Result<(), Error> {
        self.write(false, Some(&self.state.0.holder), &[], writes)
    }

    fn write(
        &self,
        of_handler: bool,
        leader: Option<&str>,
        reads: &[Read],
        writes: &[Write],
    ) -> Result<(), Error> {
        if writes.is_empty() {
            return Ok(());
        }
        self.state.0.backend.commit(&Commit { at: self.at, of_handler, leader, reads, writes })
    }

    /// Deletes what begins with `prefix`.
    pub fn wipe(&self, prefix: &[u8]) -> Result<(), Error> {
        loop {
            let page = self.state.0.backend.scan(self.at, prefix, None, 1_000)?;
            if page.is_empty() {
                return Ok(());
            }
            let writes: Vec<Write> = page.into_iter().map(|(key, _)| (key, None)).collect();
            self.commit_leader(&writes)?;
        }
    }
}
