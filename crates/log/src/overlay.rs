//! A view of a directory that is never written to: what is written goes to
//! memory, and files can be cut where they are damaged.
//!
//! # Promises
//! 1. Nothing below is created, changed or removed.
//! 2. What was written reads back, as on a disk that forgets everything at the end.
//!
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::format::{SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES, SegmentHeader, segment_of};
use crate::{Disk, DiskFile, OpenError};

pub struct Overlay {
    below: Arc<dyn Disk>,
    /// Files that differ from those below; `None` if they are gone.
    changed: Mutex<BTreeMap<String, Option<Arc<Layer>>>>,
}

struct Layer {
    below: Option<Arc<dyn DiskFile>>,
    state: Mutex<State>,
}

struct State {
    len: u64,
    /// From there on the file below is not looked at: zeros.
    below_until: u64,
    /// What was written, by offset; later ones lie over earlier ones.
    written: Vec<(u64, Vec<u8>)>,
}

impl Overlay {
    pub fn new(below: Arc<dyn Disk>) -> Self {
        Self { below, changed: Mutex::default() }
    }

    /// Shows the log as if it ended before that damage. False if it is none of a
    /// segment.
    pub fn end_before(&self, damage: &OpenError) -> io::Result<bool> {
        let OpenError::Damaged { path, offset, .. } = damage else { return Ok(false) };
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(false) };
        let Some(segment) = segment_of(name) else { return Ok(false) };
        let nothing_left = *offset < SEGMENT_HEADER_BYTES as u64;
        for later in self.list()? {
            if segment_of(&later).is_some_and(|id| id > segment || id == segment && nothing_left) {
                self.remove(&later)?;
            }
        }
        if !nothing_left {
            self.end_segment(name, *offset)?;
        }
        Ok(true)
    }

    fn end_segment(&self, name: &str, offset: u64) -> io::Result<()> {
        let layer = self.layer(name)?;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        LayerFile(layer.clone()).read_exact_at(&mut header, 0)?;
        let mut state = lock(&layer.state);
        state.below_until = state.below_until.min(offset);
        // One that was cut short has its length again.
        let size = SegmentHeader::decode(&header).map_or(0, |header| header.size);
        state.len = state.len.max(size.min(SEGMENT_BYTES_MAX));
        Ok(())
    }

    /// Shows nothing of what is below.
    pub fn hide_everything(&self) -> io::Result<()> {
        self.list()?.iter().try_for_each(|name| self.remove(name))
    }

    /// The layer over a file that exists.
    fn layer(&self, name: &str) -> io::Result<Arc<Layer>> {
        let mut changed = lock(&self.changed);
        match changed.get(name) {
            Some(Some(layer)) => Ok(layer.clone()),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => {
                let below = self.below.open(name, false)?;
                let len = below.len()?;
                let state = State { len, below_until: len, written: Vec::new() };
                let layer = Arc::new(Layer { below: Some(below), state: Mutex::new(state) });
                changed.insert(name.to_owned(), Some(layer.clone()));
                Ok(layer)
            }
        }
    }
}

impl Disk for Overlay {
    fn path(&self, name: &str) -> PathBuf {
        self.below.path(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let changed = lock(&self.changed);
        let mut names = self.below.list()?;
        names.retain(|name| !changed.contains_key(name));
        names.extend(changed.iter().filter(|(_, layer)| layer.is_some()).map(|(name, _)| name.clone()));
        names.sort();
        Ok(names)
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        if !create {
            return self.layer(name).map(|layer| Arc::new(LayerFile(layer)) as Arc<dyn DiskFile>);
        }
        if self.list()?.iter().any(|known| known == name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let state = State { len: 0, below_until: 0, written: Vec::new() };
        let layer = Arc::new(Layer { below: None, state: Mutex::new(state) });
        lock(&self.changed).insert(name.to_owned(), Some(layer.clone()));
        Ok(Arc::new(LayerFile(layer)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let layer = self.layer(from)?;
        let mut changed = lock(&self.changed);
        changed.insert(from.to_owned(), None);
        changed.insert(to.to_owned(), Some(layer));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.layer(name)?;
        lock(&self.changed).insert(name.to_owned(), None);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

struct LayerFile(Arc<Layer>);

impl DiskFile for LayerFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0.state).len)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = lock(&self.0.state);
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= state.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let from_below = end.min(state.below_until).saturating_sub(offset) as usize;
        let (below, above) = buffer.split_at_mut(from_below);
        above.fill(0);
        if let Some(file) = self.0.below.as_ref().filter(|_| !below.is_empty()) {
            file.read_exact_at(below, offset)?;
        }
        for (at, bytes) in &state.written {
            let (from, until) = ((*at).max(offset), (at + bytes.len() as u64).min(end));
            if from < until {
                let source = &bytes[(from - at) as usize..(until - at) as usize];
                buffer[(from - offset) as usize..(until - offset) as usize].copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = lock(&self.0.state);
        state.len = state.len.max(offset + bytes.len() as u64);
        state.written.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = lock(&self.0.state);
        state.below_until = state.below_until.min(len);
        state.written.retain_mut(|(at, bytes)| {
            bytes.truncate(len.saturating_sub(*at) as usize);
            !bytes.is_empty()
        });
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}
