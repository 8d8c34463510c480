//! Writing a run: everything in order, once, then its name.
//!
//! # After a crash
//! A half-written run has the name `*.tmp`; opening removes it.

use std::io;
use std::sync::Arc;

use daybook_log::{Disk, DiskFile, LogId, Place};

use super::codec::{self, BLOCK_BYTES, BLOCK_BYTES_MAX, KeyEntry, LIST_MAX};
use super::filter::Filter;
use super::hash::is_filtered;
use super::run::{self, FORMAT, KeyFence, MAGIC, Meta, PLACES, PostingFence, Run};
use super::times::IdTimes;

/// Written and synced in pieces, so that the log's own syncs never wait behind more.
const PIECE_BYTES: usize = 1 << 20;

pub(super) struct RunWriter<'a> {
    disk: &'a dyn Disk,
    log: LogId,
    name: String,
    temporary: String,
    out: Output,
    base: u64,
    first_time: i64,
    filter_entries: u64,
    meta: Meta,
    /// The block under way.
    block: Vec<u8>,
    block_places: u64,
    /// Of the block's last entry.
    block_hash: u64,
    /// Of the list under way.
    last_hash: u64,
    last_key: String,
    list: Vec<u32>,
    places_at: u64,
    postings_at: u64,
    keys_at: u64,
}

/// The file as far as it is made.
struct Output {
    file: Arc<dyn DiskFile>,
    /// Not yet written; it begins at `written`.
    buffer: Vec<u8>,
    written: u64,
}

