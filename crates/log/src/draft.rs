//! Records laid out as they will be written, so that their bytes are copied
//! once on the way to the disk, and can be made while another batch syncs.

use crate::format::{BATCH_HEADER_BYTES, RECORD_HEADER_BYTES, u32_at};

/// The records of one batch. What depends on its place in the log (header,
/// checksums) is filled in when it is appended.
#[derive(Default)]
pub struct Draft {
    /// Room for the batch's header, then records; empty without any.
    pub(crate) buffer: Vec<u8>,
    pub(crate) count: u32,
}

impl Draft {
    /// Adds the record whose body `write` appends.
    pub fn record(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.buffer.is_empty() {
            self.buffer.resize(BATCH_HEADER_BYTES, 0);
        }
        let at = self.buffer.len();
        self.buffer.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        write(&mut self.buffer);
        let len = (self.buffer.len() - at - RECORD_HEADER_BYTES) as u32;
        self.buffer[at..at + 4].copy_from_slice(&len.to_le_bytes());
        self.count += 1;
    }

    /// What was written into each, in order.
    pub fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.buffer.get(BATCH_HEADER_BYTES..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (header, after) = rest.split_at_checked(RECORD_HEADER_BYTES)?;
            let (body, next) = after.split_at(u32_at(header, 0) as usize);
            rest = next;
            Some(body)
        })
    }

    /// Bytes of the records.
    pub fn len(&self) -> usize {
        self.buffer.len().saturating_sub(BATCH_HEADER_BYTES)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Empty again, its memory kept.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_into_a_draft_is_read_from_it() {
        let mut draft = Draft::default();
        assert_eq!(draft.bodies().count(), 0);
        for body in [&b"one"[..], b"", b"three"] {
            draft.record(|out| out.extend_from_slice(body));
        }
        assert!(draft.bodies().eq([&b"one"[..], b"", b"three"]));
    }
}
