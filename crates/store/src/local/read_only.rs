//! Opening a log that must not be written to, or that cannot be opened for
//! writing because it is damaged.
//!
//! # Promises
//! 1. Nothing on disk is touched, not even the lock: it works on a read-only
//!    mount, and beside a process that writes, whose later events it does not see.
//! 2. Of a damaged log everything before the damage is served, and where that is
//!    is said. What lies behind it is not: nothing proves its place in the order.
//!    What only looks like damage, because somebody writes while it is read, is not
//!    taken for it.
//! 3. Publishing and checkpoints are refused, and no group goes on.

use std::path::Path;
use std::sync::Arc;

use daybook_log::{Disk, Lock, OpenError, Overlay, RealDisk};

use super::gate::Cause;
use super::{Disks, LocalStore, Options, restoring, tracing_line};

/// How often a log is read again that somebody writes to meanwhile.
const TRIES: u32 = 10;

pub(super) const WHY: &str = "the log was opened for reading only";

impl LocalStore {
    /// Blocks while it reads what the index does not cover: all of the log if it
    /// is damaged.
    pub fn open_read_only(dir: &Path, options: Options) -> Result<Self, OpenError> {
        if !dir.join("LOG").is_file() {
            return Err(OpenError::NotALog { path: dir.to_owned(), reason: "there is no log here".into() });
        }
        restoring::refuse_unfinished(dir)?;
        // No room: nobody makes a segment that nothing will be written to.
        let options = Options { free_bytes: Some(Arc::new(|| Ok(0))), ..options };
        let disk = |dir: &Path| Arc::new(RealDisk::read_only(dir)) as Arc<dyn Disk>;
        let (index, groups) = (disk(&dir.join("index")), disk(&dir.join("groups")));
        Self::read_only_on(dir, Disks { log: disk(dir), index, groups }, options)
    }

    /// The same on any disks; none of them is written to.
    pub(super) fn read_only_on(dir: &Path, disks: Disks, options: Options) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { what: "read", path: dir.to_owned(), source };
        let fresh = |disk: &Arc<dyn Disk>| Arc::new(Overlay::new(disk.clone()));
        let (mut log, mut index) = (fresh(&disks.log), fresh(&disks.index));
        let (mut seen, mut tries) = (None, 1);
        let mut before = None;
        loop {
            let shown = Disks { log: log.clone(), index: index.clone(), groups: disks.groups.clone() };
            let error = match Self::open_with(dir, None, shown, options.clone()) {
                Ok(store) => {
                    store.refuse_everything();
                    return Ok(store);
                }
                Err(error) => error,
            };
            let told = error.to_string();
            // Beside somebody who writes, what is read first may be older than what is
            // read last, and a file of the index may go: true damage stays where it is.
            if before.is_none() && seen.as_ref() != Some(&told) && tries < TRIES && Lock::is_held(dir) {
                (log, index, seen) = (fresh(&disks.log), fresh(&disks.index), Some(told));
                tries += 1;
                continue;
            }
            // The same damage again: ending the log before it did not help.
            if before.as_ref() == Some(&told) || !log.end_before(&error).map_err(io)? {
                return Err(error);
            }
            // It may speak of what is not shown any more.
            index.hide_everything().map_err(io)?;
            tracing_line(&format!("serving only what lies before the damage: {told}"));
            before = Some(told);
        }
    }

    /// The committers end, and with them whoever looks for room.
    fn refuse_everything(&self) {
        self.inner.queue.close_because(WHY);
        self.committers.join();
        self.inner.gate.open(Cause::Space);
    }
}
