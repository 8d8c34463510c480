//! A crash at every call, then a power loss that keeps any subset of what was
//! not synced.

use std::sync::Arc;

use daybook_log::Log;
use daybook_log::sim::SimDisk;
use daybook_log::suite::Suite;

use crate::load::{Load, Outcome, append, open};
use crate::options;

const CALLS: [&str; 9] =
    ["list", "open", "create", "write", "sync", "rename", "sync of the directory", "length", "remove"];

/// Seeds of what a power loss keeps: other ones at every call.
fn images(seed: u64, call: u64, count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |image| seed ^ call << 40 ^ image << 56)
}

/// Opens, checks, and returns what is there. Counts one image.
fn recover(suite: &mut Suite, disk: &SimDisk, outcome: &Outcome, context: &str) -> Vec<Vec<u8>> {
    suite.case();
    let (_, recovered, records) = open(disk).unwrap_or_else(|e| panic!("{context}: {e}"));
    if outcome.check(&records, context) > 0 {
        suite.hit("a batch nobody was told of survived");
    }
    if recovered.cut_bytes > 0 {
        suite.hit("a torn tail was cut");
    }
    records
}

#[test]
fn every_call_is_a_safe_place_to_lose_power() {
    let phases = ["a torn tail was cut", "a batch nobody was told of survived"];
    let mut suite = Suite::begin("power lost at every call", &[&CALLS[..8], &phases].concat());
    for seed in suite.seeds(4, 60) {
        let load = Load(seed);
        for call in 1..=load.calls() {
            let (disk, outcome) = load.crashed_at(call);
            suite.hit(disk.failed().unwrap());
            for image in images(seed, call, suite.pick(3, 7)) {
                let context =
                    format!("power lost at call {call} ({:?}) of {seed}, image {image}", disk.failed());
                let disk = disk.after_power_loss(image);
                let records = recover(&mut suite, &disk, &outcome, &context);
                // It goes on, and what it takes now is as safe: the first batch
                // that was lost, published again with other bytes.
                let (mut log, ..) = open(&disk).unwrap();
                let mut more = outcome.first_missing(&records).unwrap_or_else(|| load.batch(90));
                more.iter_mut().for_each(|record| record.truncate(record.len() / 2));
                let places = append(&mut log, &more).unwrap();
                log.sync().unwrap();
                assert_eq!(log.reader().read(places[0]).unwrap(), more[0], "{context}");
                suite.case();
                let (_, _, again) = open(&disk.after_power_loss(image + 100))
                    .unwrap_or_else(|e| panic!("{context}, went on: {e}"));
                assert_eq!(again, [records, more].concat(), "{context}");
            }
        }
    }
    suite.end();
}

/// The process dies and comes back while the machine runs: it finds its writes
/// in the page cache, serves them, and then the power fails.
#[test]
fn what_recovery_has_served_is_never_lost_again() {
    let phases = ["a batch nobody was told of survived", "went on"];
    let mut suite = Suite::begin("killed at every call, then power lost", &phases);
    for seed in suite.seeds(3, 60) {
        let load = Load(seed);
        for call in 1..=load.calls() {
            let (disk, outcome) = load.crashed_at(call);
            let killed = disk.after_kill();
            let context = format!("killed at call {call} ({:?}) of {seed}", disk.failed());
            let served = recover(&mut suite, &killed, &outcome, &context);
            for image in images(seed, call, suite.pick(2, 6)) {
                suite.case();
                let (_, _, records) = open(&killed.after_power_loss(image))
                    .unwrap_or_else(|e| panic!("{context}, then power lost, image {image}: {e}"));
                assert_eq!(records, served, "{context}, then power lost, image {image}");
            }
            if call % 4 != 0 {
                continue;
            }
            // Or it goes on for long enough to seal a segment.
            suite.hit("went on");
            suite.case();
            let (mut log, ..) = open(&killed).unwrap();
            let mut expected = served;
            for i in 40..48 {
                append(&mut log, &load.batch(i)).unwrap();
                log.sync().unwrap();
                expected.extend(load.batch(i));
            }
            let (_, _, records) = open(&killed.after_power_loss(call))
                .unwrap_or_else(|e| panic!("{context}, went on, then power lost: {e}"));
            assert_eq!(records, expected, "{context}");
        }
    }
    suite.end();
}

/// Whoever is handed a record may write it down elsewhere, durably.
#[test]
fn what_is_handed_out_at_opening_is_durable() {
    let mut suite = Suite::begin("power lost while records are handed out", &["of what nobody was told"]);
    for seed in suite.seeds(2, 20) {
        let load = Load(seed);
        for call in (1..=load.calls()).step_by(suite.pick(3, 1) as usize) {
            let (disk, outcome) = load.crashed_at(call);
            let told: usize = outcome.issued[..outcome.acked].iter().map(Vec::len).sum();
            let killed = disk.after_kill();
            let opened = Log::open(Arc::new(killed.clone()), options(), |position, _, _| {
                // The older ones are proven by the later.
                if position + 3 < told as u64 {
                    return Ok(());
                }
                if position >= told as u64 {
                    suite.hit("of what nobody was told");
                }
                suite.case();
                let context = format!("killed at call {call} of {seed}, power lost at record {position}");
                let (_, recovered, _) = open(&killed.after_power_loss(seed ^ call << 40 ^ position << 56))
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(recovered.next > position, "{context}: only {} are left", recovered.next);
                Ok(())
            });
            drop(opened.unwrap());
        }
    }
    suite.end();
}

#[test]
fn a_crash_in_the_middle_of_recovery_is_harmless() {
    let mut suite = Suite::begin("crashed again at every call of recovery", &CALLS);
    for seed in suite.seeds(2, 16) {
        let load = Load(seed);
        for call in (1..=load.calls()).step_by(suite.pick(9, 3) as usize) {
            let (disk, outcome) = load.crashed_at(call);
            let image = disk.after_power_loss(seed ^ call << 40);
            let dry = image.after_kill();
            open(&dry).unwrap();
            for recovery_call in 1..=dry.calls() {
                let disk = image.after_kill();
                disk.crash_at(recovery_call);
                assert!(open(&disk).is_err());
                suite.hit(disk.failed().unwrap());
                let context =
                    format!("crashed at call {call} of {seed}, again at call {recovery_call} of recovery");
                recover(&mut suite, &disk.after_power_loss(seed ^ recovery_call << 32), &outcome, &context);
            }
        }
    }
    suite.end();
}

#[test]
fn one_seed_gives_one_crash() {
    let mut differ = 0;
    for call in 1..=Load(1).calls() {
        let (disk, _) = Load(1).crashed_at(call);
        let names = ["LOG", "spare", "0000000000.segment", "0000000001.segment"];
        let files = |seed| names.map(|name| disk.after_power_loss(seed).file(name));
        assert_eq!(files(5), files(5));
        differ += usize::from((0..20).any(|seed| files(seed) != files(5)));
    }
    assert!(differ > 10, "the seed decides nothing");
}
