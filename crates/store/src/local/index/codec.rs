//! Blocks of a run: some entries and a checksum, read and checked as a whole.

/// A block is closed once it has grown to this, in bytes.
pub(super) const BLOCK_BYTES: usize = 4096;
/// No block is longer, whatever a damaged fence says: a key has at most 256
/// bytes, a list of positions is cut at [`LIST_MAX`].
pub(super) const BLOCK_BYTES_MAX: usize = 64 << 10;
/// Positions of one entry; longer lists are several entries.
pub(super) const LIST_MAX: usize = 1_024;

pub(super) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Reads what was checked by a checksum; `None` at the end, or where a newer
/// program wrote something else.
pub(super) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn varint(&mut self) -> Option<u64> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            n |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(n);
            }
        }
        None
    }

    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.take(8)?.first_chunk()?))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One entry of the postings: positions relative to the run's base, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Posting {
    pub hash: u64,
    pub positions: Vec<u32>,
}

pub(super) fn put_posting(out: &mut Vec<u8>, previous_hash: u64, hash: u64, positions: &[u32]) {
    put_varint(out, hash - previous_hash);
    put_varint(out, positions.len() as u64);
    let mut last = 0;
    for position in positions {
        put_varint(out, u64::from(position - last));
        last = *position;
    }
}

/// All entries of a postings block.
pub(super) fn postings(block: &[u8]) -> Option<Vec<Posting>> {
    let mut input = Input(block);
    let mut hash = 0u64;
    let mut all = Vec::new();
    while !input.is_empty() {
        hash = hash.checked_add(input.varint()?)?;
        let count = usize::try_from(input.varint()?).ok().filter(|count| *count <= LIST_MAX)?;
        let mut last = 0u32;
        let mut positions = Vec::with_capacity(count);
        for _ in 0..count {
            last = last.checked_add(u32::try_from(input.varint()?).ok()?)?;
            positions.push(last);
        }
        all.push(Posting { hash, positions });
    }
    Some(all)
}

/// One key of the dictionary: the sequence of its next event, its last position
/// relative to the run's base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyEntry {
    pub text: String,
    pub next: u64,
    pub last: u32,
}

pub(super) fn put_key(out: &mut Vec<u8>, previous: &str, entry: &KeyEntry) {
    let shared = previous.bytes().zip(entry.text.bytes()).take_while(|(a, b)| a == b).count();
    put_varint(out, shared as u64);
    put_varint(out, (entry.text.len() - shared) as u64);
    out.extend_from_slice(&entry.text.as_bytes()[shared..]);
    put_varint(out, entry.next);
    put_varint(out, u64::from(entry.last));
}

/// All entries of a dictionary block.
pub(super) fn keys(block: &[u8]) -> Option<Vec<KeyEntry>> {
    let mut input = Input(block);
    let mut text: Vec<u8> = Vec::new();
    let mut all = Vec::new();
    while !input.is_empty() {
        let shared = usize::try_from(input.varint()?).ok()?;
        let rest = usize::try_from(input.varint()?).ok()?;
        text.truncate(shared);
        text.extend_from_slice(input.take(rest)?);
        let next = input.varint()?;
        let last = u32::try_from(input.varint()?).ok()?;
        all.push(KeyEntry { text: str::from_utf8(&text).ok()?.to_owned(), next, last });
    }
    Some(all)
}

/// Next sequence and last position of one key, without taking the others apart.
/// `Err` if the block is unreadable.
pub(super) fn find_key(block: &[u8], key: &str) -> Result<Option<(u64, u32)>, ()> {
    let mut input = Input(block);
    // How many bytes the entry before shares with `key`: entries ascend, so one
    // that shares more with its predecessor than that cannot be it.
    let mut common = 0;
    while !input.is_empty() {
        let shared = input.varint().ok_or(())? as usize;
        let rest = input.varint().ok_or(())? as usize;
        let suffix = input.take(rest).ok_or(())?;
        let next = input.varint().ok_or(())?;
        let last = input.varint().and_then(|last| u32::try_from(last).ok()).ok_or(())?;
        if shared > common {
            continue;
        }
        let wanted = key.as_bytes().get(shared..).unwrap_or_default();
        let same = suffix.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        if same == suffix.len() && same == wanted.len() {
            return Ok(Some((next, last)));
        }
        common = shared + same;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_as_they_went() {
        let entries = [
            Posting { hash: 5, positions: vec![0, 1, 900_000] },
            Posting { hash: 5, positions: vec![900_001] },
            Posting { hash: u64::MAX, positions: vec![7] },
        ];
        let (mut block, mut hash) = (Vec::new(), 0);
        for entry in &entries {
            put_posting(&mut block, hash, entry.hash, &entry.positions);
            hash = entry.hash;
        }
        assert_eq!(postings(&block).unwrap(), entries);
        let entry = |text: &str, next, last| KeyEntry { text: text.into(), next, last };
        let entries = [entry("account/1", 3, 9), entry("account/10", 1, 2), entry("aü", u64::MAX, u32::MAX)];
        let (mut block, mut text) = (Vec::new(), "");
        for entry in &entries {
            put_key(&mut block, text, entry);
            text = &entry.text;
        }
        assert_eq!(keys(&block).unwrap(), entries);
        assert_eq!(keys(&block[..block.len() - 1]), None);
        for entry in &entries {
            assert_eq!(find_key(&block, &entry.text), Ok(Some((entry.next, entry.last))));
        }
        for other in ["", "a", "account/", "account/100", "account/2", "aü/", "z"] {
            assert_eq!(find_key(&block, other), Ok(None), "{other}");
        }
    }
}
