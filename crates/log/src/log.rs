//! The log as its one writer sees it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, RwLock};

use crate::format::{
    BATCH_HEADER_BYTES, BatchHeader, FOOTER_BYTES, Footer, Hash, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES,
    SegmentHeader, align, hash, record_crc, segment_name,
};
use crate::recover::{End, recover};
use crate::{Disk, DiskFile, Error, LogId, OpenError, Place, Reader, identity};

#[derive(Clone, Debug)]
pub struct Options {
    /// A new log gets this identity.
    pub new_id: LogId,
    /// Size of the first segment; each next one is four times larger, so that a
    /// demo claims little …
    pub first_segment_bytes: u64,
    /// … up to this.
    pub segment_bytes: u64,
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub id: LogId,
    pub created: bool,
    /// Position the next record will get.
    pub next: u64,
    /// Bytes of a torn tail that were cut off.
    pub cut_bytes: u64,
}

/// One writer's log. Not `Clone`: two writers would break every promise.
pub struct Log {
    disk: Arc<dyn Disk>,
    id: LogId,
    options: Options,
    segments: Arc<RwLock<BTreeMap<u32, Arc<dyn DiskFile>>>>,
    active: Option<Active>,
    next_segment: u32,
    next: u64,
    durable: u64,
    last: Hash,
    epoch: u32,
    poisoned: Option<String>,
    buffer: Vec<u8>,
    spare: Spare,
}

struct Active {
    segment: u32,
    file: Arc<dyn DiskFile>,
    offset: u64,
    size: u64,
}

/// A zero-filled file made ahead. `prepare` may run on another thread.
#[derive(Clone, Default)]
pub(crate) struct Spare(Arc<Mutex<Option<SizedFile>>>);

/// A file and how many bytes of it are written.
type SizedFile = (Arc<dyn DiskFile>, u64);

const SPARE: &str = "spare";

