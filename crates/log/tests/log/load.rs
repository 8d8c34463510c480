//! What a writer does, decided by a seed, and what must be found of it later.

use std::sync::Arc;

use daybook_log::sim::{Random, SimDisk};
use daybook_log::{Error, Log, OpenError, Options, Recovered};

use crate::options;

/// Batches of one run: enough for several segments, few enough to crash at each call.
const BATCHES: u64 = 24;

#[derive(Clone, Copy)]
pub struct Load(pub u64);

#[derive(Debug, Default)]
pub struct Outcome {
    /// Records by batch, in the order of their writing.
    pub issued: Vec<Vec<Vec<u8>>>,
    /// Batches whose sync has returned.
    pub acked: usize,
    /// Batches refused for want of room.
    pub refused: usize,
}

impl Load {
    /// Batch `i`: one to five records, small ones that share a sector, some that
    /// fill several, now and then one that is larger than a segment.
    pub fn batch(self, i: u64) -> Vec<Vec<u8>> {
        let mut random = Random::new(self.0 ^ (i << 32));
        let most = [60, 60, 200, 200, 600, 1200][random.below(6)];
        let most = if random.below(40) == 0 { 9000 } else { most };
        let one = |j: usize, random: &mut Random| {
            let text = format!("{}/{i}/{j}:", self.0).into_bytes();
            text.iter().copied().cycle().take(random.below(most)).collect()
        };
        let count = 1 + random.below(5);
        (0..count).map(|j| one(j, &mut random)).collect()
    }

    /// Writes until the batches are through or something fails, and then sees
    /// whether the log lets go of it.
    pub fn run(self, disk: &SimDisk) -> Outcome {
        let mut outcome = Outcome::default();
        if self.0.is_multiple_of(2) {
            disk.set_claims_nothing();
        }
        let Ok((mut log, ..)) = open(disk) else { return outcome };
        let again = Random::new(self.0).below(BATCHES as usize) as u64;
        let failed = (0..BATCHES).try_for_each(|i| {
            // Once it is opened again, by another process.
            if i == again {
                log = open(disk).map_err(|_| None)?.0;
            }
            self.step(&mut log, &mut outcome, i).map_err(Some)
        });
        let failed = failed.and_then(|()| {
            log.vouch().map_err(Some)?;
            outcome.acked = outcome.issued.len();
            Ok(())
        });
        if let Err(Some(error)) = failed {
            for _ in 0..2 {
                let more = append(&mut log, &self.batch(99)).map(drop).and_then(|()| log.sync());
                assert!(matches!(more, Err(Error::Poisoned { .. })), "after {error:?}: {more:?}");
            }
        }
        outcome
    }

    fn step(self, log: &mut Log, outcome: &mut Outcome, i: u64) -> Result<(), Error> {
        let preparer = log.preparer();
        let mut random = Random::new(!self.0 ^ (i << 32));
        if random.below(4) == 0 && log.wants_spare() {
            // A disk too full for it is no failure.
            let _ = preparer
                .prepare()
                .and_then(|()| if random.below(2) == 0 { preparer.fill() } else { Ok(None) });
        }
        let batch = self.batch(i);
        match append(log, &batch) {
            Err(Error::NoRoom { .. }) => {
                outcome.refused += 1;
                return Ok(());
            }
            appended => {
                outcome.issued.push(batch);
                appended?;
            }
        }
        // Sometimes two batches share a sync, sometimes the log falls idle.
        match random.below(6) {
            0 => return Ok(()),
            1 => log.vouch()?,
            _ => log.sync()?,
        }
        outcome.acked = outcome.issued.len();
        Ok(())
    }

    /// Calls of a run in which nothing fails.
    pub fn calls(self) -> u64 {
        let disk = SimDisk::default();
        let outcome = self.run(&disk);
        assert_eq!((outcome.acked as u64, outcome.refused), (BATCHES, 0));
        disk.calls()
    }

    pub fn crashed_at(self, call: u64) -> (SimDisk, Outcome) {
        let disk = SimDisk::default();
        disk.crash_at(call);
        let outcome = self.run(&disk);
        (disk, outcome)
    }
}

impl Outcome {
    /// `records` must be whole batches from the first on, at least the
    /// acknowledged. Returns how many batches that nobody was told of are there too.
    pub fn check(&self, records: &[Vec<u8>], context: &str) -> usize {
        let mut rest = records;
        for (i, batch) in self.issued.iter().enumerate() {
            if rest.is_empty() {
                assert!(i >= self.acked, "{context}: {i} batches of {} acknowledged", self.acked);
                return i - self.acked;
            }
            assert!(rest.starts_with(batch), "{context}: batch {i} is not there as it was written");
            rest = &rest[batch.len()..];
        }
        assert!(rest.is_empty(), "{context}: records that nobody wrote");
        self.issued.len() - self.acked
    }
}

impl Outcome {
    /// The first batch that was issued and is not among `records`.
    pub fn first_missing(&self, records: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
        let mut seen = 0;
        let missing = self.issued.iter().find(|batch| {
            seen += batch.len();
            seen > records.len()
        });
        missing.cloned()
    }
}

/// An opened log and all its records.
pub fn open(disk: &SimDisk) -> Result<(Log, Recovered, Vec<Vec<u8>>), OpenError> {
    open_with(disk, options())
}

pub fn open_with(disk: &SimDisk, options: Options) -> Result<(Log, Recovered, Vec<Vec<u8>>), OpenError> {
    let mut records = Vec::new();
    let (log, recovered) = Log::open(Arc::new(disk.clone()), options, |position, _, body| {
        assert_eq!(position, records.len() as u64);
        records.push(body.to_vec());
        Ok(())
    })?;
    assert_eq!(recovered.next, records.len() as u64);
    Ok((log, recovered, records))
}

pub fn append(log: &mut Log, bodies: &[Vec<u8>]) -> Result<Vec<daybook_log::Place>, Error> {
    let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    log.append(bodies.into_iter())
}
