//! What happens after a crash: finding where the log ends.
//!
//! A batch that does not check out at the end of the last segment is a torn
//! tail, unless something valid lies behind it that was written only when it was
//! durable: a later batch that says so, a mark, the footer, another segment. That
//! proves damage to acknowledged data, which is told and never touched.
//!
//! What is handed out is durable: whoever remembers it elsewhere (an index) never
//! knows more than the log.
//!
//! # After a crash in here
//! Recovery writes only zeros over what nothing proves, and bytes over the same
//! bytes: doing it again gives the same log.

use std::io;
use std::sync::Arc;

use crate::copying::{self, Copying};
use crate::format::{
    ALIGN, BATCH_HEADER_BYTES, BatchHeader, FOOTER_BYTES, FORMAT_VERSION, Footer, Hash, MAX_BATCH_BYTES,
    NoHeader, RECORD_HEADER_BYTES, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES, SegmentHeader, align, hash,
    record_crc, segment_name, segment_of, u32_at,
};
use crate::identity::other_format;
use crate::planted::{Bug, has, sync_unless};
use crate::{Disk, DiskFile, LogId, OpenError, Place};

/// Where the log ends and what is known there.
#[derive(Clone)]
pub(crate) struct End {
    pub segment: u32,
    pub offset: u64,
    pub next: u64,
    pub last: Hash,
    pub epoch: u32,
    /// The last segment ends in a footer: the next batch goes to a new one.
    pub sealed: bool,
    /// Format of the last segment.
    pub format: u32,
    /// The last batch has a later witness: a mark, a footer or another segment.
    pub vouched: bool,
    /// Bytes of a torn tail that were cut off.
    pub cut_bytes: u64,
}

/// A segment that somebody else knows to be sealed and has seen every record
/// of, so that opening the log need not read it: only header and footer are
/// checked. The one after it must hold records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    pub segment: u32,
    /// Position of its first record.
    pub base: u64,
    /// Position after its last record.
    pub next: u64,
    /// Where the last record ends: there, or behind a mark, is the footer.
    end: u64,
}

impl SealedSegment {
    /// `last` is where the record before `next` lies.
    pub fn ending_with(segment: u32, base: u64, next: u64, last: Place) -> Self {
        let end = u64::from(last.offset) + RECORD_HEADER_BYTES as u64 + u64::from(last.len);
        Self { segment, base, next, end: align(end) }
    }
}

pub(crate) type Found = Vec<(u32, Arc<dyn DiskFile>)>;

/// Reads the log behind the `sealed` segments, hands every record to `each` in
/// order, and mends the tail, if it may: otherwise nothing is written.
pub(crate) fn recover(
    disk: &dyn Disk,
    log: LogId,
    sealed: &[SealedSegment],
    mend: bool,
    mut each: impl FnMut(u64, Place, &[u8]) -> Result<(), String>,
) -> Result<(Found, End), OpenError> {
    let names = disk.list().map_err(|source| OpenError::Io { what: "list", path: disk.path(""), source })?;
    let ids: Vec<u32> = names.iter().filter_map(|name| segment_of(name)).collect();
    if let Some((i, id)) = (0..).zip(&ids).find(|(i, id)| i != *id) {
        let reason = format!("segment {i} is missing before it");
        return Err(OpenError::Damaged { path: disk.path(&segment_name(*id)), offset: 0, reason });
    }
    let mut end = End {
        segment: 0,
        offset: 0,
        next: 0,
        last: [0; 32],
        epoch: 0,
        sealed: true,
        format: FORMAT_VERSION,
        vouched: true,
        cut_bytes: 0,
    };
    let mut found = Found::new();
    let copying_error = |what, source| OpenError::Io { what, path: disk.path(copying::FILE), source };
    let copying = copying::read(disk).map_err(|e| copying_error("read", e))?;
    for (i, &id) in ids.iter().enumerate() {
        let is_last = i + 1 == ids.len();
        let file = disk.open(&segment_name(id), false).map_err(|e| io_error(disk, id, "open", e))?;
        let mut scan = Scan { disk, id, file: file.clone(), bytes: Vec::new(), mend, copying };
        if let Some(sealed) = sealed.get(i) {
            scan.sealed(log, sealed, &mut end)?;
            found.push((id, file));
            continue;
        }
        if !scan.segment(log, is_last, &mut end, &mut each)? {
            // A segment whose header never got to disk holds nothing acknowledged.
            if mend {
                disk.remove(&segment_name(id)).map_err(|e| io_error(disk, id, "remove", e))?;
            }
            break;
        }
        found.push((id, file));
    }
    if ids.len() <= sealed.len() && !sealed.is_empty() {
        let reason = "it is missing, and was there when the log was indexed".to_owned();
        let path = disk.path(&segment_name(ids.len() as u32));
        return Err(OpenError::Damaged { path, offset: 0, reason });
    }
    if !mend {
        return Ok((found, end));
    }
    // Whatever it says: a power cut may bring an older word back, and from here on
    // this is a log of its own.
    if names.iter().any(|name| name == copying::FILE) {
        disk.remove(copying::FILE).map_err(|e| copying_error("remove", e))?;
    }
    // The process before may have died between making a name and syncing it;
    // what is served from here on must not vanish with the name.
    disk.sync_dir().map_err(|source| OpenError::Io {
        what: "sync the directory",
        path: disk.path(""),
        source,
    })?;
    Ok((found, end))
}

