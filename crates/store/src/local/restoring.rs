//! A log that is being restored must not pass for the whole one.
//!
//! # Promises
//! From [`Restoring::begin`] to [`Restoring::end`] a file in the directory says what
//! is going on; until it is gone the log there neither opens nor is copied.
//!
//! # After a crash
//! The file stays: the restore has to be done again, into an empty directory.

use std::path::{Path, PathBuf};

use daybook_log::{Disk, OpenError, RealDisk};

pub(super) const FILE: &str = "restoring";

pub struct Restoring {
    dir: PathBuf,
    disk: RealDisk,
}

impl Restoring {
    /// `dir` is made if absent.
    pub fn begin(dir: &Path) -> Result<Self, OpenError> {
        let io = |what, source| OpenError::Io { what, path: dir.to_owned(), source };
        let disk = RealDisk::open(dir).map_err(|e| io("open", e))?;
        disk.open(FILE, true).and_then(|_| disk.sync_dir()).map_err(|e| io("restore into", e))?;
        Ok(Self { dir: dir.to_owned(), disk })
    }

    /// All is there, durably.
    pub fn end(self) -> Result<(), OpenError> {
        let removed = self.disk.remove(FILE).and_then(|()| self.disk.sync_dir());
        removed.map_err(|source| OpenError::Io { what: "end restoring into", path: self.dir, source })
    }
}

pub(super) fn refuse_unfinished(dir: &Path) -> Result<(), OpenError> {
    if !dir.join(FILE).is_file() {
        return Ok(());
    }
    let reason = "a restore into it did not come to its end; empty the directory and restore again";
    Err(OpenError::NotALog { path: dir.to_owned(), reason: reason.to_owned() })
}
