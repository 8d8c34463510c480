//! A log of format 1, made by the first program that wrote it. It must always
//! open; if this test fails, the change needs a new format number.

use std::path::Path;
use std::sync::Arc;

use daybook_log::{Log, RealDisk};

use crate::{append, batch, options};

const NAMES: [&str; 3] = ["LOG", "0000000000.segment", "0000000001.segment"];

fn fixture() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1"))
}

/// Run with `--ignored` and a directory in `DAYBOOK_FIXTURE` to make one.
#[test]
#[ignore = "writes a fixture; run by hand when a format is new"]
fn make_the_fixture() {
    let dir = std::env::var("DAYBOOK_FIXTURE").unwrap();
    let disk = RealDisk::open(Path::new(&dir)).unwrap();
    let (mut log, _) = Log::open(Arc::new(disk), options(), |_, _, _| Ok(())).unwrap();
    for i in 0..6 {
        append(&mut log, &batch(i)).unwrap();
        log.sync().unwrap();
    }
}

#[test]
fn a_log_of_format_1_opens_and_goes_on() {
    // A copy: opening may mend a tail.
    let dir = tempfile::tempdir().unwrap();
    for name in NAMES {
        std::fs::copy(fixture().join(name), dir.path().join(name)).unwrap();
    }
    let open = || {
        let mut records = Vec::new();
        let disk = Arc::new(RealDisk::open(dir.path()).unwrap());
        let (log, recovered) = Log::open(disk, options(), |_, _, body| {
            records.push(body.to_vec());
            Ok(())
        })
        .unwrap();
        assert_eq!(recovered.cut_bytes, 0);
        (log, records)
    };
    let (mut log, records) = open();
    let expected: Vec<_> = (0..6).flat_map(batch).collect();
    assert_eq!(records, expected);
    append(&mut log, &batch(6)).unwrap();
    log.sync().unwrap();
    drop(log);
    assert_eq!(open().1, [expected, batch(6)].concat());
}
