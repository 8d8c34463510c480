//! A run: the index of some consecutive positions, immutable, in one file.
//!
//! ```text
//! header    64  magic "DAYBKRUN", format 4, zero 4, log id 16, base 8, end 8,
//!               first and last millisecond that an id names 6 each, CRC32C 4
//! places        offset 4, length 4 a position; blocks of 512 positions, each with its CRC32C
//! postings      blocks of entries sorted by (hash, first position): hash, count, positions
//! keys          blocks of entries sorted by key: key, next sequence, last position; before
//!               the keys, behind U+0001, the types: type, last position + 1, last position
//! meta          segment table, fences of postings and keys, filter
//! trailer   64  offsets of places, postings, keys, meta 8 each, length of meta 8, entries of
//!               the filter 8, first recordedtime 8, CRC32C of meta 4, CRC32C of the trailer 4
//! ```
//! Format 2 did not tell the times of the ids. A fence is a block's first key and its offset; fences and filter are kept in
//! memory, everything else is read when asked for.

use std::io;
use std::sync::Arc;

use daybook_log::{Disk, DiskFile, LogId, Place};
use daybook_model::Position;

use super::codec::{self, BLOCK_BYTES_MAX, Input, KeyEntry, Posting};
use super::filter::Filter;
use super::hash::is_filtered;
use super::pieces::Pieces;
use super::times::IdTimes;
use super::{KeyHead, Range};
use crate::planted::{Bug, has};

pub(super) const FORMAT: u32 = 3;
/// The last without the times of the ids.
const FORMAT_WITHOUT_TIMES: u32 = 2;
pub(super) const HEADER_BYTES: usize = 64;
pub(super) const TRAILER_BYTES: usize = 64;
pub(super) const MAGIC: [u8; 8] = *b"DAYBKRUN";
/// Positions of one block of places.
pub(super) const PLACES: u64 = 512;
pub(super) const PLACE_BYTES: usize = 8;

/// Where a block of postings begins: everything before is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PostingFence {
    pub hash: u64,
    pub first: u32,
    pub at: u64,
}

pub(super) struct KeyFence {
    pub text: Box<str>,
    pub at: u64,
}

pub(crate) struct Run {
    pub(super) name: String,
    file: Arc<dyn DiskFile>,
    pub(super) base: u64,
    pub(super) end: u64,
    /// Segment and the first position of this run in it.
    pub(super) segments: Vec<(u32, u64)>,
    /// Of the file.
    pub(super) bytes: u64,
    pub(super) first_time: i64,
    pub(super) id_times: IdTimes,
    pub(super) filter_entries: u64,
    filter: Filter,
    pub(super) posting_fences: Vec<PostingFence>,
    pub(super) key_fences: Vec<KeyFence>,
    pub(super) places_at: u64,
    pub(super) postings_at: u64,
    pub(super) postings_end: u64,
    pub(super) keys_end: u64,
}

pub(super) fn name(base: u64, end: u64) -> String {
    format!("{base:020}-{end:020}.run")
}

/// Base and end of a run's file name.
pub(crate) fn range_of(name: &str) -> Option<(u64, u64)> {
    let (base, end) = name.strip_suffix(".run")?.split_once('-')?;
    Some((base.parse().ok()?, end.parse().ok()?)).filter(|(base, end)| base < end)
}

