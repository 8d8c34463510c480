//! A disk in memory that behaves as badly as real ones may, for tests.
//!
//! What a crash keeps: everything synced; of what was not, any subset, page by
//! page, a page perhaps only in some of its sectors, a sector perhaps only up
//! to some byte; of the names made, changed and removed since the directory was
//! synced, any number from the first on (a journal keeps their order). Which
//! subset, a seed decides, so that a failure can be repeated.
//!
//! What a failed sync does is what Linux does: the pages count as clean, stay
//! readable, and no later sync writes them.
//!
//! # Not here
//! Locks; reordered directory operations.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::{Disk, DiskFile};

const SECTOR: usize = 512;
const SECTORS_PER_PAGE: usize = 8;

/// Handle to one disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    /// Names as of the last directory sync, and what happened since.
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    calls: u64,
    crash_at: Option<u64>,
    fail_at: Option<(u64, io::ErrorKind)>,
    /// Every call from here on fails, until somebody makes room.
    full: bool,
    /// As a file system that has no space to give but what is written.
    claims_nothing: bool,
    read_only: bool,
    sync_takes: Duration,
    crashed: bool,
    failed: Option<&'static str>,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty_sectors: BTreeSet<usize>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Remove(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Write,
    Sync,
}

impl SimDisk {
    /// From call `n` on (the first is 1) nothing works; that call may still
    /// have had its effect.
    pub fn crash_at(&self, n: u64) {
        self.lock().crash_at = Some(n);
    }

    /// Call `n` fails, later ones work.
    pub fn fail_at(&self, n: u64, kind: io::ErrorKind) {
        self.lock().fail_at = Some((n, kind));
    }

    /// While full, a file cannot grow.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// From now on space is had by writing only.
    pub fn set_claims_nothing(&self) {
        self.lock().claims_nothing = true;
    }

    /// From now on it takes no writes, as a snapshot or a broken file system does.
    pub fn set_read_only(&self) {
        self.lock().read_only = true;
    }

