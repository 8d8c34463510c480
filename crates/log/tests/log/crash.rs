//! A crash at every call, then a power loss that keeps any subset of what was
//! not synced.

use daybook_log::sim::SimDisk;

use crate::{Outcome, append, batch, open, workload};

const BATCHES: usize = 24;
const SEEDS: u64 = 6;

fn calls_of_a_whole_run() -> u64 {
    let disk = SimDisk::default();
    let outcome = workload(&disk, BATCHES);
    assert!(outcome.acked >= BATCHES - 1);
    disk.calls()
}

fn crashed_at(call: u64) -> (SimDisk, Outcome) {
    let disk = SimDisk::default();
    disk.crash_at(call);
    let outcome = workload(&disk, BATCHES);
    (disk, outcome)
}

#[test]
fn every_call_is_a_safe_place_to_lose_power() {
    for call in 1..=calls_of_a_whole_run() {
        let (disk, outcome) = crashed_at(call);
        for seed in 0..SEEDS {
            let context = format!("power lost at call {call} ({:?}), seed {seed}", disk.failed());
            let disk = disk.after_power_loss(seed);
            let (mut log, recovered, records) = open(&disk).unwrap_or_else(|e| panic!("{context}: {e}"));
            outcome.check(&records, &context);
            assert_eq!(recovered.next, records.len() as u64);
            // It goes on, and what it takes now is as safe.
            let places = append(&mut log, &batch(3)).unwrap();
            log.sync().unwrap();
            assert_eq!(log.reader().read(places[0]).unwrap(), batch(3)[0]);
            let (_, _, again) = open(&disk.after_power_loss(seed + 100)).unwrap();
            assert_eq!(again, [records, batch(3)].concat(), "{context}");
        }
    }
}

#[test]
fn what_recovery_has_served_is_never_lost_again() {
    for call in 1..=calls_of_a_whole_run() {
        let (disk, outcome) = crashed_at(call);
        // The process dies and comes back while the machine runs: it finds its
        // writes in the page cache, serves them, and then the power fails.
        let killed = disk.after_kill();
        let context = format!("killed at call {call} ({:?})", disk.failed());
        let (_, _, served) = open(&killed).unwrap_or_else(|e| panic!("{context}: {e}"));
        outcome.check(&served, &context);
        for seed in 0..SEEDS {
            let (_, _, records) = open(&killed.after_power_loss(seed))
                .unwrap_or_else(|e| panic!("{context}, then power lost, seed {seed}: {e}"));
            assert_eq!(records, served, "{context}, then power lost, seed {seed}");
        }
    }
}

#[test]
fn the_log_goes_on_after_a_kill_and_survives_the_next_power_loss() {
    for call in 1..=calls_of_a_whole_run() {
        let (disk, _) = crashed_at(call);
        let killed = disk.after_kill();
        let (mut log, _, served) = open(&killed).unwrap();
        // Enough to fill the segment and seal it.
        let mut expected = served;
        for i in 12..20 {
            append(&mut log, &batch(i)).unwrap();
            log.sync().unwrap();
            expected.extend(batch(i));
        }
        let (_, _, records) = open(&killed.after_power_loss(call)).unwrap_or_else(|e| {
            panic!("killed at call {call} ({:?}), went on, then power lost: {e}", disk.failed())
        });
        assert_eq!(records, expected, "killed at call {call}");
    }
}

#[test]
fn a_crash_in_the_middle_of_recovery_is_harmless() {
    let calls = calls_of_a_whole_run();
    for call in (1..=calls).step_by(5) {
        let (disk, outcome) = crashed_at(call);
        let image = disk.after_power_loss(call);
        let dry = image.after_kill();
        open(&dry).unwrap();
        for recovery_call in 1..=dry.calls() {
            let disk = image.after_kill();
            disk.crash_at(recovery_call);
            assert!(open(&disk).is_err());
            let context = format!("crash at call {call}, again at call {recovery_call} of recovery");
            let (_, _, records) =
                open(&disk.after_power_loss(call)).unwrap_or_else(|e| panic!("{context}: {e}"));
            outcome.check(&records, &context);
        }
    }
}

#[test]
fn one_seed_gives_one_crash() {
    let (disk, _) = crashed_at(calls_of_a_whole_run() / 2);
    let names = ["LOG", "spare", "0000000000.segment", "0000000001.segment"];
    let files = |seed| names.map(|name| disk.after_power_loss(seed).file(name));
    assert_eq!(files(5), files(5));
    assert!((0..20).any(|seed| files(seed) != files(5)), "the seed decides nothing");
}