/// Damage to an index is never damage to data: it is made again from the log.
pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Run {
    pub fn open(disk: &dyn Disk, name: &str, log: LogId) -> io::Result<Self> {
        let file = disk.open(name, false)?;
        let len = file.len()?;
        if len < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Err(damaged("it is too short"));
        }
        let header = read(&*file, 0, HEADER_BYTES)?;
        check(&header)?;
        let mut input = Input(&header);
        let fixed = |input: &mut Input<'_>| input.u64().ok_or_else(|| damaged("it is too short"));
        let is_run = input.take(8) == Some(&MAGIC);
        let format = input.u32().unwrap_or_default();
        let _ = input.u32();
        let is_known = (FORMAT_WITHOUT_TIMES..=FORMAT).contains(&format);
        if !is_run || !is_known || input.take(16) != Some(&log.0) {
            return Err(damaged("it belongs to another log or format"));
        }
        let (base, end) = (fixed(&mut input)?, fixed(&mut input)?);
        let id_times = match input.0.first_chunk() {
            Some(times) if format > FORMAT_WITHOUT_TIMES => IdTimes::decode(times),
            _ => IdTimes::ANY,
        };
        if range_of(name) != Some((base, end)) {
            return Err(damaged("it has another's name"));
        }
        let trailer = read(&*file, len - TRAILER_BYTES as u64, TRAILER_BYTES)?;
        check(&trailer)?;
        let mut input = Input(&trailer);
        let [places_at, postings_at, keys_at, meta_at, meta_len, filter_entries, first_time] =
            [(); 7].map(|()| input.u64().unwrap_or_default());
        let sections = [HEADER_BYTES as u64, places_at, postings_at, keys_at, meta_at];
        let meta_end = len - TRAILER_BYTES as u64;
        if !sections.is_sorted() || meta_at.checked_add(meta_len) != Some(meta_end) {
            return Err(damaged("its sections overlap"));
        }
        let mut pieces = Pieces::new(&*file, meta_at, meta_len)?;
        let meta = Meta::decode(&mut pieces);
        if input.u32() != Some(pieces.crc()?) {
            return Err(damaged("its fences' checksum is wrong"));
        }
        let meta = meta?;
        let ascend = meta.segments.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1);
        if !ascend || !meta.segments.iter().all(|(_, first)| (base..end).contains(first)) {
            return Err(damaged("its segment table is wrong"));
        }
        Ok(Self {
            name: name.to_owned(),
            file,
            base,
            end,
            segments: meta.segments,
            bytes: len,
            first_time: first_time as i64,
            id_times,
            filter_entries,
            filter: meta.filter,
            posting_fences: meta.posting_fences,
            key_fences: meta.key_fences,
            places_at,
            postings_at,
            postings_end: keys_at,
            keys_end: meta_at,
        })
    }

    pub fn len(&self) -> u64 {
        self.end - self.base
    }

    /// First position and offset of the block of places that holds `position`.
    pub(super) fn places_block(&self, position: u64) -> (u64, u64) {
        let block = (position - self.base) / PLACES;
        (self.base + block * PLACES, self.places_at + block * (PLACES * PLACE_BYTES as u64 + 4))
    }

    pub fn may_contain(&self, hash: u64) -> bool {
        !is_filtered(hash) || self.filter.may_contain(hash)
    }

    /// Places of up to a block of positions from `from` on.
    pub fn places(&self, from: u64) -> io::Result<Vec<Place>> {
        let (first, at) = self.places_block(from);
        let count = (self.end - first).min(PLACES) as usize;
        let bytes = self.block(at, count * PLACE_BYTES + 4)?;
        let mut input = Input(&bytes);
        let mut places = Vec::with_capacity(count);
        for position in first..first + count as u64 {
            let (Some(offset), Some(len)) = (input.u32(), input.u32()) else {
                return Err(damaged("a block of places is too short"));
            };
            if position >= from {
                places.push(Place { segment: self.segment_of(position), offset, len });
            }
        }
        Ok(places)
    }

    fn segment_of(&self, position: u64) -> u32 {
        let after = self.segments.partition_point(|(_, first)| *first <= position);
        self.segments.get(after.wrapping_sub(1)).map_or(u32::MAX, |(segment, _)| *segment)
    }

    /// At most about `limit` positions of the range, from its end if reverse.
    pub fn positions(&self, hash: u64, range: &Range, limit: usize, out: &mut Vec<u64>) -> io::Result<()> {
        let (from, until) = (range.from.max(self.base), range.until.min(self.end));
        if from >= until || !self.may_contain(hash) {
            return Ok(());
        }
        let wanted = out.len() + limit;
        let below = |position: u64| {
            let relative = u32::try_from(position - self.base).unwrap_or(u32::MAX);
            self.posting_fences.partition_point(|fence| (fence.hash, fence.first) <= (hash, relative))
        };
        // The block before the first fence beyond may hold it too; equal hashes may span several.
        let first = self.posting_fences.partition_point(|fence| fence.hash < hash).saturating_sub(1);
        let blocks = first.max(below(from).saturating_sub(1))..below(until - 1);
        let mut take = |i: usize| -> io::Result<bool> {
            let entries = self.posting_block(i)?;
            let mine = entries.iter().filter(|entry| entry.hash == hash).flat_map(|entry| &entry.positions);
            let mut some: Vec<u64> = mine.map(|at| self.base + u64::from(*at)).collect();
            some.retain(|position| (from..until).contains(position));
            if range.reverse {
                some.reverse();
            }
            out.extend(some);
            Ok(out.len() < wanted)
        };
        if range.reverse {
            for i in blocks.rev() {
                if !take(i)? {
                    break;
                }
            }
        } else {
            for i in blocks {
                if !take(i)? {
                    break;
                }
            }
        }
        out.truncate(wanted);
        Ok(())
    }

    pub fn posting_blocks(&self) -> usize {
        self.posting_fences.len()
    }

    /// Offset of the block in which a list has, or would have, this position.
    pub(super) fn posting_block_of(&self, hash: u64, at: u32) -> u64 {
        let after = self.posting_fences.partition_point(|fence| (fence.hash, fence.first) <= (hash, at));
        self.posting_fences.get(after.saturating_sub(1)).map_or(self.postings_at, |fence| fence.at)
    }

    pub(super) fn posting_block(&self, i: usize) -> io::Result<Vec<Posting>> {
        let at = self.posting_fences[i].at;
        let end = self.posting_fences.get(i + 1).map_or(self.postings_end, |fence| fence.at);
        let block = self.block(at, end.saturating_sub(at) as usize)?;
        codec::postings(&block).ok_or_else(|| damaged("a block of postings is unreadable"))
    }

    pub fn key_blocks(&self) -> usize {
        self.key_fences.len()
    }

    pub(super) fn key_block(&self, i: usize) -> io::Result<Vec<KeyEntry>> {
        let block = self.raw_key_block(i)?;
        codec::keys(&block).ok_or_else(|| damaged("a block of keys is unreadable"))
    }

    fn raw_key_block(&self, i: usize) -> io::Result<Vec<u8>> {
        let at = self.key_fences[i].at;
        let end = self.key_fences.get(i + 1).map_or(self.keys_end, |fence| fence.at);
        self.block(at, end.saturating_sub(at) as usize)
    }

    /// The block that holds `key` if any does.
    pub fn key_block_of(&self, key: &str) -> usize {
        self.key_fences.partition_point(|fence| &*fence.text <= key).saturating_sub(1)
    }

    pub fn head(&self, hash: u64, key: &str) -> io::Result<Option<KeyHead>> {
        if self.key_fences.is_empty() || !self.may_contain(hash) {
            return Ok(None);
        }
        let block = self.raw_key_block(self.key_block_of(key))?;
        let found = codec::find_key(&block, key).map_err(|()| damaged("a block of keys is unreadable"))?;
        Ok(found.map(|(next, last)| KeyHead { next, last: Position(self.base + u64::from(last)) }))
    }

    pub(super) fn head_of(&self, entry: &KeyEntry) -> KeyHead {
        KeyHead { next: entry.next, last: Position(self.base + u64::from(entry.last)) }
    }

    fn block(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        if !(4..=BLOCK_BYTES_MAX).contains(&len) {
            return Err(damaged("a block has no sensible length"));
        }
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).map_err(too_early)?;
        check(&bytes)?;
        bytes.truncate(len - 4);
        Ok(bytes)
    }
}

