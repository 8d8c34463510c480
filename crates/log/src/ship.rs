//! Copying a log to another disk, while it is written to.
//!
//! # Promises
//! 1. What arrived opens as a log: whole batches, checked on the way, each
//!    following the one before by its hash.
//! 2. Nothing is copied that the source may still lose: the caller says how far
//!    it is durable.
//! 3. A copy of another log, or of another history of this one, is refused.
//! 4. Damage to the source is told, never taken for its end: what was copied by then
//!    does not pass for all of it.
//!
//! # After a crash
//! The copy is a log that has at least what had been synced (`copying.rs`); the
//! next [`Shipper::open`] goes on there.

use std::io;
use std::sync::Arc;

use crate::copying::{self, Copying, Marker};
use crate::format::{
    BATCH_HEADER_BYTES, BatchHeader, FOOTER_BYTES, Footer, NoHeader, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES,
    SegmentHeader, hash, segment_name, segment_of,
};
use crate::planted::{Bug, has};
use crate::recover::{End, Scan, io_error, recover};
use crate::spare::SPARE;
use crate::{Disk, DiskFile, LogId, OpenError, identity};

/// What one call of [`Shipper::ship`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shipped {
    pub bytes: u64,
    /// There may be another segment: call it again.
    pub more: bool,
}

/// Read at once from the source.
const PIECE_BYTES: u64 = 4 << 20;

pub struct Shipper {
    source: Arc<dyn Disk>,
    copy: Arc<dyn Disk>,
    id: LogId,
    end: End,
    next_segment: u32,
    marker: Marker,
}

impl Shipper {
    /// Goes on with the copy that is there, after checking all of it; begins one
    /// if there is none.
    pub fn open(source: Arc<dyn Disk>, copy: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let not_a_log = |disk: &dyn Disk, reason: &str| OpenError::NotALog {
            path: disk.path(""),
            reason: reason.to_owned(),
        };
        let id = identity::read(&*source)?.ok_or_else(|| not_a_log(&*source, "there is no log here"))?.id;
        let known = identity::read(&*copy)?;
        match known {
            None => identity::write(&*copy, id)?,
            Some(known) if known.id == id => {}
            Some(_) => return Err(not_a_log(&*copy, "it is a copy of another log")),
        }
        let (found, end) = recover(&*copy, id, &[], true, |_, _, _| Ok(()))?;
        if let Some(known) = known {
            identity::bring_up_to_date(&*copy, known)?;
        }
        let next_segment = found.len() as u32;
        let shipper = Self { source, copy, id, end, next_segment, marker: Marker::default() };
        shipper.check_history()?;
        Ok(shipper)
    }

