//! "Surely not here": about 12 bits for each id and key of a run, one cache line
//! a question, wrong in well under 1 % of its yeses and never in a no.

use std::io;

use super::pieces::Pieces;
use super::run::damaged;

const BITS_PER_ENTRY: usize = 12;
const BLOCK_BITS: usize = 512;
const PROBES: u32 = 6;

/// The largest thing in memory: never copied.
pub(super) struct Filter {
    blocks: Vec<[u64; BLOCK_BITS / 64]>,
}

impl Filter {
    pub fn for_entries(entries: usize) -> Self {
        let blocks = (entries * BITS_PER_ENTRY).div_ceil(BLOCK_BITS).max(1);
        Self { blocks: vec![[0; BLOCK_BITS / 64]; blocks] }
    }

    pub fn insert(&mut self, hash: u64) {
        let block = self.block_of(hash);
        for bit in probes(hash) {
            self.blocks[block][bit / 64] |= 1 << (bit % 64);
        }
    }

    pub fn may_contain(&self, hash: u64) -> bool {
        let block = &self.blocks[self.block_of(hash)];
        probes(hash).all(|bit| block[bit / 64] & 1 << (bit % 64) != 0)
    }

    fn block_of(&self, hash: u64) -> usize {
        (((hash >> 32) * self.blocks.len() as u64) >> 32) as usize
    }

    pub fn encode(&self, put: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        for block in &self.blocks {
            let mut bytes = [[0; 8]; BLOCK_BITS / 64];
            bytes.iter_mut().zip(block).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
            put(bytes.as_flattened())?;
        }
        Ok(())
    }

    /// What is left of `input`.
    pub fn decode(input: &mut Pieces<'_>) -> io::Result<Self> {
        const BLOCK_BYTES: usize = BLOCK_BITS / 8;
        let count = input.left() / BLOCK_BYTES as u64;
        if count == 0 || !input.left().is_multiple_of(BLOCK_BYTES as u64) {
            return Err(damaged("its filter has no sensible length"));
        }
        let mut blocks = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (words, _) = input.take(BLOCK_BYTES)?.as_chunks::<8>();
            blocks.push(std::array::from_fn(|i| u64::from_le_bytes(words[i])));
        }
        Ok(Self { blocks })
    }
}

fn probes(hash: u64) -> impl Iterator<Item = usize> {
    // The block took the upper half; a multiplication spreads the rest again.
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..PROBES).map(move |i| (mixed >> (i * 9 + 8)) as usize % BLOCK_BITS)
}

#[cfg(test)]
mod tests {
    use daybook_log::Disk;
    use daybook_log::sim::SimDisk;

    use super::*;

    fn hashes(from: u64, count: u64) -> impl Iterator<Item = u64> {
        (from..from + count).map(|i| xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes()))
    }

    #[test]
    fn what_was_put_in_is_found_and_little_else() {
        let mut filter = Filter::for_entries(20_000);
        hashes(0, 20_000).for_each(|hash| filter.insert(hash));
        let disk = SimDisk::default();
        let mut bytes = Vec::new();
        filter
            .encode(&mut |some| {
                bytes.extend_from_slice(some);
                Ok(())
            })
            .unwrap();
        disk.put("filter", bytes);
        let file = disk.open("filter", false).unwrap();
        let mut input = Pieces::new(&*file, 0, file.len().unwrap()).unwrap();
        let filter = Filter::decode(&mut input).unwrap();
        assert!(hashes(0, 20_000).all(|hash| filter.may_contain(hash)));
        let wrong = hashes(1_000_000, 20_000).filter(|hash| filter.may_contain(*hash)).count();
        assert!(wrong < 200, "{wrong} of 20,000 are wrong");
    }
}
