//! "Surely not here": about 12 bits for each id and key of a run, one cache line
//! a question, wrong in well under 1 % of its yeses and never in a no.

const BITS_PER_ENTRY: usize = 12;
const BLOCK_BITS: usize = 512;
const PROBES: u32 = 6;

#[derive(Clone)]
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

    pub fn encode(&self, out: &mut Vec<u8>) {
        for word in self.blocks.iter().flatten() {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (blocks, rest) = bytes.as_chunks::<{ BLOCK_BITS / 8 }>();
        if blocks.is_empty() || !rest.is_empty() {
            return None;
        }
        let word = |block: &[u8; BLOCK_BITS / 8], i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&block[i * 8..i * 8 + 8]);
            u64::from_le_bytes(word)
        };
        Some(Self { blocks: blocks.iter().map(|block| std::array::from_fn(|i| word(block, i))).collect() })
    }
}

fn probes(hash: u64) -> impl Iterator<Item = usize> {
    // The block took the upper half; a multiplication spreads the rest again.
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..PROBES).map(move |i| (mixed >> (i * 9 + 8)) as usize % BLOCK_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(from: u64, count: u64) -> impl Iterator<Item = u64> {
        (from..from + count).map(|i| xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes()))
    }

    #[test]
    fn what_was_put_in_is_found_and_little_else() {
        let mut filter = Filter::for_entries(20_000);
        hashes(0, 20_000).for_each(|hash| filter.insert(hash));
        let mut bytes = Vec::new();
        filter.encode(&mut bytes);
        let filter = Filter::decode(&bytes).unwrap();
        assert!(hashes(0, 20_000).all(|hash| filter.may_contain(hash)));
        let wrong = hashes(1_000_000, 20_000).filter(|hash| filter.may_contain(*hash)).count();
        assert!(wrong < 200, "{wrong} of 20,000 are wrong");
    }
}