    /// The copy's last segment must stand in the source as it is. Batches are chained,
    /// so whatever differs before it differs there too. Where batches of two histories
    /// end at other places, the next one alone would look like a torn tail.
    fn check_history(&self) -> Result<(), OpenError> {
        if self.next_segment == 0 {
            return Ok(());
        }
        let name = segment_name(self.end.segment);
        let begin_of = |disk: &dyn Disk| -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; self.end.offset as usize];
            disk.open(&name, false)?.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        let copied = begin_of(&*self.copy).map_err(|e| io_error(&*self.copy, self.end.segment, "read", e))?;
        match begin_of(&*self.source) {
            Ok(bytes) if bytes == copied => Ok(()),
            Ok(_) => Err(self.other_history(self.end.segment)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                Err(self.other_history(self.end.segment))
            }
            Err(error) => Err(io_error(&*self.source, self.end.segment, "read", error)),
        }
    }

    pub fn id(&self) -> LogId {
        self.id
    }

    /// Position that the copy's next record gets.
    pub fn next(&self) -> u64 {
        self.end.next
    }

    /// Copies batches below `durable` (all valid ones if `None`, for a log that
    /// nobody writes to), at most to the end of a segment.
    pub fn ship(&mut self, durable: Option<u64>) -> Result<Shipped, OpenError> {
        if durable.is_some_and(|durable| durable < self.end.next) {
            let reason = format!("it holds positions up to {}, more than the log itself", self.end.next);
            return Err(OpenError::NotALog { path: self.copy.path(""), reason });
        }
        let is_there = durable == Some(self.end.next);
        if is_there || self.end.sealed && !self.begin_segment(durable)? {
            return Ok(Shipped { bytes: 0, more: false });
        }
        let bytes = self.continue_segment(durable)?;
        Ok(Shipped { bytes, more: self.end.sealed })
    }

    /// False if the source has no next segment yet.
    fn begin_segment(&mut self, durable: Option<u64>) -> Result<bool, OpenError> {
        let (id, name) = (self.next_segment, segment_name(self.next_segment));
        let names = self.source.list();
        let names =
            names.map_err(|source| OpenError::Io { what: "list", path: self.source.path(""), source })?;
        if durable.is_some_and(|durable| durable <= self.end.next) {
            return Ok(false);
        }
        let later = names.iter().find(|name| segment_of(name).is_some_and(|later| later > id));
        if !names.contains(&name) {
            return match (durable, later) {
                // There is more, and it is not where this copy would go on.
                (Some(_), _) => Err(self.other_history(id)),
                (None, Some(later)) => {
                    Err(self.damaged(later, 0, &format!("segment {id} is missing before it")))
                }
                (None, None) => Ok(false),
            };
        }
        let read = |e| io_error(&*self.source, id, "read", e);
        let file = self.source.open(&name, false).map_err(|e| io_error(&*self.source, id, "open", e))?;
        let len = file.len().map_err(read)?;
        if !(SEGMENT_HEADER_BYTES as u64..=SEGMENT_BYTES_MAX).contains(&len) {
            return Err(self.damaged(&name, 0, "no segment has such a length"));
        }
        let mut header = [0; SEGMENT_HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(read)?;
        let size = match SegmentHeader::decode(&header) {
            Ok(header) if header.is_of(self.id.0, id, self.end.next) => header.size,
            // A process that died may have left it without a header.
            Err(NoHeader::Broken(_))
                if durable.is_none() && later.is_none() && is_empty(&*file, len).map_err(read)? =>
            {
                return Ok(false);
            }
            Err(NoHeader::Format(found)) => return Err(identity::other_format(&*self.source, &name, found)),
            _ => return Err(self.damaged(&name, 0, "it does not follow what was copied before")),
        };
        if len < size {
            return Err(self.damaged(&name, len, &format!("it ends here, {} bytes too early", size - len)));
        }
        // Like any segment it has its length and its header before it has its name.
        self.remove_spare(id)?;
        let copy = self.copy.open(SPARE, true).map_err(|e| io_error(&*self.copy, id, "create", e))?;
        if size > 0 {
            copy.set_len(size).map_err(|e| io_error(&*self.copy, id, "set the length of", e))?;
        }
        self.write(&*copy, id, &header, 0)?;
        self.copy.rename(SPARE, &name).map_err(|e| io_error(&*self.copy, id, "rename the spare to", e))?;
        self.copy.sync_dir().map_err(|e| io_error(&*self.copy, id, "sync the directory of", e))?;
        (self.end.segment, self.end.offset, self.end.sealed) = (id, SEGMENT_HEADER_BYTES as u64, false);
        self.next_segment += 1;
        Ok(true)
    }

    fn continue_segment(&mut self, durable: Option<u64>) -> Result<u64, OpenError> {
        let (id, name) = (self.end.segment, segment_name(self.end.segment));
        let file = self.source.open(&name, false).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.other_history(id),
            _ => io_error(&*self.source, id, "open", error),
        })?;
        let len = file.len().map_err(|e| io_error(&*self.source, id, "read", e))?;
        let mut scan = Scan { disk: &*self.source, id, file, bytes: Vec::new(), mend: false, copying: None };
        if len > SEGMENT_BYTES_MAX {
            return Err(scan.damaged(0, "it is longer than any segment"));
        }
        // Only what is new is read, a piece at a time; what is not stays zeros that
        // take no memory.
        scan.bytes = vec![0; len as usize];
        let begin = self.end.offset;
        let mut end = self.end.clone();
        let mut read = begin.min(len);
        loop {
            let until = (read + PIECE_BYTES).min(len);
            let piece = &mut scan.bytes[read as usize..until as usize];
            scan.file.read_exact_at(piece, read).map_err(|e| io_error(&*self.source, id, "read", e))?;
            read = until;
            while let Some((batch, next_offset)) = scan.batch(end.offset, &end) {
                let next = batch.first + u64::from(batch.count);
                // A mark at the durable end may not be synced yet: the next batch tells.
                if durable.is_some_and(|durable| next > durable || batch.is_mark() && next == durable) {
                    break;
                }
                let at = end.offset as usize;
                end.last = hash(&scan.bytes[at..at + BATCH_HEADER_BYTES + batch.body as usize]);
                end.next = next;
                end.offset = next_offset;
            }
            if read == len || !scan.is_cut(end.offset, read) {
                break;
            }
        }
        let here = scan.bytes.get(end.offset as usize..).unwrap_or_default();
        let other_history = here
            .first_chunk::<BATCH_HEADER_BYTES>()
            .and_then(|header| BatchHeader::decode(header, id, end.offset))
            .is_some_and(|header| header.first == end.next && header.previous != end.last);
        if other_history {
            return Err(self.other_history(id));
        }
        if let Some(footer) = Footer::decode(here, id, end.offset)
            && footer.next == end.next
            && footer.last == end.last
            // Like a mark.
            && durable.is_none_or(|durable| footer.next < durable)
        {
            end.offset += FOOTER_BYTES as u64;
            end.sealed = true;
        }
        let stuck = !end.sealed && scan.batch(end.offset, &end).is_none() && !has(Bug::CopyEndsAtDamage);
        let damage = if stuck { self.check_end(&mut scan, read, &end, durable) } else { Ok(()) };
        let until = (end.offset as usize).min(scan.bytes.len());
        let new = &scan.bytes[begin as usize..until];
        if !new.is_empty() {
            let copy = self.copy.open(&name, false).map_err(|e| io_error(&*self.copy, id, "open", e))?;
            let marking =
                |source| OpenError::Io { what: "write", path: self.copy.path(copying::FILE), source };
            self.marker.begin(&*self.copy, Copying { segment: id, offset: begin }).map_err(marking)?;
            self.write(&*copy, id, new, begin)?;
            self.marker.end().map_err(marking)?;
        }
        let bytes = new.len() as u64;
        // Not before: should it fail, the same is copied again.
        self.end = end;
        damage.map(|()| bytes)
    }

    /// Whether the source may end where it has no valid batch: by the rules of recovery,
    /// or because nobody says that there is more. `scan` was read up to `read`.
    fn check_end(
        &self,
        scan: &mut Scan<'_>,
        read: u64,
        end: &End,
        durable: Option<u64>,
    ) -> Result<(), OpenError> {
        let name = segment_name(scan.id);
        if let Some(durable) = durable {
            let reason = format!("no valid batch here, but positions up to {durable} are said to be durable");
            return if end.next < durable { Err(self.damaged(&name, end.offset, &reason)) } else { Ok(()) };
        }
        let names = self.source.list();
        let names =
            names.map_err(|source| OpenError::Io { what: "list", path: self.source.path(""), source })?;
        if let Some(later) = names.iter().find(|name| segment_of(name).is_some_and(|later| later > scan.id)) {
            let reason = format!("no valid batch here, but {later} exists");
            return Err(self.damaged(&name, end.offset, &reason));
        }
        let io = |e| io_error(&*self.source, scan.id, "read", e);
        scan.file.read_exact_at(&mut scan.bytes[read as usize..], read).map_err(io)?;
        scan.copying = copying::read(&*self.source).map_err(io)?;
        scan.cut_tail(end.offset, &mut end.clone())
    }

    /// What an attempt left that was cut off by a crash.
    fn remove_spare(&self, id: u32) -> Result<(), OpenError> {
        let io = |what, e| io_error(&*self.copy, id, what, e);
        if self.copy.list().map_err(|e| io("list the files beside", e))?.iter().any(|name| name == SPARE) {
            self.copy.remove(SPARE).map_err(|e| io("remove the spare of", e))?;
        }
        Ok(())
    }

    /// The source.
    fn damaged(&self, name: &str, offset: u64, reason: &str) -> OpenError {
        OpenError::Damaged { path: self.source.path(name), offset, reason: reason.to_owned() }
    }

    fn other_history(&self, segment: u32) -> OpenError {
        OpenError::Damaged {
            path: self.copy.path(&segment_name(segment)),
            offset: self.end.offset,
            reason: "the copy has another history than the log, here or before".into(),
        }
    }

    fn write(&self, file: &dyn DiskFile, id: u32, bytes: &[u8], at: u64) -> Result<(), OpenError> {
        file.write_all_at(bytes, at)
            .and_then(|()| file.sync_data())
            .map_err(|e| io_error(&*self.copy, id, "write", e))
    }
}

/// Whether nothing is behind the segment's header.
fn is_empty(segment: &dyn DiskFile, len: u64) -> io::Result<bool> {
    let mut bytes = vec![0; len as usize - SEGMENT_HEADER_BYTES];
    segment.read_exact_at(&mut bytes, SEGMENT_HEADER_BYTES as u64)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}
