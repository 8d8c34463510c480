//! Files of the index of any bytes, with their checksums made right: named as
//! damage or asked, and no number in them is believed blindly.

use daybook_log::fuzz::{Fuzz, Verdict};
use daybook_log::sim::SimDisk;
use daybook_log::{LogId, Place};
use daybook_model::{Event, Position, Sequence};

use super::run::{HEADER_BYTES, TRAILER_BYTES};
use super::{Comparison, Hasher, Index, Kind, Limits, Range, Run, Wrong, codec};
use crate::local::tests::fuzz::{full, measured};

const LOG: LogId = LogId([7; 16]);
const EVENTS: u64 = 40;

fn event(i: u64) -> Event {
    let (subject, sequence) = (Some(format!("k/{}", i % 7)), Some(Sequence(i / 7)));
    Event { position: Position(i), id: format!("e{i}"), subject, sequence, ..full() }
}

fn place(i: u64) -> Place {
    Place { segment: u32::from(i > 20), offset: 64 + 200 * i as u32, len: 150 }
}

/// The name and the bytes of a run.
fn written() -> (String, Vec<u8>) {
    let disk = SimDisk::default();
    let limits = Limits { events: EVENTS as usize, bytes: usize::MAX };
    let mut index = Index::new(LOG, Default::default(), limits);
    for i in 0..EVENTS {
        index.memory().insert(&event(i), place(i));
    }
    index.flush_now(&disk, LOG).unwrap();
    let name = index.runs[0].name.clone();
    let bytes = disk.file(&name).unwrap();
    (name, bytes)
}

/// Opens a run and asks it everything.
fn ask(disk: &SimDisk, name: &str) -> Verdict {
    let told = |error: std::io::Error| error.to_string();
    let run = Run::open(disk, name, LOG).map_err(told)?;
    let hasher = Hasher::new(LOG);
    let mut answers = Vec::new();
    for reverse in [false, true] {
        let range = Range { from: 3, until: u64::MAX, reverse };
        let mut found = Vec::new();
        answers.push(run.positions(hasher.hash(Kind::Id, "e5"), &range, 10, &mut found));
        answers.push(run.positions(hasher.hash(Kind::Subject, "k/3"), &range, 1_000, &mut found));
    }
    answers.push(run.head(hasher.hash(Kind::Subject, "k/3"), "k/3").map(drop));
    answers.push(run.places(0).map(drop));
    answers.push(run.places(run.end - 1).map(drop));
    answers.extend((0..run.posting_blocks()).map(|i| run.posting_block(i).map(drop)));
    answers.extend((0..run.key_blocks()).map(|i| {
        let keys = run.key_block(i)?;
        keys.iter().for_each(|key| assert_eq!(run.head_of(key).next, key.next));
        Ok(())
    }));
    answers.push(super::open_runs(disk, LOG).map(drop));
    answers.push(compare(run));
    answers.into_iter().collect::<Result<(), _>>().map_err(told)
}

/// With the events that the run was made of.
fn compare(run: Run) -> std::io::Result<()> {
    let events: Vec<_> = (0..EVENTS).map(event).collect();
    let again = |from: u64, places: &[Place]| {
        let from = from as usize;
        Ok(events[from..from + places.len()].to_vec())
    };
    let compared = Comparison::begin(run, Hasher::new(LOG), &mut |_| ()).and_then(|mut comparison| {
        for event in &events[comparison.base().min(EVENTS) as usize..comparison.end().min(EVENTS) as usize] {
            comparison.event(event, place(event.position.0))?;
        }
        if comparison.end() > EVENTS {
            return Ok(());
        }
        comparison.finish(&again, &mut |_| ())
    });
    compared.map_err(|wrong| match wrong {
        Wrong::Run(_, error) => error,
        Wrong::Log(error) => panic!("{error}"),
    })
}

/// Makes the checksums of header, fences, blocks and trailer right.
fn mended(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let Some(trailer) = bytes.len().checked_sub(TRAILER_BYTES).filter(|at| *at >= HEADER_BYTES) else {
        return bytes;
    };
    let mut seal = |range: std::ops::Range<usize>, at: usize| {
        let crc = bytes.get(range).map(crc32c::crc32c);
        if let (Some(crc), Some(place)) = (crc, bytes.get_mut(at..at + 4)) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    };
    seal(0..HEADER_BYTES - 4, HEADER_BYTES - 4);
    let number = |at: usize| u64::from_le_bytes(*input[at..].first_chunk().unwrap()) as usize;
    let [places, postings, keys, meta] = [0, 1, 2, 3].map(|i| number(trailer + 8 * i));
    // One block of each kind: that is how small the file is.
    for (from, until) in [(places, postings), (postings, keys), (keys, meta)] {
        if let Some(at) = until.checked_sub(4).filter(|at| *at < trailer) {
            seal(from..at, at);
        }
    }
    seal(meta..meta.saturating_add(number(trailer + 32)), trailer + 56);
    let at = trailer + TRAILER_BYTES - 4;
    seal(trailer..at, at);
    bytes
}

#[test]
fn a_run_of_any_bytes_is_damaged_or_asked() {
    let (name, run) = written();
    assert_eq!(mended(&run), run);
    Fuzz::new("fuzz runs").input(run).run(2_000, |input| {
        let disk = SimDisk::default();
        disk.put(&name, input.to_vec());
        measured(input, || ask(&disk, &name)).or_else(|_| {
            disk.put(&name, mended(input));
            measured(input, || ask(&disk, &name))
        })
    });
}

#[test]
fn a_block_of_any_bytes_is_unreadable_or_read() {
    let (_, run) = written();
    let mut postings = Vec::new();
    codec::put_posting(&mut postings, 0, 5, &[0, 1, 900_000]);
    codec::put_posting(&mut postings, 5, 900, &[7]);
    let mut keys = Vec::new();
    for (before, text) in [("", "k/1"), ("k/1", "k/12"), ("k/12", "läufer")] {
        let entry = codec::KeyEntry { text: text.into(), next: 3, last: 1 << 20 };
        codec::put_key(&mut keys, before, &entry);
    }
    Fuzz::new("fuzz blocks").input(postings).input(keys).input(run).run(4_000, |input| {
        measured(input, || {
            let postings = codec::postings(input);
            let keys = codec::keys(input);
            for key in keys.iter().flatten().take(3) {
                let _ = codec::find_key(input, &key.text);
            }
            let found = codec::find_key(input, "k/12");
            assert!(keys.is_none() || found.is_ok());
            postings.map(drop).or(keys.map(drop)).ok_or_else(|| format!("unreadable: {found:?}"))
        })
    });
}
