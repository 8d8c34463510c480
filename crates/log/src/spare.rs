//! The next segment's file, made ahead and filled with zeros.
//!
//! # Promises
//! 1. Whoever takes the spare gets a file whose whole length is written and
//!    synced: writing into it needs no more space, and a sync over written
//!    space is twice as fast as one over a growing file.
//! 2. Failing to make one changes nothing of the log: it is "no room for now".
//!
//! # After a crash
//! A spare may be half filled; opening the log removes it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use crate::disk::BLOCK_BYTES;
use crate::format::SEGMENT_BYTES_MAX;
use crate::planted::{Bug, sync_unless};
use crate::{Disk, DiskFile, Error, Options};

/// A file and how many bytes of it are written.
pub(crate) type SizedFile = (Arc<dyn DiskFile>, u64);

pub(crate) const SPARE: &str = "spare";

/// Filled and synced piece by piece, so that the writer's own syncs never wait
/// behind more than this.
const PIECE_BYTES: u64 = 256 << 10;
/// The same while the writer waits for the spare itself: fewer syncs are faster.
const HURRIED_BYTES: u64 = 1 << 20;
/// Pauses between pieces, in times of what the last took: a sync that meets a
/// piece waits for it. Longer ones would make whoever waits for room wait too.
const PAUSES: u32 = 4;
/// The same while the spare is behind: a short delay of every sync is better
/// than all waiting for the rest of the spare.
const PAUSES_BEHIND: u32 = 1;
/// How often somebody who pauses looks whether the writer waits or is ahead.
const LOOK: Duration = Duration::from_millis(5);
/// How full the segment in use may be when the spare is done: not quite.
const DONE_AT_PERCENT: u64 = 90;

#[derive(Default)]
struct Slot {
    file: Option<SizedFile>,
    /// Taken and still under the spare's name: until it is renamed nobody may
    /// make the next one, which would remove it.
    taken: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Spare {
    file: Arc<Mutex<Slot>>,
    /// The writer waits: no pauses now.
    hurry: Arc<AtomicBool>,
    /// Percent of the segment in use that are written.
    used: Arc<AtomicU64>,
    /// The log is being closed: the file under way is given up.
    stop: Arc<AtomicBool>,
}

impl Spare {
    pub fn is_missing(&self) -> bool {
        match self.file.try_lock() {
            Ok(slot) => slot.file.is_none(),
            // Somebody is making it.
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Poisoned(_)) => true,
        }
    }

    /// The spare, made now if there is none with `room`. It keeps its name, and
    /// no other is made, until [`Self::renamed`].
    pub fn take(
        &self,
        disk: &dyn Disk,
        options: &Options,
        segment: u32,
        room: u64,
    ) -> Result<SizedFile, Error> {
        self.hurry.store(true, Ordering::Release);
        let mut slot = self.lock();
        let made = match slot.file.take() {
            Some((file, size)) if size >= room => Ok((file, size)),
            _ => self.make(disk, segment_size(options, segment).max(room)),
        };
        slot.taken = made.is_ok();
        self.hurry.store(false, Ordering::Release);
        made
    }

    /// The segment in use is written up to `offset` of `size`.
    pub fn used(&self, offset: u64, size: u64) {
        self.used.store(offset * 100 / size.max(1), Ordering::Relaxed);
    }

    /// Bytes of the next piece, and the pauses after it.
    fn pace(&self, at: u64, size: u64) -> (u64, u32) {
        if self.hurry.load(Ordering::Acquire) {
            (HURRIED_BYTES, 0)
        } else if at * DONE_AT_PERCENT < size.saturating_mul(self.used.load(Ordering::Relaxed)) {
            (PIECE_BYTES, PAUSES_BEHIND)
        } else {
            (PIECE_BYTES, PAUSES)
        }
    }

    /// The pauses after a piece that took so long: as many as are right while they last.
    fn rest(&self, took: Duration, at: u64, size: u64) {
        let begun = Instant::now();
        while begun.elapsed() < took * self.pace(at, size).1 {
            std::thread::sleep(took.min(LOOK));
        }
    }

    pub fn renamed(&self) {
        self.lock().taken = false;
    }

    fn make(&self, disk: &dyn Disk, size: u64) -> Result<SizedFile, Error> {
        self.fill(disk, size).map_err(|error| {
            // Half a spare would take the last of the space from everybody else.
            let _ = disk.remove(SPARE);
            Error::NoRoom { path: disk.path(SPARE), reason: error.to_string() }
        })
    }

    fn fill(&self, disk: &dyn Disk, size: u64) -> io::Result<SizedFile> {
        // Left by an attempt that failed for want of space.
        if disk.list()?.iter().any(|name| name == SPARE) {
            disk.remove(SPARE)?;
        }
        let file = disk.open(SPARE, true)?;
        let zeros = vec![0; (HURRIED_BYTES.min(size) + BLOCK_BYTES) as usize];
        let zeros = &zeros[zeros.as_ptr().align_offset(BLOCK_BYTES as usize)..];
        let mut at = 0;
        while at < size {
            if self.stop.load(Ordering::Acquire) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let begun = Instant::now();
            let (piece, _) = self.pace(at, size);
            let len = (size - at).min(piece);
            file.write_all_past_cache_at(&zeros[..len as usize], at)?;
            sync_unless(Bug::SpareSyncSkipped, &*file)?;
            at += len;
            if at < size {
                self.rest(begun.elapsed(), at, size);
            }
        }
        Ok((file, size))
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.file.lock().expect("no code panics while it holds this lock")
    }
}

/// Makes spares on a thread of its own, so that the writer finds one when it needs it.
#[derive(Clone)]
pub struct Preparer {
    pub(crate) spare: Spare,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) next_segment: Arc<AtomicU32>,
}

impl Preparer {
    /// Ends the work under way and all later: call it, and wait for the thread
    /// that prepares, before the lock on the directory is let go.
    pub fn stop(&self) {
        self.spare.stop.store(true, Ordering::Release);
        self.spare.hurry.store(true, Ordering::Release);
    }

    /// Bytes that [`Self::prepare`] would need on the disk now: 0 if the next
    /// segment's file is there, or somebody makes it.
    pub fn missing_bytes(&self) -> u64 {
        match self.spare.is_missing() {
            true => segment_size(&self.options, self.next_segment.load(Ordering::Acquire)),
            false => 0,
        }
    }

    /// Makes the next segment's file if it is not there yet.
    pub fn prepare(&self) -> Result<(), Error> {
        let mut slot = self.spare.lock();
        if slot.file.is_none() && !slot.taken {
            let segment = self.next_segment.load(Ordering::Acquire);
            slot.file = Some(self.spare.make(&*self.disk, segment_size(&self.options, segment))?);
        }
        Ok(())
    }
}

fn segment_size(options: &Options, segment: u32) -> u64 {
    let grown = options.first_segment_bytes.saturating_mul(4u64.saturating_pow(segment.min(16)));
    grown.min(options.segment_bytes).min(SEGMENT_BYTES_MAX)
}
