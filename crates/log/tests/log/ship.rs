//! A copy on another disk goes on with its own log and with no other.

use std::io::ErrorKind;
use std::sync::Arc;

use daybook_log::sim::{Random, SimDisk};
use daybook_log::suite::Suite;
use daybook_log::{Disk, OpenError, Shipper};

use crate::load::{Load, append, open};

fn ship(source: &SimDisk, copy: &SimDisk) -> Result<u64, OpenError> {
    let mut shipper = Shipper::open(Arc::new(source.clone()), Arc::new(copy.clone()))?;
    while shipper.ship(None)?.more {}
    Ok(shipper.next())
}

/// A log of `records` in one batch each, then `last` records in one batch.
fn log(records: u8, last: usize) -> SimDisk {
    let disk = SimDisk::default();
    let (mut log, ..) = open(&disk).unwrap();
    for i in 0..records {
        append(&mut log, &[vec![i; 100]]).unwrap();
        log.sync().unwrap();
    }
    append(&mut log, &vec![vec![last as u8; 100]; last]).unwrap();
    log.sync().unwrap();
    disk
}

/// The copy's end once lay inside a batch of the other history, which was taken for a
/// torn tail: nothing was copied, and it counted as done.
#[test]
fn a_copy_of_another_history_is_refused_wherever_its_batches_end() {
    for records in [1, 5, 30, 60] {
        for (ours, theirs) in [(1, 3), (3, 1), (2, 2), (1, 9)] {
            let copy = SimDisk::default();
            let shipped = ship(&log(records, ours), &copy).unwrap();
            assert_eq!(shipped, u64::from(records) + ours as u64);
            let mut other = log(records, theirs);
            if ours == theirs {
                // The same up to here: it goes on.
                assert_eq!(ship(&other, &copy).unwrap(), shipped);
                other = log(records + 1, theirs);
            }
            let error = ship(&other, &copy).unwrap_err().to_string();
            assert!(error.contains("another history"), "{records} and {ours}, then {theirs}: {error}");
        }
    }
}

/// A mark that was taken back, but not durably, came back with a power cut: what the
/// copy had acknowledged behind it since, as a log of its own, proved nothing any more.
#[test]
fn a_copy_that_was_opened_as_a_log_is_no_copy_any_more() {
    let copy = SimDisk::default();
    ship(&log(30, 3), &copy).unwrap();
    assert!(copy.file("copying").is_some());
    let (mut log, ..) = open(&copy).unwrap();
    for i in 0..3 {
        append(&mut log, &[vec![i; 100]]).unwrap();
        log.sync().unwrap();
    }
    for seed in 0..20 {
        assert!(copy.after_power_loss(seed).file("copying").is_none(), "seed {seed}");
    }
}

/// All that a log holds.
fn records(disk: &SimDisk, context: &str) -> Vec<Vec<u8>> {
    open(&disk.after_kill()).unwrap_or_else(|error| panic!("{context}: {error}")).2
}

