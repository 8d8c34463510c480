//! How long a failed event waits: doubling, spread by jitter, capped.

use crate::Settings;

/// Wait after `failures` failed attempts (at least one): 100 ms, 200 ms, … 60 s.
/// Jitter takes away up to a fifth, so that events which failed together do not
/// come back together, and the cap stays a cap.
pub(crate) fn delay_ms(settings: &Settings, failures: u32, jitter: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(32);
    let full = settings.backoff_first_ms.saturating_mul(1 << doublings).min(settings.backoff_max_ms);
    full - jitter % (full / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_jitter_only_shortens_it() {
        let settings = Settings::default();
        for (failures, full) in
            [(1, 100), (2, 200), (3, 400), (10, 51_200), (11, 60_000), (4_000_000, 60_000)]
        {
            assert_eq!(delay_ms(&settings, failures, 0), full);
            for jitter in [1, 7, 12_345, u64::MAX] {
                let wait = delay_ms(&settings, failures, jitter);
                assert!((full - full / 5..=full).contains(&wait), "{failures} failures: {wait} ms");
            }
        }
    }
}
