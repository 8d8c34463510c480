//! The log as its one writer sees it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock};

use crate::disk::BLOCK_BYTES;
use crate::format::{
    BATCH_HEADER_BYTES, BatchHeader, FOOTER_BYTES, FORMAT_VERSION, FORMAT_WITH_MARKS, Footer, Hash,
    MAX_BATCH_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, align, hash, record_crc,
    segment_name,
};
use crate::planted::{Bug, has, sync_unless};
use crate::recover::{End, SealedSegment, recover};
use crate::spare::{Preparer, SPARE, Spare};
use crate::{Disk, DiskFile, Draft, Error, LogId, OpenError, Place, Reader, identity};

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
    /// Shared with the [`Preparer`], which has to know how large to make it.
    next_segment: Arc<AtomicU32>,
    next: u64,
    durable: u64,
    last: Hash,
    epoch: u32,
    /// Nothing was appended since the last mark or footer.
    vouched: bool,
    poisoned: Option<String>,
    draft: Draft,
    spare: Spare,
}

struct Active {
    segment: u32,
    format: u32,
    file: Arc<dyn DiskFile>,
    offset: u64,
    size: u64,
}

impl Log {
    /// Which log `disk` holds, `None` if none yet; refuses what is not ours.
    /// Only reads: for those who must know before they touch anything.
    pub fn identify(disk: &dyn Disk) -> Result<Option<LogId>, OpenError> {
        Ok(identity::read(disk)?.map(|known| known.id))
    }