    /// Syncs take a while from now on, so that others come in between.
    pub fn set_sync_time(&self, time: Duration) {
        self.lock().sync_takes = time;
    }

    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// What the failing call was, once it has failed.
    pub fn failed(&self) -> Option<&'static str> {
        self.lock().failed
    }

    /// The process died, the machine did not: all that was written is there,
    /// and still as dirty as it was.
    pub fn after_kill(&self) -> Self {
        let state = self.lock();
        Self::of(State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            name_changes: state.name_changes.clone(),
            ..State::default()
        })
    }

    /// The machine lost power; `seed` decides what it had written by then.
    pub fn after_power_loss(&self, seed: u64) -> Self {
        let state = self.lock();
        let mut random = Random::new(seed);
        let mut names = state.durable_names.clone();
        let kept = random.below(state.name_changes.len() + 1);
        state.name_changes[..kept].iter().for_each(|change| change.apply(&mut names));
        let files = state.files.iter().map(|content| content.after_power_loss(&mut random)).collect();
        Self::of(State { files, durable_names: names.clone(), names, ..State::default() })
    }

    /// Bytes of a file as they read now.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(name).map(|id| state.files[*id].now.clone())
    }

    /// Puts a file there, durably.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        let id = state.files.len();
        state.files.push(Content { now: bytes.clone(), durable: bytes, ..Content::default() });
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
    }

    fn of(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

impl State {
    /// Counts the call. `Err((error, effect))` if it is to fail; `effect`: it
    /// may nevertheless have done something.
    fn enter(&mut self, call: Call, what: &'static str) -> Result<(), (io::Error, bool)> {
        self.calls += 1;
        if self.crashed {
            return Err((io::Error::other("the machine is down"), false));
        }
        if self.crash_at == Some(self.calls) {
            self.crashed = true;
            self.failed = Some(what);
            return Err((io::Error::other("the machine went down"), call == Call::Write));
        }
        if self.read_only && call == Call::Write {
            return Err((io::ErrorKind::ReadOnlyFilesystem.into(), false));
        }
        if let Some((at, kind)) = self.fail_at
            && at == self.calls
        {
            self.failed = Some(what);
            return Err((kind.into(), call == Call::Write));
        }
        Ok(())
    }

    fn id_of(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, id) => {
                names.retain(|_, known| known != id);
                names.insert(name.clone(), *id);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Content {
    fn resize(&mut self, len: usize) {
        let old = self.now.len();
        self.now.resize(len, 0);
        if len > old {
            self.dirty_sectors.extend(old / SECTOR..len.div_ceil(SECTOR));
        }
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if end > self.now.len() {
            self.resize(end);
        }
        self.now[offset..end].copy_from_slice(bytes);
        self.dirty_sectors.extend(offset / SECTOR..end.div_ceil(SECTOR));
    }

    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for sector in std::mem::take(&mut self.dirty_sectors) {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.now.len());
            if range.start < range.end {
                self.durable[range.clone()].copy_from_slice(&self.now[range]);
            }
        }
    }

    fn after_power_loss(&self, random: &mut Random) -> Self {
        let mut kept = self.durable.clone();
        // The length is metadata of its own: it may be ahead of the data.
        if self.now.len() != self.durable.len() && random.below(2) == 0 {
            kept.resize(self.now.len(), 0);
        }
        let mut page = None;
        let mut fate = 0;
        for sector in &self.dirty_sectors {
            if page != Some(sector / SECTORS_PER_PAGE) {
                page = Some(sector / SECTORS_PER_PAGE);
                fate = random.below(4);
            }
            let start = sector * SECTOR;
            let full = ((sector + 1) * SECTOR).min(self.now.len());
            // Page lost, page written, some sectors written, some torn in the middle.
            let end = match fate {
                0 => continue,
                1 => full,
                2 if random.below(2) == 0 => continue,
                2 => full,
                _ => start + random.below(full.saturating_sub(start) + 1),
            };
            if end > kept.len() {
                kept.resize(end, 0);
            }
            if start < end {
                kept[start..end].copy_from_slice(&self.now[start..end]);
            }
        }
        Self { now: kept.clone(), durable: kept, dirty_sectors: BTreeSet::new() }
    }
}

impl Disk for SimDisk {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("sim").join(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.enter(Call::Read, "list").map_err(|(error, _)| error)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        if !create {
            state.enter(Call::Read, "open").map_err(|(error, _)| error)?;
            let id = state.id_of(name)?;
            return Ok(Arc::new(SimFile { disk: self.clone(), id }));
        }
        let entered = state.enter(Call::Write, "create");
        if let Err((error, false)) = entered {
            return Err(error);
        }
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.files.len();
        state.files.push(Content::default());
        state.rename(NameChange::Set(name.to_owned(), id));
        entered.map_err(|(error, _)| error)?;
        Ok(Arc::new(SimFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let entered = state.enter(Call::Write, "rename");
        if let Err((error, false)) = entered {
            return Err(error);
        }
        let id = state.id_of(from)?;
        state.rename(NameChange::Set(to.to_owned(), id));
        entered.map_err(|(error, _)| error)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let entered = state.enter(Call::Write, "remove");
        if let Err((error, false)) = entered {
            return Err(error);
        }
        state.id_of(name)?;
        state.rename(NameChange::Remove(name.to_owned()));
        entered.map_err(|(error, _)| error)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.enter(Call::Sync, "sync of the directory").map_err(|(error, _)| error)?;
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    id: usize,
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.lock();
        state.enter(Call::Read, "length").map_err(|(error, _)| error)?;
        Ok(state.files[self.id].now.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.enter(Call::Read, "read").map_err(|(error, _)| error)?;
        let from = offset as usize;
        let bytes = state.files[self.id].now.get(from..from + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let grows = offset as usize + bytes.len() > state.files[self.id].now.len();
        match state.enter(Call::Write, "write") {
            Ok(()) if state.full && grows => Err(io::ErrorKind::StorageFull.into()),
            Ok(()) => {
                state.files[self.id].write(bytes, offset as usize);
                Ok(())
            }
            Err((error, effect)) => {
                // A failing write may have written its first half, a crash anything.
                let half = if state.crashed { bytes } else { &bytes[..bytes.len() / 2] };
                if effect {
                    state.files[self.id].write(half, offset as usize);
                }
                Err(error)
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let entered = state.enter(Call::Write, "change of length");
        if !matches!(entered, Err((_, false))) {
            state.files[self.id].resize(len as usize);
        }
        entered.map_err(|(error, _)| error)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        let mut state = self.disk.lock();
        if state.claims_nothing {
            return Ok(false);
        }
        let grows = len as usize > state.files[self.id].now.len();
        let entered = state.enter(Call::Write, "claim of space");
        if entered.is_ok() && state.full && grows {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if !matches!(entered, Err((_, false))) {
            state.files[self.id].resize(len as usize);
        }
        entered.map(|()| true).map_err(|(error, _)| error)
    }

    fn sync_data(&self) -> io::Result<()> {
        let takes = self.disk.lock().sync_takes;
        if !takes.is_zero() {
            std::thread::sleep(takes);
        }
        let mut state = self.disk.lock();
        match state.enter(Call::Sync, "sync") {
            Ok(()) => {
                state.files[self.id].sync();
                Ok(())
            }
            Err((error, _)) => {
                if !state.crashed {
                    // Linux: reported once, then forgotten.
                    state.files[self.id].dirty_sectors.clear();
                }
                Err(error)
            }
        }
    }
}

/// xorshift64*: enough to choose with, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // SplitMix64's last steps: neighbouring seeds have nothing in common.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((z ^ (z >> 31)) | 1)
    }

    /// Any of 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}
