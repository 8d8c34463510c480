//! Where a copy is being written to: the file `copying`, read by recovery.
//!
//! A batch says what was durable on the disk that it was first written to. A copy
//! takes many batches at once, and a crash may leave a later one there without an
//! earlier: behind the place named here no batch proves anything, and a bad one
//! is a torn tail.
//!
//! # After a crash
//! A torn file names no place: then nothing had been written behind the one before.
//!
//! ```text
//! 0 8 magic "DAYBKCPY"   8 4 segment id   12 4 zero   16 8 offset   24 4 CRC32C of 0..24   28 4 zero
//! ```

use std::io;
use std::sync::Arc;

use crate::format::{u32_at, u64_at};
use crate::planted::{Bug, has};
use crate::{Disk, DiskFile};

pub(crate) const FILE: &str = "copying";
const MAGIC: [u8; 8] = *b"DAYBKCPY";
const BYTES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copying {
    pub segment: u32,
    pub offset: u64,
}

impl Copying {
    fn encode(self) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&self.segment.to_le_bytes());
        out[16..24].copy_from_slice(&self.offset.to_le_bytes());
        let crc = crc32c::crc32c(&out[..24]);
        out[24..28].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        let whole = bytes[..8] == MAGIC && u32_at(bytes, 24) == crc32c::crc32c(&bytes[..24]);
        whole.then(|| Self { segment: u32_at(bytes, 8), offset: u64_at(bytes, 16) })
    }
}

/// What the last one to write to this copy left; `None` if it was through, or if
/// this never was a copy.
pub(crate) fn read(disk: &dyn Disk) -> io::Result<Option<Copying>> {
    if !disk.list()?.iter().any(|name| name == FILE) {
        return Ok(None);
    }
    let file = disk.open(FILE, false)?;
    let mut bytes = [0; BYTES];
    if file.len()? < BYTES as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Copying::decode(&bytes))
}

/// The file while a copy is made.
#[derive(Default)]
pub(crate) struct Marker(Option<Arc<dyn DiskFile>>);

impl Marker {
    /// Durable before anything is written there.
    pub fn begin(&mut self, disk: &dyn Disk, place: Copying) -> io::Result<()> {
        if has(Bug::CopyUnmarked) {
            return Ok(());
        }
        let file = match &self.0 {
            Some(file) => file.clone(),
            None => {
                let is_there = disk.list()?.iter().any(|name| name == FILE);
                let file = disk.open(FILE, !is_there)?;
                disk.sync_dir()?;
                self.0.insert(file).clone()
            }
        };
        file.write_all_at(&place.encode(), 0)?;
        file.sync_data()
    }

    /// What was written is durable. Should a crash undo this, recovery only writes
    /// again what is there.
    pub fn end(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |file| file.write_all_at(&[0; BYTES], 0))
    }
}
