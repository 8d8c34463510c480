//! Bits that flip at rest and sectors that land in the wrong place: told, or
//! without effect, and never a wrong record.

use std::sync::Arc;

use daybook_log::sim::{Random, SimDisk};
use daybook_log::suite::Suite;
use daybook_log::{Disk, Error, Log, LogId, OpenError, Options, Place, Reader};

use crate::load::{Load, append, open, open_with};
use crate::options;

const PHASES: [&str; 2] = ["refused", "harmless"];

/// A log that was stopped in peace, still open, and all that is in it.
struct Written {
    disk: SimDisk,
    options: Options,
    files: Vec<(String, Vec<u8>)>,
    records: Vec<Vec<u8>>,
    places: Vec<Place>,
    reader: Reader,
    _log: Log,
}

/// Of `segments` segments of that size, the last one partly filled.
fn written(seed: u64, segments: usize, segment_bytes: u64) -> Written {
    let disk = SimDisk::default();
    let options = Options { first_segment_bytes: segment_bytes, segment_bytes, ..options() };
    let (mut log, ..) = open_with(&disk, options.clone()).unwrap();
    let (mut records, mut places) = (Vec::new(), Vec::new());
    let last = format!("{:010}.segment", segments - 1);
    let mut i = 0;
    // A few more once the last one has begun.
    let mut more = 8;
    while more > 0 {
        let batch = Load(seed).batch(i);
        places.extend(append(&mut log, &batch).unwrap());
        log.sync().unwrap();
        records.extend(batch);
        i += 1;
        if disk.file(&last).is_some() {
            more -= 1;
        }
    }
    log.vouch().unwrap();
    let names = disk.list().unwrap().into_iter().filter(|name| name != "spare");
    let files = names.map(|name| (name.clone(), disk.file(&name).unwrap())).collect();
    Written { reader: log.reader(), disk, options, files, records, places, _log: log }
}

impl Written {
    /// A copy with these bytes instead is refused, untouched, or is the same log.
    fn try_opening(&self, suite: &mut Suite, name: &str, bytes: Vec<u8>, context: &str) {
        suite.case();
        let copy = self.disk.after_kill();
        copy.put(name, bytes.clone());
        match open_with(&copy, self.options.clone()) {
            Ok((_, _, records)) => {
                assert!(records == self.records, "{context}: other records are served");
                suite.hit("harmless");
            }
            Err(error) => {
                assert!(error.to_string().contains(name), "{context}: {error}");
                assert!(copy.file(name).unwrap() == bytes, "{context}: the refusal wrote");
                suite.hit("refused");
            }
        }
    }

    /// While the log is open with these bytes: every record near them is read
    /// right or is told to be damaged, with file and offset.
    fn try_reading(&self, suite: &mut Suite, name: &str, at: u64, new: &[u8], context: &str) {
        suite.case();
        let file = self.disk.open(name, false).unwrap();
        let mut old = vec![0; new.len()];
        file.read_exact_at(&mut old, at).unwrap();
        file.write_all_at(new, at).unwrap();
        for (place, record) in self.places.iter().zip(&self.records) {
            let near = u64::from(place.offset) < at + new.len() as u64
                && u64::from(place.offset) + u64::from(place.len) + 8 > at;
            if !near || format!("{:010}.segment", place.segment) != name {
                continue;
            }
            let mut each = None;
            let one = self.reader.read(*place);
            let many = self.reader.read_each(&[*place], |_, body| {
                each = Some(body.to_vec());
                true
            });
            match (one, many) {
                (Ok(body), Ok(())) => {
                    assert!(
                        body == *record && each.as_ref() == Some(record),
                        "{context}: a wrong record was read"
                    );
                    suite.hit("harmless");
                }
                (Err(Error::Damaged { path, offset, .. }), Err(_)) => {
                    assert!(path.ends_with(name) && offset == u64::from(place.offset), "{context}");
                    suite.hit("refused");
                }
                (one, many) => panic!("{context}: {one:?}, {many:?}"),
            }
        }
        file.write_all_at(&old, at).unwrap();
    }

    fn flip(&self, suite: &mut Suite, name: &str, bytes: &[u8], bit: usize) {
        let context = format!("bit {bit} of {name} flipped");
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if name != "LOG" {
            self.try_reading(suite, name, bit as u64 / 8, &damaged[bit / 8..=bit / 8], &context);
        }
        self.try_opening(suite, name, damaged, &context);
    }
}

/// In two halves, for two cores.
fn flip_every_bit(name: &'static str, half: usize) {
    let mut suite = Suite::begin(name, &PHASES);
    for seed in suite.seeds(1, 1) {
        let log = written(seed, 4, 16 << 10);
        assert!(log.files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= 64 << 10);
        let step = suite.pick(211, 1) as usize;
        for (name, bytes) in &log.files {
            let step = if name == "LOG" { 1 } else { step };
            for bit in (seed as usize % step..bytes.len() * 8).step_by(step).skip(half).step_by(2) {
                log.flip(&mut suite, name, bytes, bit);
            }
        }
    }
    suite.end();
}

#[test]
fn every_even_bit_of_a_small_log_flipped_is_refused_or_harmless() {
    flip_every_bit("every even bit of a 64 KiB log flipped", 0);
}

#[test]
fn every_odd_bit_of_a_small_log_flipped_is_refused_or_harmless() {
    flip_every_bit("every odd bit of a 64 KiB log flipped", 1);
}

