//! A long part of a file, read in order, a piece in memory at a time.

use std::io;

use daybook_log::DiskFile;

use super::run::{damaged, too_early};

const PIECE_BYTES: usize = 64 << 10;

pub(super) struct Pieces<'a> {
    file: &'a dyn DiskFile,
    /// What is not read yet.
    at: u64,
    end: u64,
    crc: u32,
    piece: Vec<u8>,
    /// Of the piece.
    taken: usize,
}

impl<'a> Pieces<'a> {
    /// `len` bytes from `at` on; an error if the file has fewer.
    pub fn new(file: &'a dyn DiskFile, at: u64, len: u64) -> io::Result<Self> {
        let end = at.checked_add(len).filter(|end| *end <= file.len().unwrap_or(0));
        let end = end.ok_or_else(|| damaged("it ends too early"))?;
        Ok(Self { file, at, end, crc: 0, piece: Vec::new(), taken: 0 })
    }

    pub fn left(&self) -> u64 {
        self.end - self.at + (self.piece.len() - self.taken) as u64
    }

    pub fn take(&mut self, len: usize) -> io::Result<&[u8]> {
        if len as u64 > self.left() {
            return Err(damaged("its fences are unreadable"));
        }
        if len > self.piece.len() - self.taken {
            self.read(len)?;
        }
        self.taken += len;
        Ok(&self.piece[self.taken - len..self.taken])
    }

    pub fn u32(&mut self) -> io::Result<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes(*bytes.first_chunk().expect("it took four")))
    }

    pub fn u64(&mut self) -> io::Result<u64> {
        self.take(8).map(|bytes| u64::from_le_bytes(*bytes.first_chunk().expect("it took eight")))
    }

    /// The checksum of the whole part, what nobody has taken included.
    pub fn crc(mut self) -> io::Result<u32> {
        while self.at < self.end {
            self.taken = self.piece.len();
            self.read(1)?;
        }
        Ok(self.crc)
    }

    /// Makes the piece begin with what is not taken, and at least `len` bytes long.
    fn read(&mut self, len: usize) -> io::Result<()> {
        self.piece.drain(..self.taken);
        self.taken = 0;
        let known = self.piece.len();
        let more =
            (len.max(PIECE_BYTES) - known).min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        self.piece.resize(known + more, 0);
        self.file.read_exact_at(&mut self.piece[known..], self.at).map_err(too_early)?;
        self.crc = crc32c::crc32c_append(self.crc, &self.piece[known..]);
        self.at += more as u64;
        Ok(())
    }
}
