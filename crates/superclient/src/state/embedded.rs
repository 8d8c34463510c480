//! State in a file, by redb. One process at a time may have it open.
//!
//! # After a failure
//! Writes reach the operating system in order and are never synced: a process
//! that is killed loses nothing. After a crash of the machine the file cannot be
//! trusted, and is made anew.

use std::fs::{File, OpenOptions};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{
    BackendError, Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition,
};

use super::{At, Backend, Commit, Error, Row};
use crate::StartError;

/// Generation, then the row's key. Generation 0 is about the tables themselves.
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");
const CURRENT: &[u8] = b"\0\0\0\0\0\0\0\0current";
const BOOT: &[u8] = b"\0\0\0\0\0\0\0\0boot";

/// Pages kept in memory; the system's cache holds the rest.
const CACHE_BYTES: usize = 64 << 20;

pub(super) struct Embedded {
    database: Database,
    path: PathBuf,
    /// There is only this process, so the lease is in memory.
    filling: AtomicBool,
}

impl Embedded {
    pub fn open(dir: &Path, service: &str) -> Result<Self, StartError> {
        let path = dir.join(format!("{service}.redb"));
        let fail = |reason: String| StartError::State { path: path.clone(), reason };
        std::fs::create_dir_all(dir).map_err(|error| fail(error.to_string()))?;
        let database = match open(&path) {
            Ok(Some(database)) => database,
            Err(redb::Error::DatabaseAlreadyOpen) => {
                return Err(fail(
                    "another process has it open: a directory is for one host; several hosts share \
                     their state with `--state redis://…`, or give each its own directory"
                        .into(),
                ));
            }
            // Damaged state is worth nothing: the log rebuilds it.
            outcome => {
                let reason = outcome.err().map_or("the machine crashed".into(), |error| error.to_string());
                tracing::warn!(path = %path.display(), reason, "the state cannot be trusted and is rebuilt from the log");
                std::fs::remove_file(&path).map_err(|error| fail(error.to_string()))?;
                match open(&path) {
                    Ok(Some(database)) => database,
                    Ok(None) => return Err(fail("it cannot be made".into())),
                    Err(error) => return Err(fail(error.to_string())),
                }
            }
        };
        Ok(Self { database, path, filling: AtomicBool::new(false) })
    }

    fn fail(&self, error: impl Into<redb::Error>) -> Error {
        let place = self.path.display().to_string();
        Error::Unavailable { place, reason: error.into().to_string() }
    }

    fn read<T>(
        &self,
        f: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T, redb::StorageError>,
    ) -> Result<T, Error> {
        let read = self.database.begin_read().map_err(|error| self.fail(error))?;
        let table = read.open_table(TABLE).map_err(|error| self.fail(error))?;
        f(&table).map_err(|error| self.fail(error))
    }

    /// Runs `f` in a transaction; its refusal writes nothing.
    fn change(
        &self,
        f: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<(), Refusal>,
    ) -> Result<(), Error> {
        let write = self.database.begin_write().map_err(|error| self.fail(error))?;
        let outcome = {
            let mut table = write.open_table(TABLE).map_err(|error| self.fail(error))?;
            f(&mut table)
        };
        match outcome {
            Ok(()) => write.commit().map_err(|error| self.fail(error)),
            Err(refusal) => {
                write.abort().map_err(|error| self.fail(error))?;
                Err(match refusal {
                    Refusal::Said(error) => error,
                    Refusal::Storage(error) => self.fail(error),
                })
            }
        }
    }
}

enum Refusal {
    Said(Error),
    Storage(redb::StorageError),
}

impl From<redb::StorageError> for Refusal {
    fn from(error: redb::StorageError) -> Self {
        Self::Storage(error)
    }
}

/// `None` if the machine crashed while the file was open.
fn open(path: &Path) -> Result<Option<Database>, redb::Error> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let repaired = Arc::new(AtomicBool::new(false));
    let seen = repaired.clone();
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_repair_callback(move |_| seen.store(true, Ordering::Relaxed))
        .create_with_backend(Unsynced::new(file)?)?;
    // The system's pages outlive the process, not the machine.
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let write = database.begin_write()?;
    let same = {
        let mut table = write.open_table(TABLE)?;
        let same = table.get(BOOT)?.is_none_or(|known| known.value() == boot);
        table.insert(BOOT, boot.as_slice())?;
        same
    };
    if repaired.load(Ordering::Relaxed) && !same {
        return Ok(None);
    }
    write.commit()?;
    Ok(Some(database))
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn row(generation: u64, key: &[u8]) -> Vec<u8> {
    [&generation.to_be_bytes(), key].concat()
}