pub(crate) struct Scan<'a> {
    pub disk: &'a dyn Disk,
    pub id: u32,
    pub file: Arc<dyn DiskFile>,
    /// The whole segment: at most a few dozen MiB, freed before the next.
    pub bytes: Vec<u8>,
    /// Whether the tail may be written to.
    pub mend: bool,
    /// Where this log, being a copy, was written to when that ended.
    pub copying: Option<Copying>,
}

/// A batch that was found to be whole.
struct Seen {
    first: u64,
    offset: u64,
    count: u32,
}

impl Scan<'_> {
    fn sealed(&self, log: LogId, sealed: &SealedSegment, end: &mut End) -> Result<(), OpenError> {
        let io = |e| io_error(self.disk, self.id, "read", e);
        let len = self.file.len().map_err(io)?;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        if len < sealed.end + FOOTER_BYTES as u64 {
            return Err(self.damaged(len, "it is shorter than it was when it was sealed"));
        }
        self.file.read_exact_at(&mut header, 0).map_err(io)?;
        let header = SegmentHeader::decode(&header).map_err(|fault| self.no_header(fault))?;
        if !header.is_of(log.0, self.id, sealed.base) || sealed.segment != self.id || sealed.base != end.next
        {
            return Err(self.damaged(0, "it belongs to another log or place"));
        }
        let (footer, offset) = self.footer_behind(sealed.end, len).map_err(io)?;
        let Some(footer) = footer.filter(|footer| footer.next == sealed.next) else {
            return Err(self.damaged(offset, "the footer that sealed it is not there"));
        };
        (end.segment, end.offset) = (self.id, offset + FOOTER_BYTES as u64);
        (end.next, end.last, end.sealed) = (footer.next, footer.last, true);
        end.format = header.format;
        Ok(())
    }

    /// The footer at `offset` or behind the marks there, and where it was looked for last.
    fn footer_behind(&self, mut offset: u64, len: u64) -> io::Result<(Option<Footer>, u64)> {
        let mut batch = [0; BATCH_HEADER_BYTES];
        let mut footer = [0; FOOTER_BYTES];
        loop {
            if offset + FOOTER_BYTES as u64 > len {
                return Ok((None, offset));
            }
            self.file.read_exact_at(&mut footer, offset)?;
            if let Some(footer) = Footer::decode(&footer, self.id, offset) {
                return Ok((Some(footer), offset));
            }
            if offset + BATCH_HEADER_BYTES as u64 > len {
                return Ok((None, offset));
            }
            self.file.read_exact_at(&mut batch, offset)?;
            if BatchHeader::decode(&batch, self.id, offset).is_none_or(|header| !header.is_mark()) {
                return Ok((None, offset));
            }
            offset += BATCH_HEADER_BYTES as u64;
        }
    }

    /// False if the segment is the last and was never written to.
    fn segment(
        &mut self,
        log: LogId,
        is_last: bool,
        end: &mut End,
        each: &mut impl FnMut(u64, Place, &[u8]) -> Result<(), String>,
    ) -> Result<bool, OpenError> {
        let len = self.file.len().map_err(|e| io_error(self.disk, self.id, "read", e))?;
        if len > SEGMENT_BYTES_MAX {
            return Err(self.damaged(0, "it is longer than any segment"));
        }
        self.bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut self.bytes, 0).map_err(|e| io_error(self.disk, self.id, "read", e))?;
        let Some(header) = self.bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
            // A segment has its whole length before it has its name.
            return Err(self.damaged(0, "it is too short for a segment"));
        };
        let header = match SegmentHeader::decode(header) {
            Ok(header) => header,
            Err(fault) => {
                // The header is synced before anything is written behind it.
                let behind = &self.bytes[SEGMENT_HEADER_BYTES..];
                let broken = matches!(fault, NoHeader::Broken(_)) || has(Bug::NewerSegmentRemoved);
                let never_written = broken && behind.iter().all(|b| *b == 0);
                if is_last && end.sealed && never_written {
                    return Ok(false);
                }
                return Err(self.no_header(fault));
            }
        };
        if header.log != log.0 || header.segment != self.id {
            return Err(self.damaged(0, "it belongs to another log or place"));
        }
        if len < header.size && !has(Bug::CutSegmentTaken) {
            let reason = format!("it ends here, {} bytes too early", header.size - len);
            return Err(self.damaged(len, &reason));
        }
        if header.base != end.next {
            return Err(self.damaged(0, "its first position does not follow the segment before it"));
        }
        if !end.sealed {
            return Err(self.damaged(0, "the segment before it was never sealed"));
        }
        end.sealed = false;
        end.segment = self.id;
        end.format = header.format;
        end.vouched = true;
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        let mut batches = Vec::new();
        let mut durable_upto = 0;
        while let Some((batch, next_offset)) = self.batch(offset, end) {
            batches.push(Seen { first: batch.first, offset, count: batch.count });
            durable_upto = batch.durable_upto;
            end.last = hash(
                &self.bytes[offset as usize..offset as usize + BATCH_HEADER_BYTES + batch.body as usize],
            );
            end.next = batch.first + u64::from(batch.count);
            end.epoch = end.epoch.max(batch.epoch);
            end.vouched = batch.is_mark();
            offset = next_offset;
        }
        end.offset = offset;
        let is_proven =
            |batch: &Seen| !is_last || batch.first < durable_upto && !self.is_copied(batch.offset);
        let (proven, unproven) = match batches.iter().position(|batch| !is_proven(batch)) {
            Some(first) => batches.split_at(first),
            None => (&batches[..], &[][..]),
        };
        let early = if has(Bug::FoundHandedOutEarly) { &batches[..] } else { proven };
        early.iter().try_for_each(|batch| self.records(batch, each))?;
        let rest = self.bytes.get(offset as usize..).unwrap_or_default();
        if let Some(footer) = Footer::decode(rest, self.id, offset)
            && footer.next == end.next
            && footer.last == end.last
        {
            end.sealed = true;
            end.vouched = true;
            end.offset = offset + FOOTER_BYTES as u64;
        } else if is_last {
            self.cut_tail(offset, end)?;
        } else {
            let later = segment_name(self.id + 1);
            return Err(self.damaged(offset, &format!("no valid batch here, but {later} exists")));
        }
        if is_last && self.mend {
            // A batch proves the segment's header; without one, that is unproven too.
            let from = if batches.is_empty() {
                0
            } else {
                unproven.first().map_or(end.offset, |batch| batch.offset)
            };
            self.make_durable(from, end.offset)?;
        }
        batches[early.len()..].iter().try_for_each(|batch| self.records(batch, each))?;
        Ok(true)
    }

    /// Whether what is at `offset` was on its way to a copy, where batches prove nothing.
    fn is_copied(&self, offset: u64) -> bool {
        self.copying.is_some_and(|copying| copying.segment == self.id && copying.offset <= offset)
    }

    /// The valid batch at `offset` that continues the log, and where the next would be.
    pub fn batch(&self, offset: u64, end: &End) -> Option<(BatchHeader, u64)> {
        let at = usize::try_from(offset).ok()?;
        let header = self.bytes.get(at..)?.first_chunk::<BATCH_HEADER_BYTES>()?;
        let mut header = BatchHeader::decode(header, self.id, offset)?;
        let records =
            self.bytes.get(at + BATCH_HEADER_BYTES..at + BATCH_HEADER_BYTES + header.body as usize)?;
        if header.first != end.next || (header.previous != end.last && !has(Bug::ChainIgnored)) {
            return None;
        }
        let mut rest = records;
        let mut place = offset as u32 + BATCH_HEADER_BYTES as u32;
        for i in 0..header.count {
            let len = rest
                .get(..RECORD_HEADER_BYTES)
                .map(|head| u32_at(head, 0))
                .filter(|len| *len <= MAX_BATCH_BYTES)?;
            let body = rest.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + len as usize)?;
            if u32_at(rest, 4) != record_crc(self.id, place, body) {
                if has(Bug::HalfBatchServed) && i > 0 {
                    header.count = i;
                    rest = &[];
                    break;
                }
                return None;
            }
            rest = &rest[RECORD_HEADER_BYTES + len as usize..];
            place += RECORD_HEADER_BYTES as u32 + len;
        }
        rest.is_empty().then(|| (header, align(offset + BATCH_HEADER_BYTES as u64 + u64::from(header.body))))
    }

    /// Whether what is at `offset` may go on behind `read`, up to where the bytes are known.
    pub fn is_cut(&self, offset: u64, read: u64) -> bool {
        // A footer is shorter than a batch's header.
        if read < offset + BATCH_HEADER_BYTES as u64 {
            return true;
        }
        let header = self.bytes.get(offset as usize..).and_then(|rest| rest.first_chunk());
        header
            .and_then(|header| BatchHeader::decode(header, self.id, offset))
            .is_some_and(|header| read < offset + BATCH_HEADER_BYTES as u64 + u64::from(header.body))
    }

    fn records(
        &self,
        batch: &Seen,
        each: &mut impl FnMut(u64, Place, &[u8]) -> Result<(), String>,
    ) -> Result<(), OpenError> {
        let mut at = batch.offset as usize + BATCH_HEADER_BYTES;
        for i in 0..u64::from(batch.count) {
            let len = u32_at(&self.bytes, at);
            let body = &self.bytes[at + RECORD_HEADER_BYTES..at + RECORD_HEADER_BYTES + len as usize];
            let place = Place { segment: self.id, offset: at as u32, len };
            each(batch.first + i, place, body).map_err(|reason| self.damaged(at as u64, &reason))?;
            at += RECORD_HEADER_BYTES + len as usize;
        }
        Ok(())
    }

    /// Overwrites a torn tail with zeros, if it may, unless something behind it proves
    /// that it was durable once.
    pub fn cut_tail(&self, offset: u64, end: &mut End) -> Result<(), OpenError> {
        let tail = self.bytes.get(offset as usize..).unwrap_or_default();
        let torn = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if torn > 0 {
            let witness = self.witness_after(offset, end.next).filter(|_| !self.is_copied(offset));
            if let Some(later) = witness {
                let reason =
                    format!("no valid batch here, but what is at offset {later} proves that it was durable");
                return Err(self.damaged(offset, &reason));
            }
            if self.mend && !has(Bug::TailLeft) {
                let zeros = vec![0; torn];
                self.file
                    .write_all_at(&zeros, offset)
                    .map_err(|e| io_error(self.disk, self.id, "write", e))?;
            }
            end.cut_bytes = torn as u64;
        }
        Ok(())
    }

    /// Writes again what nothing proves durable, and syncs it before anybody is
    /// served from it: the process before may have died before its sync, and a
    /// page that a failed sync left clean in memory would never reach the disk.
    fn make_durable(&self, from: u64, until: u64) -> Result<(), OpenError> {
        let until = (until as usize).min(self.bytes.len());
        if !has(Bug::FoundNotRewritten) {
            self.file
                .write_all_at(&self.bytes[from as usize..until], from)
                .map_err(|e| io_error(self.disk, self.id, "write", e))?;
        }
        sync_unless(Bug::FoundServedUnsynced, &*self.file)
            .map_err(|e| io_error(self.disk, self.id, "sync", e))
    }

    /// Anything behind `offset` that was written only when what belongs at
    /// `offset` was durable: a batch that says so of a position lost, the batch
    /// behind a mark that was lost (marks are synced by themselves), a footer.
    fn witness_after(&self, offset: u64, next: u64) -> Option<u64> {
        let mut at = align(offset + 1);
        while let Some(bytes) = self.bytes.get(at as usize..).filter(|rest| rest.len() >= FOOTER_BYTES) {
            let header = bytes
                .first_chunk::<BATCH_HEADER_BYTES>()
                .and_then(|header| BatchHeader::decode(header, self.id, at));
            let vouches = |header: BatchHeader| header.durable_upto > next || header.first == next;
            let footer = Footer::decode(bytes, self.id, at).is_some() && !has(Bug::FooterIgnored);
            if (header.is_some_and(vouches) || footer) && !has(Bug::DamageCutOff) {
                return Some(at);
            }
            at += ALIGN;
        }
        None
    }

    fn no_header(&self, fault: NoHeader) -> OpenError {
        match fault {
            NoHeader::Broken(reason) => self.damaged(0, reason),
            NoHeader::Format(found) => other_format(self.disk, &segment_name(self.id), found),
        }
    }

    pub fn damaged(&self, offset: u64, reason: &str) -> OpenError {
        OpenError::Damaged { path: self.disk.path(&segment_name(self.id)), offset, reason: reason.into() }
    }
}

pub(crate) fn io_error(disk: &dyn Disk, segment: u32, what: &'static str, source: io::Error) -> OpenError {
    OpenError::Io { what, path: disk.path(&segment_name(segment)), source }
}
