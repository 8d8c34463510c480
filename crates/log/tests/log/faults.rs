//! Errors that the disk reports, at every call.

use std::io::ErrorKind;

use daybook_log::Error;
use daybook_log::sim::SimDisk;
use daybook_log::suite::Suite;

use crate::load::{Load, append, open};

fn batch(i: u8) -> Vec<Vec<u8>> {
    vec![vec![i; 100], vec![i; 20]]
}

/// `Load::run` asks the log again after a failure: it must have let go.
#[test]
fn after_any_failed_call_nothing_acknowledged_is_lost_and_nothing_more_is_taken() {
    let phases = [
        "list",
        "open",
        "create",
        "write",
        "sync",
        "rename",
        "sync of the directory",
        "length",
        "refused for want of room",
        "a batch nobody was told of survived",
    ];
    let mut suite = Suite::begin("EIO or ENOSPC at every call", &phases);
    for seed in suite.seeds(3, 50) {
        let load = Load(seed);
        for (kind, call) in
            (1..=load.calls()).flat_map(|n| [(ErrorKind::Other, n), (ErrorKind::StorageFull, n)])
        {
            let disk = SimDisk::default();
            disk.fail_at(call, kind);
            let outcome = load.run(&disk);
            let context = format!("{kind} at call {call} ({:?}) of {seed}", disk.failed());
            suite.hit(disk.failed().expect("the run has that call"));
            if outcome.refused > 0 {
                suite.hit("refused for want of room");
            }
            for image in 0..suite.pick(1, 2) {
                suite.case();
                let (_, _, records) = open(&disk.after_power_loss(seed ^ call << 40 ^ image << 56))
                    .unwrap_or_else(|e| panic!("{context}: {e}"));
                outcome.check(&records, &context);
            }
            // Only the process dies: pages that a failed sync left clean in
            // memory are found, served, and must not vanish later.
            let killed = disk.after_kill();
            suite.case();
            let (_, _, served) = open(&killed).unwrap_or_else(|e| panic!("{context}, killed: {e}"));
            if outcome.check(&served, &context) > 0 {
                suite.hit("a batch nobody was told of survived");
            }
            suite.case();
            let (_, _, records) = open(&killed.after_power_loss(call))
                .unwrap_or_else(|e| panic!("{context}, killed, power lost: {e}"));
            assert_eq!(records, served, "{context}, killed, power lost");
        }
    }
    suite.end();
}

#[test]
fn a_failed_write_or_sync_poisons_for_good() {
    let dry = SimDisk::default();
    let (mut log, ..) = open(&dry).unwrap();
    append(&mut log, &batch(0)).unwrap();
    log.sync().unwrap();
    let begun = dry.calls();
    append(&mut log, &batch(1)).unwrap();
    log.sync().unwrap();
    // One write and one sync, no more.
    assert_eq!(dry.calls() - begun, 2);

    for call in [begun + 1, begun + 2] {
        let disk = SimDisk::default();
        disk.fail_at(call, ErrorKind::Other);
        let (mut log, ..) = open(&disk).unwrap();
        append(&mut log, &batch(0)).unwrap();
        log.sync().unwrap();
        let failed = append(&mut log, &batch(1)).and_then(|_| log.sync()).unwrap_err();
        assert!(failed.to_string().contains("0000000000.segment"), "{failed}");
        let calls = disk.calls();
        // The disk would work again, and is not asked.
        assert!(matches!(log.sync(), Err(Error::Poisoned { .. })));
        assert!(matches!(append(&mut log, &batch(2)), Err(Error::Poisoned { .. })));
        assert!(log.poisoned().is_some());
        assert_eq!(disk.calls(), calls);
    }
}

#[test]
fn a_full_disk_refuses_before_anything_is_written_and_takes_more_when_there_is_room() {
    let disk = SimDisk::default();
    let (mut log, ..) = open(&disk).unwrap();
    let mut expected = Vec::new();
    append(&mut log, &batch(0)).unwrap();
    log.sync().unwrap();
    expected.extend(batch(0));
    disk.set_full(true);
    // The segment in use has its space already.
    let refused = loop {
        match append(&mut log, &batch(1)) {
            Ok(_) => {
                log.sync().unwrap();
                expected.extend(batch(1));
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::NoRoom { .. }), "{refused}");
    assert!(matches!(log.preparer().prepare(), Err(Error::NoRoom { .. })));
    assert_eq!(log.poisoned(), None);
    let (_, _, records) = open(&disk.after_power_loss(1)).unwrap();
    assert_eq!(records, expected);

    disk.set_full(false);
    append(&mut log, &batch(1)).unwrap();
    log.sync().unwrap();
    expected.extend(batch(1));
    let (_, _, records) = open(&disk.after_power_loss(1)).unwrap();
    assert_eq!(records, expected);
}

#[test]
fn every_failure_of_opening_names_the_file_and_loses_nothing() {
    let disk = SimDisk::default();
    let outcome = Load(0).run(&disk);
    let image = disk.after_power_loss(0);
    let dry = image.after_kill();
    open(&dry).unwrap();
    for call in 1..=dry.calls() {
        let disk = image.after_kill();
        disk.fail_at(call, ErrorKind::PermissionDenied);
        let Err(error) = open(&disk) else { panic!("call {call} failed unnoticed: {:?}", disk.failed()) };
        assert!(error.to_string().contains("sim"), "{error}");
        let (_, _, records) = open(&disk.after_power_loss(call)).unwrap();
        outcome.check(&records, &format!("opening failed at call {call}"));
    }
}