/// The copy once ended before the damage, and that was all that was said.
#[test]
fn a_copy_of_a_damaged_log_never_passes_for_the_whole() {
    let phases = ["refused", "harmless", "still served", "cut short", "missing"];
    let mut suite = Suite::begin("copy of a damaged log", &phases);
    for seed in suite.seeds(3, 30) {
        let whole = SimDisk::default();
        let all = Load(seed).run(&whole).issued.concat();
        let names = whole.list().unwrap().into_iter().filter(|name| name.ends_with(".segment"));
        for name in names {
            let good = whole.file(&name).unwrap();
            let mut try_copying = |bytes: Option<Vec<u8>>, what: &'static str, at: usize| {
                suite.case();
                let context = format!("{what} at {at} of {name}, seed {seed}");
                let source = whole.after_kill();
                match bytes {
                    Some(bytes) => source.put(&name, bytes),
                    None => source.remove(&name).unwrap(),
                }
                let copy = SimDisk::default();
                match ship(&source, &copy) {
                    // The last one may be missing: nobody knows of it.
                    Ok(_) if what == "missing" => assert!(open(&source).is_ok(), "{context}"),
                    Ok(_) => {
                        assert!(records(&copy, &context) == all, "{context}: copied in part");
                        suite.hit("harmless");
                    }
                    Err(error) => {
                        assert!(matches!(error, OpenError::Damaged { .. }), "{context}: {error}");
                        suite.hit(if what == "flipped" { "refused" } else { what });
                    }
                }
                // While it is served: the server knows how far it goes.
                let (source, copy) = (Arc::new(source), Arc::new(SimDisk::default()));
                let mut shipper = Shipper::open(source, copy.clone()).unwrap();
                let shipped = loop {
                    match shipper.ship(Some(all.len() as u64)) {
                        Ok(shipped) if shipped.more => {}
                        end => break end,
                    }
                };
                if shipped.is_ok() {
                    assert!(records(&copy, &context) == all, "{context}: copied in part while it is served");
                    suite.hit("still served");
                }
            };
            for at in (0..good.len()).step_by(7) {
                let mut flipped = good.clone();
                flipped[at] ^= 1 << (at % 8);
                try_copying(Some(flipped), "flipped", at);
            }
            for len in (0..good.len()).step_by(61) {
                try_copying(Some(good[..len].to_vec()), "cut short", len);
            }
            try_copying(None, "missing", 0);
        }
    }
    suite.end();
}

#[test]
fn what_a_crash_left_is_copied_as_it_would_open() {
    let mut suite = Suite::begin("copy of what a crash left", &["killed", "power lost", "a torn tail"]);
    for seed in suite.seeds(3, 30) {
        let load = Load(seed);
        for call in 1..=load.calls() {
            let (disk, _) = load.crashed_at(call);
            let images = (0..suite.pick(2, 6)).map(|i| disk.after_power_loss(seed ^ call << 40 ^ i << 56));
            for (i, source) in std::iter::once(disk.after_kill()).chain(images).enumerate() {
                suite.hit(if i == 0 { "killed" } else { "power lost" });
                if source.file("LOG").is_none() {
                    continue;
                }
                suite.case();
                let context = format!("crashed at call {call} ({:?}) of {seed}, image {i}", disk.failed());
                let (_, recovered, expected) = open(&source.after_kill()).unwrap();
                let copy = SimDisk::default();
                ship(&source, &copy).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(records(&copy, &context) == expected, "{context}: another log");
                if recovered.cut_bytes > 0 {
                    suite.hit("a torn tail");
                }
            }
        }
    }
    suite.end();
}

/// A mark, for one, may be written and not synced: the log goes on without it.
#[test]
fn nothing_is_copied_that_the_source_may_still_lose() {
    let mut suite = Suite::begin("copy of what was durable, then power lost", &["gone on with"]);
    for seed in suite.seeds(3, 30) {
        let load = Load(seed);
        for call in 1..=load.calls() {
            let (disk, outcome) = load.crashed_at(call);
            let killed = Arc::new(disk.after_kill());
            let durable = outcome.issued[..outcome.acked].iter().map(Vec::len).sum::<usize>() as u64;
            if durable == 0 {
                continue;
            }
            for image in 0..suite.pick(2, 5) {
                suite.case();
                let context =
                    format!("crashed at call {call} ({:?}) of {seed}, image {image}", disk.failed());
                let copy = SimDisk::default();
                let mut shipper = Shipper::open(killed.clone(), Arc::new(copy.clone())).unwrap();
                while shipper.ship(Some(durable)).unwrap_or_else(|e| panic!("{context}: {e}")).more {}
                assert_eq!(shipper.next(), durable, "{context}");
                let source = disk.after_power_loss(seed ^ call << 40 ^ image << 56);
                let (mut log, ..) = open(&source).unwrap();
                append(&mut log, &load.batch(90)).unwrap();
                log.sync().unwrap();
                ship(&source, &copy).unwrap_or_else(|error| panic!("{context}, gone on with: {error}"));
                assert!(records(&copy, &context) == records(&source, &context), "{context}, gone on with");
                suite.hit("gone on with");
            }
        }
    }
    suite.end();
}

