//! A disk that a test can stop at any kind of call, look at, and let go on.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use daybook_log::{Disk, DiskFile, RealDisk};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Read,
    Write,
    Sync,
    Create,
}

/// What becomes of a call that comes to a held place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Closed,
    Fails,
}

#[derive(Default)]
struct State {
    ways: HashMap<Call, Way>,
    /// Files opened so far, and how many of them are held: younger ones go on.
    opened: usize,
    held: Option<usize>,
    /// Calls that have come, held ones included.
    counts: HashMap<Call, usize>,
    waiting: usize,
}

pub struct HeldDisk {
    real: RealDisk,
    hold: Hold,
}

#[derive(Clone, Default)]
pub struct Hold(Arc<(Mutex<State>, Condvar)>);

impl Hold {
    /// From now on such calls wait.
    pub fn hold(&self, call: Call) {
        self.lock().ways.insert(call, Way::Closed);
    }

    /// The same, but only of files that are open by now.
    pub fn hold_opened(&self, call: Call) {
        let mut state = self.lock();
        state.held = Some(state.opened);
        state.ways.insert(call, Way::Closed);
    }

    /// Those that wait, and all later ones, go on.
    pub fn release(&self, call: Call) {
        self.lock().ways.remove(&call);
        self.0.1.notify_all();
    }

    /// Those that wait, and all later ones, fail.
    pub fn fail(&self, call: Call) {
        self.lock().ways.insert(call, Way::Fails);
        self.0.1.notify_all();
    }

    pub fn count(&self, call: Call) -> usize {
        self.lock().counts.get(&call).copied().unwrap_or_default()
    }

    /// Returns once `calls` of them wait.
    pub fn reached(&self, calls: usize) {
        let mut state = self.lock();
        while state.waiting < calls {
            state = self.0.1.wait(state).unwrap();
        }
    }

    /// `file`: how many were opened before it.
    fn pass(&self, call: Call, file: usize) -> io::Result<()> {
        let mut state = self.lock();
        if state.held.is_some_and(|held| file >= held) {
            return Ok(());
        }
        *state.counts.entry(call).or_default() += 1;
        state.waiting += 1;
        self.0.1.notify_all();
        while state.ways.get(&call) == Some(&Way::Closed) {
            state = self.0.1.wait(state).unwrap();
        }
        state.waiting -= 1;
        match state.ways.get(&call) {
            Some(_) => Err(io::Error::other("the test says so")),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }
}

impl HeldDisk {
    pub fn new(real: RealDisk) -> (Arc<Self>, Hold) {
        let hold = Hold::default();
        (Arc::new(Self { real, hold: hold.clone() }), hold)
    }
}

impl Disk for HeldDisk {
    fn path(&self, name: &str) -> PathBuf {
        self.real.path(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.real.list()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        if create {
            // The file itself is made at leisure, on a thread that nobody waits for.
            self.hold.pass(Call::Create, 0)?;
            return self.real.open(name, create);
        }
        let file = self.real.open(name, create)?;
        let mut state = self.hold.lock();
        state.opened += 1;
        Ok(Arc::new(HeldFile { file, number: state.opened - 1, hold: self.hold.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.real.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.real.sync_dir()
    }
}

struct HeldFile {
    file: Arc<dyn DiskFile>,
    number: usize,
    hold: Hold,
}

impl DiskFile for HeldFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.hold.pass(Call::Read, self.number)?;
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.hold.pass(Call::Write, self.number)?;
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.hold.pass(Call::Sync, self.number)?;
        self.file.sync_data()
    }
}
