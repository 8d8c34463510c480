//! The log's promises, held against a disk that crashes and fails at every call.

#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod faults;
mod fixture;

use std::sync::Arc;

use daybook_log::sim::SimDisk;
use daybook_log::{Log, LogId, OpenError, Options, Recovered};

pub const SEGMENT_BYTES: u64 = 2048;

pub fn options() -> Options {
    Options { new_id: LogId([7; 16]), first_segment_bytes: 1024, segment_bytes: SEGMENT_BYTES }
}

/// An opened log and all its records.
pub fn open(disk: &SimDisk) -> Result<(Log, Recovered, Vec<Vec<u8>>), OpenError> {
    let mut records = Vec::new();
    let (log, recovered) = Log::open(Arc::new(disk.clone()), options(), |position, _, body| {
        assert_eq!(position, records.len() as u64);
        records.push(body.to_vec());
        Ok(())
    })?;
    Ok((log, recovered, records))
}

/// Batch `i` of every workload: one to three records of different lengths, now
/// and then one that is larger than a segment.
pub fn batch(i: usize) -> Vec<Vec<u8>> {
    let len = if i == 11 { 5000 } else { 30 + i * 7 % 200 };
    (0..1 + i % 3).map(|j| format!("{i}/{j}:").into_bytes().repeat(1 + len / 6)).collect()
}

pub fn append(log: &mut Log, bodies: &[Vec<u8>]) -> Result<Vec<daybook_log::Place>, daybook_log::Error> {
    let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    log.append(bodies.into_iter())
}

#[derive(Debug, Default)]
pub struct Outcome {
    /// Records by batch, in the order of their writing.
    pub issued: Vec<Vec<Vec<u8>>>,
    /// Batches whose sync has returned.
    pub acked: usize,
}

impl Outcome {
    /// `records` must be whole batches from the first on, at least the acknowledged.
    pub fn check(&self, records: &[Vec<u8>], context: &str) {
        let mut rest = records;
        for (i, batch) in self.issued.iter().enumerate() {
            if rest.is_empty() {
                assert!(i >= self.acked, "{context}: {i} batches of {} acknowledged", self.acked);
                return;
            }
            assert!(rest.starts_with(batch), "{context}: batch {i} is not there as it was written");
            rest = &rest[batch.len()..];
        }
        assert!(rest.is_empty(), "{context}: records that nobody wrote");
    }
}

/// Writes until something fails.
pub fn workload(disk: &SimDisk, batches: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let Ok((mut log, ..)) = open(disk) else { return outcome };
    let preparer = log.preparer();
    for i in 0..batches {
        if i % 4 == 0 && log.wants_spare() && preparer.prepare().is_err() {
            return outcome;
        }
        outcome.issued.push(batch(i));
        if append(&mut log, &batch(i)).is_err() {
            return outcome;
        }
        // Sometimes two batches share a sync.
        if i % 5 == 3 {
            continue;
        }
        if log.sync().is_err() {
            return outcome;
        }
        outcome.acked = i + 1;
        // Sometimes it falls idle.
        if i % 7 == 4 && log.vouch().is_err() {
            return outcome;
        }
    }
    if log.vouch().is_ok() {
        outcome.acked = batches;
    }
    outcome
}
