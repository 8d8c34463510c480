//! Bytes on disk, format 3. All numbers are little-endian. `docs/format.md`
//! draws what stands here.
//!
//! A segment file is a header, then batches, each at a multiple of 8, then a
//! footer when it is sealed, then zeros. A batch is a header and its records. A
//! batch without records is a mark: written and synced when the log falls idle
//! or stops, it proves that everything before it was durable.
//!
//! Format 1 knew no marks, and its segments do not say how long they are.
//! Format 3 differs from 2 in what the store puts into records, nowhere here.

use sha2::{Digest, Sha256};

use crate::planted::{Bug, has};

/// Never reused: a change of any byte's meaning takes the next number.
pub const FORMAT_VERSION: u32 = 3;
/// The oldest that still opens.
pub(crate) const OLDEST_FORMAT: u32 = 1;
/// The first that has marks.
pub(crate) const FORMAT_WITH_MARKS: u32 = 2;

pub const SEGMENT_HEADER_BYTES: usize = 64;
pub const BATCH_HEADER_BYTES: usize = 96;
pub const RECORD_HEADER_BYTES: usize = 8;
/// Batches and footers start at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// Lengths read from disk are capped by this before anything is allocated.
pub(crate) const MAX_BATCH_BYTES: u32 = 256 << 20;

/// No segment is larger: recovery reads one into memory, and offsets have 32 bits.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;

const SEGMENT_MAGIC: [u8; 8] = *b"DAYBKSEG";
const BATCH_MAGIC: [u8; 4] = *b"DBba";
const FOOTER_MAGIC: [u8; 4] = *b"DBfo";

pub(crate) type Hash = [u8; 32];

/// Where a record's header lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: u32,
    pub offset: u32,
    /// Bytes of the body.
    pub len: u32,
}

/// ```text
///  0  8  magic "DAYBKSEG"      8  4  format        12  4  segment id
/// 16 16  log id               32  8  base position 40  8  bytes of the file  48 12  zero
/// 60  4  CRC32C of 0..60
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub format: u32,
    pub segment: u32,
    pub log: [u8; 16],
    pub base: u64,
    /// A segment has its whole length from the start: a shorter one was cut
    /// off. 0 in format 1, which does not say.
    pub size: u64,
}

/// Why bytes are no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHeader {
    /// Never written, torn or damaged.
    Broken(&'static str),
    /// Whole, and of a program that knows more than this one.
    Format(u32),
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[0..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&self.format.to_le_bytes());
        out[12..16].copy_from_slice(&self.segment.to_le_bytes());
        out[16..32].copy_from_slice(&self.log);
        out[32..40].copy_from_slice(&self.base.to_le_bytes());
        out[40..48].copy_from_slice(&self.size.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, NoHeader> {
        if bytes[0..8] != SEGMENT_MAGIC {
            return Err(NoHeader::Broken("no segment header"));
        }
        if u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err(NoHeader::Broken("the segment header's checksum is wrong"));
        }
        let format = u32_at(bytes, 8);
        if !(OLDEST_FORMAT..=FORMAT_VERSION).contains(&format) {
            return Err(NoHeader::Format(format));
        }
        Ok(Self {
            format,
            segment: u32_at(bytes, 12),
            log: array_at(bytes, 16),
            base: u64_at(bytes, 32),
            size: u64_at(bytes, 40),
        })
    }

    /// Whether this is the header of that segment of that log.
    pub fn is_of(&self, log: [u8; 16], segment: u32, base: u64) -> bool {
        (self.log, self.segment, self.base) == (log, segment, base)
    }
}

/// ```text
///  0  4  magic "DBba"    4  4  segment id    8  8  offset in the file
/// 16  8  first position 24  4  count        28  4  bytes of all records
/// 32  8  durable_upto   40  4  epoch        44 16  zero
/// 60 32  SHA-256 of the previous batch      92  4  CRC32C of 0..92
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub segment: u32,
    pub offset: u64,
    pub first: u64,
    pub count: u32,
    pub body: u32,
    /// Every position below was durable when this batch was written.
    pub durable_upto: u64,
    /// Grows with every opening of the log.
    pub epoch: u32,
    pub previous: Hash,
}