impl<'a> RunWriter<'a> {
    /// Begins a run of [`base`, `end`); `filter_entries`: at least its ids and keys.
    pub fn create(
        disk: &'a dyn Disk,
        log: LogId,
        (base, end): (u64, u64),
        filter_entries: u64,
        first_time: i64,
        id_times: IdTimes,
    ) -> io::Result<Self> {
        let name = run::name(base, end);
        let temporary = format!("{name}.tmp");
        if disk.list()?.contains(&temporary) {
            disk.remove(&temporary)?;
        }
        let file = disk.open(&temporary, true)?;
        let mut header = Vec::with_capacity(PIECE_BYTES + BLOCK_BYTES_MAX);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&log.0);
        header.extend_from_slice(&base.to_le_bytes());
        header.extend_from_slice(&end.to_le_bytes());
        id_times.encode(&mut header);
        debug_assert_eq!(header.len(), run::HEADER_BYTES - 4);
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        let entries = usize::try_from(filter_entries).unwrap_or(usize::MAX);
        Ok(Self {
            disk,
            log,
            name,
            temporary,
            out: Output { file, buffer: header, written: 0 },
            base,
            first_time,
            filter_entries,
            meta: Meta {
                segments: Vec::new(),
                posting_fences: Vec::new(),
                key_fences: Vec::new(),
                filter: Filter::for_entries(entries),
            },
            block: Vec::new(),
            block_places: 0,
            block_hash: 0,
            // No kind has this.
            last_hash: u64::MAX,
            last_key: String::new(),
            list: Vec::new(),
            places_at: run::HEADER_BYTES as u64,
            postings_at: 0,
            keys_at: 0,
        })
    }

    /// First: every position's place, in order.
    pub fn place(&mut self, position: u64, place: Place) -> io::Result<()> {
        if self.meta.segments.last().is_none_or(|(segment, _)| *segment != place.segment) {
            self.meta.segments.push((place.segment, position));
        }
        self.block.extend_from_slice(&place.offset.to_le_bytes());
        self.block.extend_from_slice(&place.len.to_le_bytes());
        self.block_places += 1;
        if self.block_places == PLACES {
            self.block_places = 0;
            self.close_block()?;
        }
        Ok(())
    }

    pub fn places_done(&mut self) -> io::Result<()> {
        self.close_block()?;
        self.postings_at = self.at();
        Ok(())
    }

    /// Second: positions (absolute, ascending) of a hash; hashes ascend, and one
    /// may come again with later positions.
    pub fn postings(&mut self, hash: u64, positions: impl Iterator<Item = u64>) -> io::Result<()> {
        if hash != self.last_hash {
            self.close_list()?;
            if is_filtered(hash) {
                self.meta.filter.insert(hash);
            }
        }
        self.last_hash = hash;
        for position in positions {
            self.list.push((position - self.base) as u32);
            if self.list.len() == LIST_MAX {
                self.close_list()?;
            }
        }
        Ok(())
    }

    fn close_list(&mut self) -> io::Result<()> {
        let Some(first) = self.list.first().copied() else { return Ok(()) };
        let hash = self.last_hash;
        let previous = if self.block.is_empty() {
            self.meta.posting_fences.push(PostingFence { hash, first, at: self.at() });
            0
        } else {
            self.block_hash
        };
        codec::put_posting(&mut self.block, previous, hash, &self.list);
        self.block_hash = hash;
        self.list.clear();
        if self.block.len() >= BLOCK_BYTES { self.close_block() } else { Ok(()) }
    }

    pub fn postings_done(&mut self) -> io::Result<()> {
        self.close_list()?;
        self.close_block()?;
        self.keys_at = self.at();
        Ok(())
    }

    /// Third: the keys, ascending; `last` relative to the run's base.
    pub fn key(&mut self, entry: &KeyEntry) -> io::Result<()> {
        let previous = if self.block.is_empty() {
            self.meta.key_fences.push(KeyFence { text: entry.text.as_str().into(), at: self.at() });
            ""
        } else {
            &self.last_key
        };
        codec::put_key(&mut self.block, previous, entry);
        self.last_key.clone_from(&entry.text);
        if self.block.len() >= BLOCK_BYTES { self.close_block() } else { Ok(()) }
    }

    /// Last: durable and under its name when this returns.
    pub fn finish(mut self) -> io::Result<Run> {
        self.close_block()?;
        let (meta_at, mut crc) = (self.at(), 0);
        self.meta.encode(&mut |bytes| {
            crc = crc32c::crc32c_append(crc, bytes);
            self.out.put(bytes)
        })?;
        let meta_len = self.at() - meta_at;
        // The run reads its own, and two of the largest are more than anything else in memory.
        drop(self.meta);
        let mut trailer = Vec::with_capacity(run::TRAILER_BYTES);
        let numbers = [
            self.places_at,
            self.postings_at,
            self.keys_at,
            meta_at,
            meta_len,
            self.filter_entries,
            self.first_time as u64,
        ];
        numbers.iter().for_each(|n| trailer.extend_from_slice(&n.to_le_bytes()));
        trailer.extend_from_slice(&crc.to_le_bytes());
        trailer.extend_from_slice(&crc32c::crc32c(&trailer).to_le_bytes());
        self.out.put(&trailer)?;
        self.out.flush()?;
        self.disk.rename(&self.temporary, &self.name)?;
        self.disk.sync_dir()?;
        Run::open(self.disk, &self.name, self.log)
    }

    fn at(&self) -> u64 {
        self.out.at()
    }

    fn close_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let crc = crc32c::crc32c(&self.block);
        self.block.extend_from_slice(&crc.to_le_bytes());
        self.out.put(&self.block)?;
        self.block.clear();
        Ok(())
    }
}

impl Output {
    fn at(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < PIECE_BYTES { Ok(()) } else { self.flush() }
    }

    /// Durable when this returns.
    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.written)?;
        self.file.sync_data()?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use allocation_counter::measure;
    use daybook_log::RealDisk;

    use super::*;

    /// Those of a run of some seven million events.
    const ENTRIES: u64 = 8 << 20;
    const FILTER_BYTES: u64 = ENTRIES * 12 / 8;

    #[test]
    fn a_run_is_written_and_opened_with_its_filter_in_memory_once() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path()).unwrap();
        let log = LogId([7; 16]);
        let mut name = String::new();
        let written = measure(|| {
            let mut run = RunWriter::create(&disk, log, (0, 1), ENTRIES, 0, IdTimes::ANY).unwrap();
            run.place(0, Place { segment: 0, offset: 64, len: 100 }).unwrap();
            run.places_done().unwrap();
            run.postings(0, [0].into_iter()).unwrap();
            run.postings_done().unwrap();
            name = run.finish().unwrap().name;
        });
        let opened = measure(|| assert!(Run::open(&disk, &name, log).unwrap().may_contain(0)));
        for (what, most) in [("written", written.bytes_max), ("opened", opened.bytes_max)] {
            let beside = most.checked_sub(FILTER_BYTES).expect("the filter is there");
            assert!(beside < 2 * PIECE_BYTES as u64, "{what} with {beside} bytes beside the filter");
        }
    }
}
