//! The next segment's file, made ahead: its space claimed, and filled with zeros
//! as far as there was time.
//!
//! # Promises
//! 1. Whoever takes the spare gets a file that has its whole length and reads as
//!    zeros, durably: writing into it needs no more space.
//! 2. It is mostly filled with zeros: a sync over written space takes little
//!    more than half of one over space that is only claimed. Nobody waits for
//!    them where the space can be claimed without.
//! 3. Failing to make one changes nothing of the log: it is "no room for now".
//!
//! # After a crash
//! A spare may be half filled; opening the log removes it.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use crate::disk::BLOCK_BYTES;
use crate::format::SEGMENT_BYTES_MAX;
use crate::planted::{Bug, sync_unless};
use crate::{Disk, DiskFile, Error, Options};

/// A file and how many bytes of it are written.
pub(crate) type SizedFile = (Arc<dyn DiskFile>, u64);

pub(crate) const SPARE: &str = "spare";

/// Filled piece by piece, so that the writer's own syncs never wait behind more
/// than this.
const PIECE_BYTES: u64 = 1 << 20;
/// Pauses between pieces, in times of what the last took: a sync that meets a
/// piece waits for it.
const PAUSES: u32 = 16;
/// The same while the spare is behind.
const PAUSES_BEHIND: u32 = 1;
/// How full the segment in use may be when the spare is done: not quite.
const DONE_AT_PERCENT: u64 = 90;

#[derive(Default)]
struct Slot {
    made: Option<Made>,
    /// Taken and still under the spare's name: until it is renamed nobody may
    /// make the next one, which would remove it.
    taken: bool,
}

struct Made {
    file: Arc<dyn DiskFile>,
    size: u64,
    /// Its space is ours: good as it is, and zeros only make it faster.
    claimed: bool,
    /// Filled with zeros up to here.
    filled: u64,
    /// What it is filled with: nothing once it is full.
    zeros: Vec<u8>,
}

#[derive(Clone, Default)]
pub(crate) struct Spare {
    slot: Arc<Mutex<Slot>>,
    /// Percent of the segment in use that are written.
    used: Arc<AtomicU64>,
}

impl Spare {
    pub fn is_missing(&self) -> bool {
        match self.slot.try_lock() {
            Ok(slot) => slot.made.is_none(),
            // Somebody is at it.
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Poisoned(_)) => true,
        }
    }

    /// Bytes that [`Self::take`] with the same arguments would claim on the disk.
    pub fn missing_bytes(&self, options: &Options, segment: u32, room: u64) -> u64 {
        let size = segment_size(options, segment).max(room);
        match self.slot.try_lock() {
            Ok(slot) => match &slot.made {
                Some(made) if made.size >= room && made.claimed => 0,
                Some(made) if made.size >= room => made.size - made.filled,
                _ => size,
            },
            // Somebody is at it.
            Err(_) => 0,
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
        let mut slot = self.lock();
        let made = match slot.made.take() {
            Some(made) if made.size >= room => Ok(made),
            _ => make(disk, segment_size(options, segment).max(room)),
        };
        let whole = made.and_then(|mut made| {
            while !made.claimed && made.filled < made.size {
                made.fill(disk)?;
            }
            Ok((made.file, made.size))
        });
        slot.taken = whole.is_ok();
        whole
    }

    /// The segment in use is written up to `offset` of `size`.
    pub fn used(&self, offset: u64, size: u64) {
        self.used.store(offset * 100 / size.max(1), Ordering::Relaxed);
    }

    pub fn renamed(&self) {
        self.lock().taken = false;
    }

    /// Pauses after a piece of a spare that is filled up to `at`.
    fn pauses(&self, at: u64, size: u64) -> u32 {
        let used = size.saturating_mul(self.used.load(Ordering::Relaxed));
        if at * DONE_AT_PERCENT < used { PAUSES_BEHIND } else { PAUSES }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().expect("no code panics while it holds this lock")
    }
}

fn make(disk: &dyn Disk, size: u64) -> Result<Made, Error> {
    let made = || {
        // Left by an attempt that failed for want of space.
        if disk.list()?.iter().any(|name| name == SPARE) {
            disk.remove(SPARE)?;
        }
        let file = disk.open(SPARE, true)?;
        let claimed = file.allocate(size)?;
        if claimed {
            sync_unless(Bug::SpareSyncSkipped, &*file)?;
        }
        let zeros = vec![0; (PIECE_BYTES.min(size) + BLOCK_BYTES) as usize];
        Ok(Made { file, size, claimed, filled: 0, zeros })
    };
    made().map_err(|error| no_room(disk, &error))
}

/// Half a spare would take the last of the space from everybody else.
fn no_room(disk: &dyn Disk, error: &io::Error) -> Error {
    let _ = disk.remove(SPARE);
    Error::NoRoom { path: disk.path(SPARE), reason: error.to_string() }
}

impl Made {
    /// Writes the next piece of zeros; after an error there is no spare.
    fn fill(&mut self, disk: &dyn Disk) -> Result<(), Error> {
        let len = (self.size - self.filled).min(PIECE_BYTES);
        let aligned = self.zeros.as_ptr().align_offset(BLOCK_BYTES as usize);
        let zeros = &self.zeros[aligned..aligned + len as usize];
        let written = self.file.write_all_past_cache_at(zeros, self.filled).and_then(|past_cache| {
            // What is in the cache the writer's next sync would wait for.
            let syncs = !past_cache || self.filled + len == self.size;
            if syncs { sync_unless(Bug::SpareSyncSkipped, &*self.file) } else { Ok(()) }
        });
        written.map_err(|error| no_room(disk, &error))?;
        self.filled += len;
        if self.filled == self.size {
            self.zeros = Vec::new();
        }
        Ok(())
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
    /// Bytes that the next segment would need on the disk now: 0 if they are
    /// claimed, or somebody is at it.
    pub fn missing_bytes(&self) -> u64 {
        self.spare.missing_bytes(&self.options, self.next_segment.load(Ordering::Acquire), 0)
    }

    /// Makes the next segment's file if it is not there yet.
    pub fn prepare(&self) -> Result<(), Error> {
        let mut slot = self.spare.lock();
        if slot.made.is_none() && !slot.taken {
            let segment = self.next_segment.load(Ordering::Acquire);
            slot.made = Some(make(&*self.disk, segment_size(&self.options, segment))?);
        }
        Ok(())
    }

    /// Fills a piece of it with zeros. Returns how long to leave the disk to the
    /// log before the next; `None` if there is nothing to fill.
    pub fn fill(&self) -> Result<Option<Duration>, Error> {
        let mut slot = self.spare.lock();
        let Some(mut made) = slot.made.take_if(|made| made.filled < made.size) else { return Ok(None) };
        let begun = Instant::now();
        made.fill(&*self.disk)?;
        let pause = begun.elapsed() * self.spare.pauses(made.filled, made.size);
        slot.made = Some(made);
        Ok(Some(pause))
    }
}

fn segment_size(options: &Options, segment: u32) -> u64 {
    let grown = options.first_segment_bytes.saturating_mul(4u64.saturating_pow(segment.min(16)));
    grown.min(options.segment_bytes).min(SEGMENT_BYTES_MAX)
}