/// What a log of `load` holds in the end, and how much of it was confirmed to be
/// in `copy`, which is written to now and then, several batches at once.
fn follow(load: Load, copy: &SimDisk) -> (SimDisk, Vec<Vec<u8>>, u64) {
    let source = SimDisk::default();
    let (mut log, ..) = open(&source).unwrap();
    let (mut records, mut confirmed, mut shipper) = (Vec::new(), 0, None);
    for i in 0..30 {
        let batch = load.batch(i);
        append(&mut log, &batch).unwrap();
        log.sync().unwrap();
        records.extend(batch);
        let mut random = Random::new(load.0 ^ i << 24);
        if random.below(5) == 0 {
            log.vouch().unwrap();
        }
        if random.below(4) > 0 && i < 29 {
            continue;
        }
        let mut ship = || -> Result<(), OpenError> {
            let shipper = match &mut shipper {
                Some(shipper) => shipper,
                None => shipper.insert(Shipper::open(Arc::new(source.clone()), Arc::new(copy.clone()))?),
            };
            while shipper.ship(Some(log.next()))?.more {}
            confirmed = shipper.next();
            Ok(())
        };
        // Tried again with the same or a new one, as people do.
        if ship().is_err() && random.below(2) == 0 {
            shipper = None;
        }
    }
    log.vouch().unwrap();
    (source, records, confirmed)
}

#[test]
fn a_copy_opens_whatever_call_of_it_was_the_last() {
    let phases =
        ["power lost", "killed", "EIO", "more than was confirmed", "a torn tail was cut", "gone on with"];
    let mut suite = Suite::begin("copy under crashes and errors", &phases);
    for seed in suite.seeds(3, 20) {
        let load = Load(seed);
        let calm = SimDisk::default();
        let (.., confirmed) = follow(load, &calm);
        assert!(confirmed > 30);
        for call in 1..=calm.calls() {
            for what in ["power lost", "killed", "EIO"] {
                let copy = SimDisk::default();
                match what {
                    "EIO" => copy.fail_at(call, ErrorKind::Other),
                    _ => copy.crash_at(call),
                }
                let (source, records, confirmed) = follow(load, &copy);
                suite.hit(what);
                for image in 0..suite.pick(2, 5) {
                    suite.case();
                    let mut after = copy.after_kill();
                    let context =
                        format!("{what} at call {call} ({:?}) of {seed}, image {image}", copy.failed());
                    if what == "killed" && confirmed > 0 {
                        // Whoever reads it before the power fails must not have read what is lost.
                        let served = open(&after).unwrap_or_else(|e| panic!("{context}: {e}")).2;
                        let left = open(&after.after_power_loss(image)).unwrap().2;
                        assert!(left == served, "{context}: served and lost");
                        after = copy.after_kill();
                    }
                    let after = after.after_power_loss(seed ^ call << 40 ^ image << 56);
                    let opened = after.after_kill();
                    if confirmed > 0 {
                        let (_, recovered, found) =
                            open(&opened).unwrap_or_else(|error| panic!("{context}: {error}"));
                        assert!(records.starts_with(&found), "{context}: not what the log holds");
                        assert!(found.len() as u64 >= confirmed, "{context}: {} of {confirmed}", found.len());
                        if found.len() as u64 > confirmed {
                            suite.hit("more than was confirmed");
                        }
                        if recovered.cut_bytes > 0 {
                            suite.hit("a torn tail was cut");
                        }
                    }
                    ship(&source, &after).unwrap_or_else(|error| panic!("{context}, gone on with: {error}"));
                    assert!(open(&after).unwrap().2 == records, "{context}, gone on with");
                    suite.hit("gone on with");
                }
            }
        }
    }
    suite.end();
}
