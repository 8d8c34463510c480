//! How long something took, counted in buckets: what a Prometheus histogram is
//! made of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets, in microseconds; what is longer has one of its
/// own. From a sync of a fast disk to one that is stuck.
const BOUNDS: [u64; 16] = [
    50, 100, 200, 400, 800, 1_500, 3_000, 6_000, 12_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 5_000_000,
];

/// What was counted at one moment; each number only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    counts: [u64; BOUNDS.len() + 1],
    nanos: u64,
}

impl Durations {
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// Upper end of each bucket in seconds, and how many were no longer.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut so_far = 0;
        BOUNDS.iter().zip(self.counts).map(move |(micros, count)| {
            so_far += count;
            (*micros as f64 / 1e6, so_far)
        })
    }
}

/// Where it is counted, by any thread.
#[derive(Default)]
pub(crate) struct Stopwatch {
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Stopwatch {
    pub fn took(&self, time: Duration) {
        let bucket = BOUNDS.partition_point(|micros| u128::from(*micros) < time.as_micros());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub fn read(&self) -> Durations {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Durations { counts: self.counts.each_ref().map(load), nanos: load(&self.nanos) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_what_is_longer_than_all_still_counts() {
        let watch = Stopwatch::default();
        for micros in [0, 50, 51, 700, 60_000_000] {
            watch.took(Duration::from_micros(micros));
        }
        let read = watch.read();
        let below = |seconds: f64| read.buckets().find(|(end, _)| *end >= seconds).unwrap().1;
        assert_eq!((below(0.000_05), below(0.000_1), below(5.0), read.count()), (2, 3, 4, 5));
        assert!((read.seconds() - 60.000_801).abs() < 1e-9);
    }
}
