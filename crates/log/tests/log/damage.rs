//! Bits that flip at rest, and files that are not what they should be.

use daybook_log::sim::SimDisk;
use daybook_log::{Log, OpenError};

use crate::{append, batch, open, workload};

const NAMES: [&str; 3] = ["LOG", "0000000000.segment", "0000000001.segment"];

/// A small log of two segments, stopped in peace.
fn small() -> (SimDisk, Vec<Vec<u8>>) {
    let disk = SimDisk::default();
    let outcome = workload(&disk, 6);
    assert!(disk.file(NAMES[2]).is_some() && disk.file("0000000002.segment").is_none());
    (disk, outcome.issued.concat())
}

#[test]
fn every_flipped_bit_is_refused_or_harmless() {
    let (disk, written) = small();
    let (mut refused, mut harmless) = (0, 0);
    for name in NAMES {
        let bytes = disk.file(name).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let copy = disk.after_kill();
            copy.put(name, damaged.clone());
            match open(&copy) {
                Ok((_, _, records)) => {
                    assert_eq!(records, written, "{name}, bit {bit}");
                    harmless += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains(name), "{name}, bit {bit}: {error}");
                    assert_eq!(copy.file(name).unwrap(), damaged, "{name}, bit {bit}: the refusal wrote");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0 && harmless > 0, "{refused} {harmless}");
}

#[test]
fn damage_on_an_open_log_is_seen_by_every_read() {
    let disk = SimDisk::default();
    let (mut log, ..) = open(&disk).unwrap();
    let places = append(&mut log, &batch(2)).unwrap();
    log.sync().unwrap();
    let reader = log.reader();
    assert_eq!(reader.read(places[1]).unwrap(), batch(2)[1]);
    let file = daybook_log::Disk::open(&disk, NAMES[1], false).unwrap();
    file.write_all_at(b"!", u64::from(places[1].offset) + 9).unwrap();
    let error = reader.read(places[1]).unwrap_err().to_string();
    assert!(error.contains(NAMES[1]) && error.contains(&places[1].offset.to_string()), "{error}");
    assert_eq!(reader.read(places[0]).unwrap(), batch(2)[0]);
}

#[test]
fn a_missing_segment_is_damage_wherever_it_was() {
    let disk = SimDisk::default();
    workload(&disk, 24);
    let segments: Vec<_> =
        (0..).map(|i| format!("{i:010}.segment")).take_while(|name| disk.file(name).is_some()).collect();
    assert!(segments.len() > 3);
    for missing in &segments[..segments.len() - 1] {
        let copy = disk.after_kill();
        daybook_log::Disk::remove(&copy, missing).unwrap();
        assert!(matches!(open(&copy), Err(OpenError::Damaged { .. })), "{missing}");
    }
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let (disk, _) = small();
    let other = SimDisk::default();
    let options = daybook_log::Options { new_id: daybook_log::LogId([9; 16]), ..crate::options() };
    let (mut log, _) = Log::open(std::sync::Arc::new(other.clone()), options, |_, _, _| Ok(())).unwrap();
    append(&mut log, &batch(0)).unwrap();
    log.sync().unwrap();
    disk.put(NAMES[1], other.file(NAMES[1]).unwrap());
    let error = open(&disk).err().unwrap().to_string();
    assert!(error.contains(NAMES[1]) && error.contains("another log"), "{error}");
}

#[test]
fn another_version_is_refused_with_both_numbers_and_untouched() {
    let (disk, _) = small();
    let mut identity = disk.file("LOG").unwrap();
    identity[8] = 3;
    disk.put("LOG", identity);
    let before = NAMES.map(|name| disk.file(name));
    let Err(error) = open(&disk) else { panic!("opened") };
    assert!(matches!(&error, OpenError::OtherVersion { known: 2, .. }));
    assert!(error.to_string().contains("format 3"), "{error}");
    assert_eq!(NAMES.map(|name| disk.file(name)), before);
}

#[test]
fn a_batch_beyond_the_limit_is_refused_and_the_log_goes_on() {
    let disk = SimDisk::default();
    let (mut log, ..) = open(&disk).unwrap();
    let large = vec![0; 129 << 20];
    let refused = log.append([large.as_slice(), large.as_slice()].into_iter()).unwrap_err();
    assert!(matches!(refused, daybook_log::Error::TooLarge { .. }));
    append(&mut log, &batch(0)).unwrap();
    log.sync().unwrap();
    assert_eq!(open(&disk.after_power_loss(3)).unwrap().2, batch(0));
}
