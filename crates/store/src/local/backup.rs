//! A copy of a store on another disk: log and group checkpoints.
//!
//! # Promises
//! What arrived opens as a store. A group's checkpoint is never ahead of the
//! copied log: it is read before the log's durable head is asked for, and
//! written after everything below that head. It is never older than what was
//! confirmed before it was read.
//!
//! # Not here
//! The index: it is made from the log when the copy is opened.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daybook_log::{Lock, OpenError, RealDisk, Shipped, Shipper};

use super::{checkpoints, restoring};

/// How often, and how long after each other, checkpoints are read that are written meanwhile.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

pub struct Backup {
    source: PathBuf,
    copy: PathBuf,
    shipper: Shipper,
    _lock: Lock,
}

/// Checkpoints as they were before the log was copied.
pub struct Checkpoints(Vec<(String, Vec<u8>)>);

impl Backup {
    /// `copy` is made if absent; a copy of the same log is gone on with.
    pub fn open(source: &Path, copy: &Path) -> Result<Self, OpenError> {
        if !source.join("LOG").is_file() {
            return Err(OpenError::NotALog {
                path: source.to_owned(),
                reason: "there is no log here".into(),
            });
        }
        restoring::refuse_unfinished(source)?;
        let io = |what, path: &Path, source| OpenError::Io { what, path: path.to_owned(), source };
        let from = RealDisk::open(source).map_err(|e| io("open", source, e))?;
        let to = RealDisk::open(copy).map_err(|e| io("open", copy, e))?;
        super::refuse_foreign(copy, &to)?;
        let lock = Lock::take(copy)?;
        let shipper = Shipper::open(Arc::new(from), Arc::new(to))?;
        Ok(Self { source: source.to_owned(), copy: copy.to_owned(), shipper, _lock: lock })
    }

    /// First: what the groups have settled.
    pub fn checkpoints(&self) -> Result<Checkpoints, OpenError> {
        let disk = RealDisk::read_only(&self.source.join("groups"));
        let mut tries = 1..TRIES;
        let again = || tries.next().inspect(|_| std::thread::sleep(PAUSE)).is_some();
        checkpoints::confirmed_files(|| checkpoints::whole_files(&disk, self.shipper.id()), again)
            .map(Checkpoints)
    }

    /// Then: a segment of the log up to `durable`, asked for after the checkpoints
    /// were read (`None`: nobody writes to it), and behind all of it the
    /// checkpoints. To be called until there is no more.
    pub fn ship(&mut self, durable: Option<u64>, checkpoints: &Checkpoints) -> Result<Shipped, OpenError> {
        let shipped = self.shipper.ship(durable)?;
        if shipped.more {
            return Ok(shipped);
        }
        let dir = self.copy.join("groups");
        let write = || -> io::Result<()> {
            // What is at the copy's path now may be an empty mount point.
            fs::metadata(self.copy.join("LOG"))?;
            RealDisk::open(&dir)?;
            for (name, bytes) in &checkpoints.0 {
                let path = dir.join(name);
                if fs::read(&path).is_ok_and(|known| known == *bytes) {
                    continue;
                }
                let fresh = dir.join(format!("{name}.new"));
                fs::write(&fresh, bytes)?;
                fs::File::open(&fresh)?.sync_all()?;
                fs::rename(&fresh, &path)?;
            }
            fs::File::open(&dir)?.sync_all()
        };
        write().map_err(|source| OpenError::Io { what: "write", path: dir.clone(), source })?;
        Ok(shipped)
    }

    /// Position that the copy's next event gets.
    pub fn next(&self) -> u64 {
        self.shipper.next()
    }
}
