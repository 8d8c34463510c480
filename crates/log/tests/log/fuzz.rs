//! Segment files that nobody wrote: told by name, or read as what they hold.
//! The search itself must find what is planted.

use std::sync::Arc;
use std::time::Duration;

use daybook_log::fuzz::{Fuzz, Verdict, computed};
use daybook_log::sim::SimDisk;
use daybook_log::suite::Suite;
use daybook_log::{BATCH_HEADER_BYTES, Disk, Log, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};

use crate::load::{Load, append, open};
use crate::options;

/// What opening a log may hold in memory beyond the size of its files.
const OPENING_BYTES: u64 = 4 << 20;

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.ends_with(".segment")).collect()
}

/// Puts `bytes` in the place of a segment and opens the log.
fn replace(disk: &SimDisk, name: &str, bytes: Vec<u8>) -> Verdict {
    let copy = disk.after_kill();
    let may_allocate = OPENING_BYTES + 8 * bytes.len() as u64;
    copy.put(name, bytes);
    let mut opened = None;
    let allocated = allocation_counter::measure(|| opened = Some(open(&copy)));
    assert!(allocated.bytes_max < may_allocate, "{allocated:?}");
    match opened.unwrap() {
        Ok((mut log, recovered, records)) => {
            assert_eq!(recovered.next, records.len() as u64);
            // It goes on, and what it took is there.
            append(&mut log, &[b"more".to_vec()]).unwrap();
            log.sync().unwrap();
            drop(log);
            let mut again = Vec::new();
            Log::open(Arc::new(copy.after_kill()), options(), |_, _, body| {
                again.push(body.to_vec());
                Ok(())
            })
            .unwrap();
            assert_eq!(again.pop().as_deref(), Some(&b"more"[..]));
            assert_eq!(again, records);
            Ok(())
        }
        Err(error) => {
            let told = error.to_string();
            assert!(told.contains(".segment") || told.contains("LOG"), "{told}");
            Err(told)
        }
    }
}

/// Makes every checksum right, so that what lies behind it is looked at.
fn with_right_checksums(mut bytes: Vec<u8>, segment: u32) -> Vec<u8> {
    let put = |bytes: &mut [u8], at: usize, crc: u32| bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    if bytes.len() < SEGMENT_HEADER_BYTES {
        return bytes;
    }
    let crc = crc32c::crc32c(&bytes[..60]);
    put(&mut bytes, 60, crc);
    for at in (SEGMENT_HEADER_BYTES..bytes.len()).step_by(8) {
        if bytes[at..].starts_with(b"DBfo") && bytes.len() >= at + 68 {
            let crc = crc32c::crc32c(&bytes[at..at + 64]);
            put(&mut bytes, at + 64, crc);
        }
        if !bytes[at..].starts_with(b"DBba") || bytes.len() < at + BATCH_HEADER_BYTES {
            continue;
        }
        let count = u32::from_le_bytes(*bytes[at + 24..].first_chunk().unwrap());
        let mut record = at + BATCH_HEADER_BYTES;
        for _ in 0..count.min(64) {
            let Some(len) = bytes.get(record..).and_then(|rest| rest.first_chunk().copied()) else { break };
            let body = record + RECORD_HEADER_BYTES;
            let end = body.saturating_add(u32::from_le_bytes(len) as usize);
            if end > bytes.len() {
                break;
            }
            let head = [segment.to_le_bytes(), (record as u32).to_le_bytes(), len].concat();
            let crc = crc32c::crc32c_append(crc32c::crc32c(&head), &bytes[body..end]);
            put(&mut bytes, record + 4, crc);
            record = end;
        }
        let crc = crc32c::crc32c(&bytes[at..at + 92]);
        put(&mut bytes, at + 92, crc);
    }
    bytes
}

#[test]
fn a_segment_of_any_bytes_is_named_or_read() {
    let disk = SimDisk::default();
    Load(3).run(&disk);
    let names = names(&disk);
    let (middle, last) = (names.len() / 2, names.len() - 1);
    let mut fuzz = Fuzz::new("fuzz segments").input(Vec::new());
    for name in [&names[middle], &names[last]] {
        fuzz = fuzz.input(disk.file(name).unwrap());
    }
    fuzz.run(600, |input| {
        let repaired = |segment| with_right_checksums(input.to_vec(), segment as u32);
        let verdicts = [
            replace(&disk, &names[middle], repaired(middle)),
            replace(&disk, &names[last], repaired(last)),
            replace(&disk, &names[last], input.to_vec()),
        ];
        let refused: Vec<_> = verdicts.into_iter().filter_map(Result::err).collect();
        if refused.len() < 3 { Ok(()) } else { Err(refused.concat()) }
    });
}

#[test]
fn an_identity_of_any_bytes_is_named_or_read() {
    let disk = SimDisk::default();
    Load(3).run(&disk);
    Fuzz::new("fuzz identity").input(disk.file("LOG").unwrap()).input(Vec::new()).run(2_000, |input| {
        let copy = disk.after_kill();
        copy.put("LOG", input.to_vec());
        open(&copy).map(drop).map_err(|error| {
            let told = error.to_string();
            assert!(told.contains("LOG") || told.contains(".segment"), "{told}");
            told
        })
    });
}

/// Searches 20,000 inputs of a target that is wrong.
fn caught(target: impl FnMut(&[u8]) -> Verdict) -> String {
    let mut suite = Suite::begin("planted", &[]);
    let fuzz = Fuzz::new("planted").input("{\"op\":\"ack\",\"tokens\":[\"a\"],\"n\":\"12\"}");
    let found = fuzz.search(1, |case| case < 20_000, target, &mut suite);
    suite.skip("it is wrong on purpose");
    found.expect_err("not caught").what
}

/// One check behind the other, as parsers have them.
fn parse(input: &[u8]) -> Result<&str, String> {
    let text = str::from_utf8(input).map_err(|error| error.to_string())?;
    let rest = text.strip_prefix("{\"op\":\"").ok_or("no op")?;
    rest.split_once("\"n\":\"").map(|(_, n)| n).ok_or_else(|| "no number".into())
}

#[test]
fn a_panic_behind_several_checks_is_caught() {
    let what = caught(|input| {
        let n = parse(input)?.split('"').next().unwrap_or_default();
        let n: u64 = n.parse().map_err(|_| "not a number")?;
        assert!(n < 1 << 40, "too large to be true");
        Ok(())
    });
    assert!(what.contains("too large to be true"), "{what}");
}

#[test]
fn an_input_that_is_computed_on_for_ever_is_caught() {
    let what = caught(|input| {
        let n = parse(input)?;
        let began = computed();
        while n.starts_with('-') && computed() - began < Duration::from_millis(2_100) {}
        Ok(())
    });
    assert!(what.contains("computed for"), "{what}");
}

#[test]
fn a_length_that_is_believed_is_caught() {
    let what = caught(|input| {
        let n = parse(input)?.split('"').next().unwrap_or_default();
        let n: u64 = n.parse().map_err(|_| "not a number")?;
        let believed = n.min(1 << 28) as usize;
        let allocated = allocation_counter::measure(|| drop(Vec::<u8>::with_capacity(believed)));
        assert!(allocated.bytes_max < OPENING_BYTES, "held too much");
        Ok(())
    });
    assert!(what.contains("held too much"), "{what}");
}