#[test]
fn random_flips_in_larger_logs_are_refused_or_harmless() {
    let mut suite = Suite::begin("random flips in larger logs", &PHASES);
    for seed in suite.seeds(1, 8) {
        let log = written(seed, 6, 64 << 10);
        let mut random = Random::new(seed);
        for _ in 0..suite.pick(400, 2_500) {
            let (name, bytes) = &log.files[random.below(log.files.len())];
            log.flip(&mut suite, name, bytes, random.below(bytes.len() * 8));
        }
    }
    suite.end();
}

/// Every record fills one sector, so that nothing but its place tells it from
/// its neighbour.
#[test]
fn a_sector_in_the_wrong_place_is_seen() {
    let mut suite = Suite::begin("sectors in the wrong place", &["refused"]);
    let disk = SimDisk::default();
    let options = Options { first_segment_bytes: 8192, segment_bytes: 8192, ..options() };
    let (mut log, ..) = open_with(&disk, options.clone()).unwrap();
    let mut records = vec![vec![b'.'; 512 - 64 - 96 - 8]];
    records.extend((0..10).map(|i| vec![b'0' + i; 512 - 8]));
    let places = append(&mut log, &records).unwrap();
    assert!(places[1..].iter().all(|place| place.offset % 512 == 0));
    log.sync().unwrap();
    log.vouch().unwrap();
    let name = "0000000000.segment";
    let bytes = disk.file(name).unwrap();
    let files = vec![(name.to_owned(), bytes.clone())];
    let log = Written { reader: log.reader(), disk, options, files, records, places, _log: log };
    for (from, to) in (0..16).flat_map(|from| (0..16).map(move |to| (from, to))) {
        let context = format!("sector {from} over sector {to}");
        let sector = &bytes[from * 512..(from + 1) * 512];
        log.try_reading(&mut suite, name, to as u64 * 512, sector, &context);
        let mut damaged = bytes.clone();
        damaged[to * 512..(to + 1) * 512].copy_from_slice(sector);
        log.try_opening(&mut suite, name, damaged, &context);
    }
    suite.end();
}

#[test]
fn damage_before_a_footer_is_damage_also_where_no_segment_follows() {
    let disk = SimDisk::default();
    let (mut log, ..) = open(&disk).unwrap();
    let mut written = Vec::new();
    let name = (0..).find_map(|i| {
        let batch = Load(5).batch(i);
        append(&mut log, &batch).unwrap();
        written.extend(batch);
        log.vouch().unwrap();
        let name = disk.list().unwrap().into_iter().rfind(|name| name.ends_with(".segment"))?;
        let sealed = disk.file(&name)?.chunks(8).any(|bytes| bytes.starts_with(b"DBfo"));
        sealed.then_some(name)
    });
    let name = name.unwrap();
    let bytes = disk.file(&name).unwrap();
    let ends = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for at in 0..=ends {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        let copy = disk.after_kill();
        copy.put(&name, damaged);
        match open(&copy) {
            Ok((_, _, records)) => assert_eq!(records, written, "byte {at}"),
            Err(error) => assert!(matches!(error, OpenError::Damaged { .. }), "byte {at}: {error}"),
        }
    }
}

/// Two logs of one name whose segments hold as many records: a copy gone wrong.
#[test]
fn a_segment_of_another_history_of_the_same_log_is_refused() {
    let history = |letter: u8| {
        let disk = SimDisk::default();
        let (mut log, ..) = open(&disk).unwrap();
        for i in 0..40 {
            append(&mut log, &[vec![letter + i % 5; 100]]).unwrap();
            log.sync().unwrap();
        }
        disk
    };
    let (ours, theirs) = (history(b'a'), history(b'A'));
    for name in ["0000000000.segment", "0000000001.segment", "0000000002.segment"] {
        let copy = ours.after_kill();
        copy.put(name, theirs.file(name).unwrap());
        let Err(error) = open(&copy) else { panic!("{name} was taken") };
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let disk = SimDisk::default();
    Load(0).run(&disk);
    let other = SimDisk::default();
    let options = Options { new_id: LogId([9; 16]), ..options() };
    let (mut log, _) = Log::open(Arc::new(other.clone()), options, |_, _, _| Ok(())).unwrap();
    append(&mut log, &Load(0).batch(0)).unwrap();
    log.sync().unwrap();
    let name = "0000000000.segment";
    disk.put(name, other.file(name).unwrap());
    let error = open(&disk).err().unwrap().to_string();
    assert!(error.contains(name) && error.contains("another log"), "{error}");
}

/// The batch behind a mark says of no position that it is durable which the mark's
/// loss would not leave: that it is there at all proves the mark.
#[test]
fn a_damaged_mark_before_the_last_batch_is_no_torn_tail() {
    let disk = SimDisk::default();
    let (mut log, ..) = open(&disk).unwrap();
    let first = append(&mut log, &[vec![1; 100]]).unwrap()[0];
    log.vouch().unwrap();
    append(&mut log, &[vec![2; 100]]).unwrap();
    log.sync().unwrap();
    let mark = (first.offset as usize + 8 + 100).next_multiple_of(8);
    for at in mark..mark + 96 {
        let copy = disk.after_kill();
        let mut bytes = copy.file("0000000000.segment").unwrap();
        bytes[at] ^= 1;
        copy.put("0000000000.segment", bytes.clone());
        assert!(matches!(open(&copy), Err(OpenError::Damaged { .. })), "byte {at}");
        assert!(copy.file("0000000000.segment").unwrap() == bytes, "byte {at}: the refusal wrote");
    }
}
