//! Logs of every format there has been, made by the first program that wrote
//! it. They must always open; if this test fails, the change needs a new format
//! number.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use daybook_log::{Log, OpenError, Options, RealDisk};

use crate::load::append;

/// As small as they were when the first fixture was made.
fn options() -> Options {
    Options { first_segment_bytes: 1024, segment_bytes: 2048, ..crate::options() }
}

const FORMATS: [u32; 3] = [1, 2, 3];

/// What is in every fixture, for ever.
fn batch(i: usize) -> Vec<Vec<u8>> {
    let len = if i == 11 { 5000 } else { 30 + i * 7 % 200 };
    (0..1 + i % 3).map(|j| format!("{i}/{j}:").into_bytes().repeat(1 + len / 6)).collect()
}

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{format}"))
}

/// Makes one when a format is new: run with a directory in `DAYBOOK_FIXTURE`.
#[test]
fn make_the_fixture() {
    let Ok(dir) = std::env::var("DAYBOOK_FIXTURE") else { return };
    let disk = RealDisk::open(Path::new(&dir)).unwrap();
    let (mut log, _) = Log::open(Arc::new(disk), options(), |_, _, _| Ok(())).unwrap();
    for i in 0..6 {
        append(&mut log, &batch(i)).unwrap();
        log.sync().unwrap();
        if i % 2 == 0 {
            log.vouch().unwrap();
        }
    }
}

/// A copy: opening may mend a tail.
fn copy(format: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(format)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

#[test]
fn a_log_of_every_format_opens_and_goes_on() {
    for format in FORMATS {
        let dir = copy(format);
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
        let mut expected: Vec<_> = (0..6).flat_map(batch).collect();
        assert_eq!(records, expected, "format {format}");
        for i in 6..12 {
            append(&mut log, &batch(i)).unwrap();
            log.sync().unwrap();
            expected.extend(batch(i));
        }
        log.vouch().unwrap();
        drop(log);
        assert_eq!(open().1, expected, "format {format}");
    }
}

#[test]
fn an_older_log_says_its_new_format_before_anything_new_is_in_it() {
    let dir = copy(1);
    let format = |name: &str| std::fs::read(dir.path().join(name)).unwrap()[8];
    let disk: Arc<RealDisk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    Log::verify(&*disk, |_, _, _| Ok(())).unwrap();
    assert_eq!(format("LOG"), 1, "verifying wrote");
    let (mut log, _) = Log::open(disk, options(), |_, _, _| Ok(())).unwrap();
    assert_eq!((format("LOG"), format("0000000001.segment")), (3, 1));
    // No mark goes where a program of that format would not expect one.
    append(&mut log, &batch(6)).unwrap();
    log.vouch().unwrap();
    assert_eq!(format("0000000002.segment"), 3);
}

/// It was once brought up to date before anybody had looked at it.
#[test]
fn an_older_log_that_is_refused_is_still_one_for_the_program_that_wrote_it() {
    let dir = copy(1);
    let segment = dir.path().join("0000000000.segment");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let files = || -> Vec<_> {
        let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        names.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect()
    };
    let before = files();
    let disk = Arc::new(RealDisk::open(dir.path()).unwrap());
    let refused = Log::open(disk, options(), |_, _, _| Ok(())).err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    assert!(files() == before, "the refusal wrote");
}