/// What is kept in memory of a run.
pub(super) struct Meta {
    pub segments: Vec<(u32, u64)>,
    pub posting_fences: Vec<PostingFence>,
    pub key_fences: Vec<KeyFence>,
    pub filter: Filter,
}

impl Meta {
    /// By pieces: a copy as a whole would be as large as the filter.
    pub fn encode(&self, put: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        put(&(self.segments.len() as u64).to_le_bytes())?;
        for (segment, first) in &self.segments {
            put(&segment.to_le_bytes())?;
            put(&first.to_le_bytes())?;
        }
        put(&(self.posting_fences.len() as u64).to_le_bytes())?;
        for fence in &self.posting_fences {
            put(&fence.hash.to_le_bytes())?;
            put(&fence.first.to_le_bytes())?;
            put(&fence.at.to_le_bytes())?;
        }
        put(&(self.key_fences.len() as u64).to_le_bytes())?;
        for fence in &self.key_fences {
            put(&(fence.text.len() as u32).to_le_bytes())?;
            put(fence.text.as_bytes())?;
            put(&fence.at.to_le_bytes())?;
        }
        self.filter.encode(put)
    }

    /// Its checksum is not known to be right yet.
    fn decode(input: &mut Pieces<'_>) -> io::Result<Self> {
        // Reserved by what is there, never by what a number says.
        let count = |input: &mut Pieces<'_>, least: u64| {
            let n = input.u64()?;
            let is_there = n.checked_mul(least).is_some_and(|bytes| bytes <= input.left());
            if is_there { Ok(n as usize) } else { Err(damaged("its fences are unreadable")) }
        };
        let n = count(input, 12)?;
        let mut segments = Vec::with_capacity(n);
        for _ in 0..n {
            segments.push((input.u32()?, input.u64()?));
        }
        let n = count(input, 20)?;
        let mut posting_fences = Vec::with_capacity(n);
        for _ in 0..n {
            posting_fences.push(PostingFence { hash: input.u64()?, first: input.u32()?, at: input.u64()? });
        }
        let n = count(input, 12)?;
        let mut key_fences = Vec::with_capacity(n);
        for _ in 0..n {
            let len = input.u32()? as usize;
            let text = str::from_utf8(input.take(len)?).map_err(|_| damaged("a key is no text"))?.into();
            key_fences.push(KeyFence { text, at: input.u64()? });
        }
        Ok(Self { segments, posting_fences, key_fences, filter: Filter::decode(input)? })
    }
}

fn read(file: &dyn DiskFile, at: u64, len: usize) -> io::Result<Vec<u8>> {
    if at.checked_add(len as u64).is_none_or(|end| end > file.len().unwrap_or(0)) {
        return Err(damaged("it ends too early"));
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).map_err(too_early)?;
    Ok(bytes)
}

/// A file that is shorter than it says was cut: that is damage too.
pub(super) fn too_early(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        _ => error,
    }
}

/// The last four bytes are the checksum of the others.
fn check(bytes: &[u8]) -> io::Result<()> {
    match bytes.split_last_chunk::<4>() {
        Some((body, crc)) if crc32c::crc32c(body) == u32::from_le_bytes(*crc) || has(Bug::IndexUnchecked) => {
            Ok(())
        }
        _ => Err(damaged("a checksum is wrong")),
    }
}
