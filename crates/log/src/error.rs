//! What can go wrong, each naming the file.

use std::io;
use std::path::PathBuf;

/// Why a log did not open. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("{} is used by another process{}", path.display(), owner(pid))]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error("{} holds a log of format {found}; this program reads format {known}", path.display())]
    OtherVersion { path: PathBuf, found: String, known: u32 },
    #[error("{} is not a Daybook log: {reason}", path.display())]
    NotALog { path: PathBuf, reason: String },
    /// Acknowledged data is damaged. Everything was kept as it is.
    #[error("{} is damaged at offset {offset}: {reason}; nothing was changed, restore a backup or copy the directory before you touch it", path.display())]
    Damaged { path: PathBuf, offset: u64, reason: String },
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

fn owner(pid: &Option<u32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (pid {pid})"))
}

/// Why an operation on an open log failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("cannot {what} {}: {reason}", path.display())]
    Io { what: &'static str, path: PathBuf, reason: String },
    /// An earlier write failed; this log takes no more until it is opened again.
    #[error("the log takes no more since an earlier failure: {since}")]
    Poisoned { since: String },
    #[error("{} is damaged at offset {offset}: {reason}", path.display())]
    Damaged { path: PathBuf, offset: u64, reason: String },
    /// No space for the next segment. Nothing was written; the same call may
    /// succeed when there is space again.
    #[error("cannot make room in {}: {reason}", path.display())]
    NoRoom { path: PathBuf, reason: String },
    /// Nothing was written.
    #[error("a batch of {bytes} bytes is more than the {limit} that one may have")]
    TooLarge { bytes: u64, limit: u64 },
}