impl Backend for Embedded {
    fn current(&self) -> Result<Option<u64>, Error> {
        self.read(|table| Ok(table.get(CURRENT)?.and_then(|value| number(value.value()))))
    }

    fn get(&self, at: At, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let found = self.read(|table| {
            let found = table.get(row(at.generation, key).as_slice())?.map(|value| value.value().to_vec());
            let gone = found.is_none()
                && !at.hidden
                && table.get(CURRENT)?.and_then(|value| number(value.value())) != Some(at.generation);
            Ok((found, gone))
        })?;
        if found.1 { Err(Error::Moved) } else { Ok(found.0) }
    }

    fn scan(&self, at: At, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Error> {
        let begin = row(at.generation, prefix);
        let from = match after {
            Some(after) => Bound::Excluded(row(at.generation, after)),
            None => Bound::Included(begin.clone()),
        };
        self.read(|table| {
            let mut found = Vec::new();
            let from = from.as_ref().map(Vec::as_slice);
            for entry in table.range::<&[u8]>((from, Bound::Unbounded))? {
                let (key, value) = entry?;
                if found.len() == limit || !key.value().starts_with(&begin) {
                    break;
                }
                found.push((key.value()[8..].to_vec(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<(), Error> {
        let generation = commit.at.generation;
        self.change(|table| {
            if !commit.at.hidden
                && table.get(CURRENT)?.and_then(|value| number(value.value())) != Some(generation)
            {
                return Err(Refusal::Said(Error::Moved));
            }
            if commit.of_handler && self.filling.load(Ordering::Acquire) {
                return Err(Refusal::Said(Error::Filling));
            }
            for (key, expected) in commit.reads {
                let now = table.get(row(generation, key).as_slice())?;
                if now.as_ref().map(|value| value.value()) != expected.as_deref() {
                    return Err(Refusal::Said(Error::Conflict));
                }
            }
            for (key, value) in commit.writes {
                let key = row(generation, key);
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                    None => table.remove(key.as_slice())?,
                };
            }
            Ok(())
        })
    }

    fn advance(&self, from: Option<u64>, to: u64) -> Result<(), Error> {
        self.change(|table| {
            if table.get(CURRENT)?.and_then(|value| number(value.value())) != from {
                return Err(Refusal::Said(Error::Moved));
            }
            table.insert(CURRENT, to.to_be_bytes().as_slice())?;
            Ok(())
        })?;
        // A crash here leaves rows that nobody reads; the next rebuild takes them along.
        self.change(|table| {
            let (others, rest) = (1u64.to_be_bytes(), to.to_be_bytes());
            table.retain_in::<&[u8], _>(others.as_slice()..rest.as_slice(), |_, _| false)?;
            Ok(())
        })
    }

    fn discard(&self, generation: u64) -> Result<(), Error> {
        self.change(|table| {
            let (begin, end) = (generation.to_be_bytes(), (generation + 1).to_be_bytes());
            table.retain_in::<&[u8], _>(begin.as_slice()..end.as_slice(), |_, _| false)?;
            Ok(())
        })
    }

    fn lease(&self, _holder: &str, filling: bool, _time: Duration) -> Result<bool, Error> {
        // Whoever commits now holds the file's write lock: it comes before or sees the mark.
        self.filling.store(filling, Ordering::Release);
        Ok(true)
    }

    fn release(&self, _holder: &str) -> Result<(), Error> {
        self.filling.store(false, Ordering::Release);
        Ok(())
    }

    fn holder(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// A file that is never synced.
#[derive(Debug)]
struct Unsynced(FileBackend);

impl Unsynced {
    fn new(file: File) -> Result<Self, DatabaseError> {
        FileBackend::new(file).map(Self)
    }
}

impl StorageBackend for Unsynced {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.0.write(offset, data)
    }
    fn close(&self) -> Result<(), std::io::Error> {
        self.0.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