    /// Opens or makes the log, handing every record to `each` in order.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        each: impl FnMut(u64, Place, &[u8]) -> Result<(), String>,
    ) -> Result<(Self, Recovered), OpenError> {
        Self::open_behind(disk, options, &[], each)
    }

    /// The same without reading the first segments, which are known to be
    /// `sealed`: opening then takes as long as the rest is.
    pub fn open_behind(
        disk: Arc<dyn Disk>,
        options: Options,
        sealed: &[SealedSegment],
        each: impl FnMut(u64, Place, &[u8]) -> Result<(), String>,
    ) -> Result<(Self, Recovered), OpenError> {
        let known = identity::read(&*disk)?;
        let created = known.is_none();
        let id = match known {
            Some(known) => known.id,
            None => {
                identity::write(&*disk, options.new_id)?;
                options.new_id
            }
        };
        let (found, end) = recover(&*disk, id, sealed, true, each)?;
        // Not before: one that is refused stays as it is, for the program that wrote it too.
        if let Some(known) = known {
            identity::bring_up_to_date(&*disk, known)?;
        }
        // A spare of a process that died may be half filled.
        let spare = |what, source| OpenError::Io { what, path: disk.path(SPARE), source };
        if disk.list().map_err(|e| spare("look for", e))?.iter().any(|name| name == SPARE) {
            disk.remove(SPARE).map_err(|e| spare("remove", e))?;
        }
        let recovered = Recovered { id, created, next: end.next, cut_bytes: end.cut_bytes };
        let mut log = Self::at_end(disk, id, options, found.into_iter().collect(), end)?;
        // What the process before left unproven is durable now: say so.
        log.vouch().map_err(|error| OpenError::Io {
            what: "vouch for the end of",
            path: log.disk.path(""),
            source: io::Error::other(error),
        })?;
        Ok((log, recovered))
    }

    /// Reads and checks every record and writes nothing. `None` if there is no
    /// log yet.
    pub fn verify(
        disk: &dyn Disk,
        each: impl FnMut(u64, Place, &[u8]) -> Result<(), String>,
    ) -> Result<Option<Recovered>, OpenError> {
        let Some(id) = Self::identify(disk)? else { return Ok(None) };
        let (_, end) = recover(disk, id, &[], false, each)?;
        Ok(Some(Recovered { id, created: false, next: end.next, cut_bytes: end.cut_bytes }))
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
                let file = file.clone();
                Some(Active { segment: *segment, format: end.format, file, offset: end.offset, size })
            }
            _ => None,
        };
        Ok(Self {
            disk,
            id,
            options,
            segments: Arc::new(RwLock::new(segments)),
            active,
            next_segment: Arc::new(AtomicU32::new(next_segment)),
            next: end.next,
            durable: end.next,
            last: end.last,
            epoch: end.epoch + 1,
            vouched: end.vouched,
            poisoned: None,
            draft: Draft::default(),
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

    /// Makes the next segment's file ahead of need, on another thread.
    pub fn preparer(&self) -> Preparer {
        Preparer {
            spare: self.spare.clone(),
            disk: self.disk.clone(),
            options: self.options.clone(),
            next_segment: self.next_segment.clone(),
        }
    }

    /// Whether [`Preparer::prepare`] has something to do.
    pub fn wants_spare(&self) -> bool {
        self.spare.is_missing()
    }

    /// Bytes that appending `draft` would claim on the disk: 0 if it fits, or the
    /// next segment's file is there.
    pub fn claims_for(&self, draft: &Draft) -> u64 {
        let needed = needed_for(draft.len());
        if draft.is_empty() || self.has_room_for(needed) {
            return 0;
        }
        let segment = self.next_segment.load(Ordering::Acquire);
        self.spare.missing_bytes(&self.options, segment, SEGMENT_HEADER_BYTES as u64 + needed)
    }

    /// The refusal of one that must not claim them.
    pub fn no_room(&self, reason: String) -> Error {
        Error::NoRoom { path: self.disk.path(SPARE), reason }
    }

    fn has_room_for(&self, needed: u64) -> bool {
        self.active.as_ref().is_some_and(|active| active.offset + needed <= active.size)
    }

    /// Writes `bodies` as one batch: see [`Log::append_draft`].
    pub fn append<'a>(&mut self, bodies: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Place>, Error> {
        let mut draft = std::mem::take(&mut self.draft);
        draft.clear();
        bodies.for_each(|body| draft.record(|out| out.extend_from_slice(body)));
        let places = self.append_draft(&mut draft);
        self.draft = draft;
        places
    }

    /// Writes the records of `draft` as one batch; durable only after
    /// [`Log::sync`]. Returns each record's place. After [`Error::NoRoom`] and
    /// [`Error::TooLarge`] nothing has changed; any other failure poisons the log.
    pub fn append_draft(&mut self, draft: &mut Draft) -> Result<Vec<Place>, Error> {
        self.check()?;
        if draft.is_empty() {
            return Ok(Vec::new());
        }
        if draft.len() > MAX_BATCH_BYTES as usize {
            return Err(Error::TooLarge { bytes: draft.len() as u64, limit: u64::from(MAX_BATCH_BYTES) });
        }
        self.write_batch(&mut draft.buffer, draft.count).map_err(|error| match error {
            Error::NoRoom { .. } | Error::TooLarge { .. } => error,
            error => self.poison(error),
        })
    }

    /// Everything appended is on disk when this returns.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.check()?;
        if let Some(active) = &self.active
            && self.durable < self.next
        {
            let mut result = sync_unless(Bug::SyncSkipped, &*active.file);
            if has(Bug::FailedSyncRetried) {
                result = result.or_else(|_| active.file.sync_data());
            }
            let segment = active.segment;
            result.map_err(|e| {
                let error = self.io(segment, "sync", e);
                self.poison(error)
            })?;
            self.durable = self.next;
        }
        Ok(())
    }

    /// Whether something proves that the last batch was durable. Until then
    /// damage to it could not be told from a torn tail.
    pub fn is_vouched(&self) -> bool {
        self.vouched
    }

    /// Writes that proof and syncs it: a mark, or the footer where a mark has no
    /// place. For when the log falls idle or stops: the next batch would prove
    /// the same.
    pub fn vouch(&mut self) -> Result<(), Error> {
        if has(Bug::MarkBeforeSync) {
            self.durable = self.next;
        }
        if has(Bug::MarkSkipped) {
            return Ok(());
        }
        self.sync()?;
        let Some(active) = self.active.as_ref().filter(|_| !self.vouched) else { return Ok(()) };
        let has_room = self.has_room_for(needed_for(BATCH_HEADER_BYTES));
        let result = if active.format < FORMAT_WITH_MARKS || !has_room {
            self.seal()
        } else {
            let (segment, file) = (active.segment, active.file.clone());
            self.write_batch(&mut vec![0; BATCH_HEADER_BYTES], 0)
                .and_then(|_| file.sync_data().map_err(|e| self.io(segment, "sync", e)))
        };
        result.map_err(|error| self.poison(error))?;
        self.vouched = true;
        Ok(())
    }

    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    fn write_batch(&mut self, buffer: &mut Vec<u8>, count: u32) -> Result<Vec<Place>, Error> {
        let needed = needed_for(buffer.len());
        if !self.has_room_for(needed) {
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
        // What follows is zero already. The spare's zeros are not in memory, so a
        // part of a block would have to be read before it can be written.
        let len = buffer.len();
        // These zeros would make that mistake harmless most times.
        if !has(Bug::TailLeft) {
            let end = (offset + len as u64).next_multiple_of(BLOCK_BYTES).min(active.size);
            buffer.resize((end - offset) as usize, 0);
        }
        let written = active.file.write_all_at(buffer, offset);
        buffer.truncate(len);
        written.map_err(|e| self.io(segment, "write", e))?;
        self.next += u64::from(count);
        self.vouched = false;
        if let Some(active) = &mut self.active {
            active.offset = align(offset + buffer.len() as u64);
            self.spare.used(active.offset, active.size);
        }
        Ok(places)
    }

    /// Seals the active segment and goes on in a new one with room for `needed`.
    /// The space is claimed before anything changes: a full disk is a refusal,
    /// not a failed write.
    fn roll(&mut self, needed: u64) -> Result<(), Error> {
        let segment = self.next_segment.load(Ordering::Acquire);
        let room = SEGMENT_HEADER_BYTES as u64 + needed;
        let (file, size) = self.spare.take(&*self.disk, &self.options, segment, room)?;
        self.seal()?;
        self.disk
            .rename(SPARE, &segment_name(segment))
            .map_err(|e| self.io(segment, "rename the spare to", e))?;
        self.spare.renamed();
        let header = SegmentHeader { format: FORMAT_VERSION, segment, log: self.id.0, base: self.next, size };
        file.write_all_at(&header.encode(), 0)
            .and_then(|()| sync_unless(Bug::HeaderSyncSkipped, &*file))
            .map_err(|e| self.io(segment, "write the header of", e))?;
        if !has(Bug::DirectorySyncSkipped) {
            self.disk.sync_dir().map_err(|e| self.io(segment, "sync the directory of", e))?;
        }
        self.segments.write().expect("no code panics while it holds this lock").insert(segment, file.clone());
        let offset = SEGMENT_HEADER_BYTES as u64;
        self.active = Some(Active { segment, format: FORMAT_VERSION, file, offset, size });
        self.next_segment.store(segment + 1, Ordering::Release);
        Ok(())
    }

    /// Ends the active segment, if there is one. A footer vouches for every batch
    /// before it, so those are synced first.
    fn seal(&mut self) -> Result<(), Error> {
        self.sync()?;
        let Some(active) = self.active.take() else { return Ok(()) };
        let footer =
            Footer { segment: active.segment, offset: active.offset, next: self.next, last: self.last };
        active
            .file
            .write_all_at(&footer.encode(), active.offset)
            .and_then(|()| sync_unless(Bug::FooterSyncSkipped, &*active.file))
            .map_err(|e| self.io(active.segment, "seal", e))
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
        if !has(Bug::FailureForgotten) {
            self.poisoned = Some(error.to_string());
        }
        error
    }

    fn io(&self, segment: u32, what: &'static str, error: io::Error) -> Error {
        Error::Io { what, path: self.disk.path(&segment_name(segment)), reason: error.to_string() }
    }
}

/// Bytes of a segment that a batch of `len` takes, and the footer after it.
fn needed_for(len: usize) -> u64 {
    align(len as u64) + FOOTER_BYTES as u64
}