impl BatchHeader {
    pub fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut out = [0; BATCH_HEADER_BYTES];
        out[0..4].copy_from_slice(&BATCH_MAGIC);
        out[4..8].copy_from_slice(&self.segment.to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.to_le_bytes());
        out[24..28].copy_from_slice(&self.count.to_le_bytes());
        out[28..32].copy_from_slice(&self.body.to_le_bytes());
        out[32..40].copy_from_slice(&self.durable_upto.to_le_bytes());
        out[40..44].copy_from_slice(&self.epoch.to_le_bytes());
        out[60..92].copy_from_slice(&self.previous);
        let crc = crc32c::crc32c(&out[..92]);
        out[92..96].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// A mark proves what lies before it and holds nothing itself.
    pub fn is_mark(&self) -> bool {
        self.count == 0
    }

    /// `None` unless this is a batch header that belongs at (`segment`, `offset`).
    pub fn decode(bytes: &[u8; BATCH_HEADER_BYTES], segment: u32, offset: u64) -> Option<Self> {
        if bytes[0..4] != BATCH_MAGIC || u32_at(bytes, 92) != crc32c::crc32c(&bytes[..92]) {
            return None;
        }
        let header = Self {
            segment: u32_at(bytes, 4),
            offset: u64_at(bytes, 8),
            first: u64_at(bytes, 16),
            count: u32_at(bytes, 24),
            body: u32_at(bytes, 28),
            durable_upto: u64_at(bytes, 32),
            epoch: u32_at(bytes, 40),
            previous: array_at(bytes, 60),
        };
        let sane = header.body <= MAX_BATCH_BYTES
            && (header.count > 0) == (header.body > 0)
            && header.first.checked_add(u64::from(header.count)).is_some();
        (sane && header.segment == segment && header.offset == offset).then_some(header)
    }
}

/// ```text
/// 0  4  magic "DBfo"   4  4  segment id   8  8  offset   16  8  next position
/// 24 8  zero          32 32  SHA-256 of the last batch   64  4  CRC32C of 0..64   68 4 zero
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub segment: u32,
    pub offset: u64,
    pub next: u64,
    pub last: Hash,
}

pub(crate) const FOOTER_BYTES: usize = 72;

impl Footer {
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        out[0..4].copy_from_slice(&FOOTER_MAGIC);
        out[4..8].copy_from_slice(&self.segment.to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..24].copy_from_slice(&self.next.to_le_bytes());
        out[32..64].copy_from_slice(&self.last);
        let crc = crc32c::crc32c(&out[..64]);
        out[64..68].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8], segment: u32, offset: u64) -> Option<Self> {
        if bytes.len() < FOOTER_BYTES
            || bytes[0..4] != FOOTER_MAGIC
            || u32_at(bytes, 64) != crc32c::crc32c(&bytes[..64])
        {
            return None;
        }
        let footer = Self {
            segment: u32_at(bytes, 4),
            offset: u64_at(bytes, 8),
            next: u64_at(bytes, 16),
            last: array_at(bytes, 32),
        };
        (footer.segment == segment && footer.offset == offset).then_some(footer)
    }
}

/// Checksum of a record: where it lies is part of it, so that a block which a
/// disk wrote to the wrong place is seen.
pub(crate) fn record_crc(segment: u32, offset: u32, body: &[u8]) -> u32 {
    let mut head = [0; 12];
    head[0..4].copy_from_slice(&segment.to_le_bytes());
    head[4..8].copy_from_slice(&offset.to_le_bytes());
    head[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    if has(Bug::ChecksumWithoutPlace) {
        head[..8].fill(0);
    }
    crc32c::crc32c_append(crc32c::crc32c(&head), body)
}

pub(crate) fn hash(batch: &[u8]) -> Hash {
    Sha256::digest(batch).into()
}

pub(crate) fn align(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGN)
}

pub(crate) fn segment_name(segment: u32) -> String {
    format!("{segment:010}.segment")
}

pub(crate) fn segment_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".segment")?;
    // `parse` alone would take a sign.
    (digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