impl Log {
    /// Opens or makes the log, handing every record to `each` in order.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        each: impl FnMut(u64, Place, &[u8]) -> Result<(), String>,
    ) -> Result<(Self, Recovered), OpenError> {
        let known = identity::read(&*disk)?;
        let created = known.is_none();
        let id = match known {
            Some(id) => id,
            None => {
                identity::write(&*disk, options.new_id)?;
                options.new_id
            }
        };
        let (found, end) = recover(&*disk, id, each)?;
        // A spare of a process that died may be half filled.
        if disk.list().is_ok_and(|names| names.iter().any(|name| name == SPARE)) {
            disk.remove(SPARE).map_err(|source| OpenError::Io {
                what: "remove",
                path: disk.path(SPARE),
                source,
            })?;
        }
        let recovered = Recovered { id, created, next: end.next, cut_bytes: end.cut_bytes };
        let log = Self::at_end(disk, id, options, found.into_iter().collect(), end)?;
        Ok((log, recovered))
    }

    fn at_end(
        disk: Arc<dyn Disk>,
        id: LogId,
        options: Options,
        segments: BTreeMap<u32, Arc<dyn DiskFile>>,
        end: End,
    ) -> Result<Self, OpenError> {
        let next_segment = segments.last_key_value().map_or(0, |(id, _)| id + 1);
        let active = match segments.last_key_value() {
            Some((segment, file)) if !end.sealed => {
                let size = file.len().map_err(|source| OpenError::Io {
                    what: "read",
                    path: disk.path(&segment_name(*segment)),
                    source,
                })?;
                Some(Active { segment: *segment, file: file.clone(), offset: end.offset, size })
            }
            _ => None,
        };
        Ok(Self {
            disk,
            id,
            options,
            segments: Arc::new(RwLock::new(segments)),
            active,
            next_segment,
            next: end.next,
            durable: end.next,
            last: end.last,
            epoch: end.epoch + 1,
            poisoned: None,
            buffer: Vec::new(),
            spare: Spare::default(),
        })
    }

    pub fn id(&self) -> LogId {
        self.id
    }

    /// Position the next record will get.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn reader(&self) -> Reader {
        Reader { disk: self.disk.clone(), segments: self.segments.clone() }
    }

    /// Fills a file with zeros for the next segment; to be called off the
    /// writer's thread. Writing over written space makes a sync twice as fast.
    pub fn preparer(&self) -> impl FnMut() -> io::Result<()> + Send + 'static {
        let (spare, disk, options) = (self.spare.clone(), self.disk.clone(), self.options.clone());
        let mut segment = self.next_segment;
        move || {
            if spare.lock().is_some() {
                return Ok(());
            }
            let size = segment_size(&options, segment);
            segment += 1;
            let _ = disk.remove(SPARE);
            let file = disk.open(SPARE, true)?;
            let zeros = vec![0; 1 << 20];
            let mut at = 0;
            while at < size {
                let len = (size - at).min(zeros.len() as u64);
                file.write_all_at(&zeros[..len as usize], at)?;
                at += len;
            }
            file.sync_data()?;
            disk.sync_dir()?;
            *spare.lock() = Some((file, size));
            Ok(())
        }
    }

    /// Writes `bodies` as one batch; durable only after [`Log::sync`]. Returns
    /// each record's place.
    pub fn append<'a>(
        &mut self,
        bodies: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Place>, Error> {
        self.check()?;
        let count = bodies.len() as u32;
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.resize(BATCH_HEADER_BYTES, 0);
        for body in bodies {
            buffer.extend_from_slice(&(body.len() as u32).to_le_bytes());
            buffer.extend_from_slice(&[0; 4]);
            buffer.extend_from_slice(body);
        }
        let result = self.write_batch(&mut buffer, count);
        self.buffer = buffer;
        result.map_err(|error| self.poison(error))
    }

    /// Everything appended is on disk when this returns.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.check()?;
        if let Some(active) = &self.active
            && self.durable < self.next
        {
            let result = active.file.sync_data();
            let segment = active.segment;
            result.map_err(|e| {
                let error = self.io(segment, "sync", e);
                self.poison(error)
            })?;
            self.durable = self.next;
        }
        Ok(())
    }

    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    fn write_batch(&mut self, buffer: &mut [u8], count: u32) -> Result<Vec<Place>, Error> {
        let needed = align(buffer.len() as u64) + FOOTER_BYTES as u64;
        if self.active.as_ref().is_none_or(|active| active.offset + needed > active.size) {
            self.roll(needed)?;
        }
        let active = self.active.as_ref().expect("rolling leaves an active segment");
        let (segment, offset) = (active.segment, active.offset);
        let mut places = Vec::with_capacity(count as usize);
        let mut at = BATCH_HEADER_BYTES;
        for _ in 0..count {
            let len = crate::format::u32_at(buffer, at);
            let place = Place { segment, offset: (offset + at as u64) as u32, len };
            let body = at + RECORD_HEADER_BYTES..at + RECORD_HEADER_BYTES + len as usize;
            let crc = record_crc(segment, place.offset, &buffer[body.clone()]);
            buffer[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
            places.push(place);
            at = body.end;
        }
        let header = BatchHeader {
            segment,
            offset,
            first: self.next,
            count,
            body: (buffer.len() - BATCH_HEADER_BYTES) as u32,
            durable_upto: self.durable,
            epoch: self.epoch,
            previous: self.last,
        };
        buffer[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
        self.last = hash(buffer);
        active.file.write_all_at(buffer, offset).map_err(|e| self.io(segment, "write", e))?;
        self.next += u64::from(count);
        if let Some(active) = &mut self.active {
            active.offset = align(offset + buffer.len() as u64);
        }
        Ok(places)
    }

    /// Seals the active segment and goes on in a new one with room for `needed`.
    fn roll(&mut self, needed: u64) -> Result<(), Error> {
        if let Some(active) = self.active.take() {
            let footer =
                Footer { segment: active.segment, offset: active.offset, next: self.next, last: self.last };
            active
                .file
                .write_all_at(&footer.encode(), active.offset)
                .and_then(|()| active.file.sync_data())
                .map_err(|e| self.io(active.segment, "seal", e))?;
            self.durable = self.next;
        }
        let segment = self.next_segment;
        let name = segment_name(segment);
        let room = SEGMENT_HEADER_BYTES as u64 + needed;
        let spare = self.spare.lock().take();
        let (file, size) = match spare {
            Some((file, size)) if size >= room => {
                self.disk.rename(SPARE, &name).map_err(|e| self.io(segment, "rename the spare to", e))?;
                (file, size)
            }
            _ => {
                let size = segment_size(&self.options, segment).max(room);
                let file = self.disk.open(&name, true).map_err(|e| self.io(segment, "create", e))?;
                file.set_len(size).map_err(|e| self.io(segment, "grow", e))?;
                (file, size)
            }
        };
        let header = SegmentHeader { segment, log: self.id.0, base: self.next };
        file.write_all_at(&header.encode(), 0)
            .and_then(|()| file.sync_data())
            .map_err(|e| self.io(segment, "write the header of", e))?;
        self.disk.sync_dir().map_err(|e| self.io(segment, "sync the directory of", e))?;
        self.segments.write().expect("no code panics while it holds this lock").insert(segment, file.clone());
        self.active = Some(Active { segment, file, offset: SEGMENT_HEADER_BYTES as u64, size });
        self.next_segment += 1;
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        match &self.poisoned {
            Some(since) => Err(Error::Poisoned { since: since.clone() }),
            None => Ok(()),
        }
    }

    /// After a failed write nobody knows what is on disk; Linux forgets the
    /// dirty pages of a failed sync, so trying again would lie.
    fn poison(&mut self, error: Error) -> Error {
        self.poisoned = Some(error.to_string());
        error
    }

    fn io(&self, segment: u32, what: &'static str, error: io::Error) -> Error {
        Error::Io { what, path: self.disk.path(&segment_name(segment)), reason: error.to_string() }
    }
}

impl Spare {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<SizedFile>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

fn segment_size(options: &Options, segment: u32) -> u64 {
    let grown = options.first_segment_bytes.saturating_mul(4u64.saturating_pow(segment.min(16)));
    grown.min(options.segment_bytes)
}
