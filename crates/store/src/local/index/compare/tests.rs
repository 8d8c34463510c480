//! Runs that are well-formed, every checksum right, and wrong about the log: a
//! look-up would be answered wrongly, so `verify` has to name them.

use std::path::{Path, PathBuf};

use daybook_log::{Log, RealDisk};
use daybook_model::{NewEvent, Sequence};
use tempfile::TempDir;

use super::*;
use crate::local::index::run::{self, PostingFence};
use crate::local::index::times::IdTimes;
use crate::local::index::write::RunWriter;
use crate::local::{LocalStore, Options, VerifyError, verify};
use crate::{Batch, EventStore};

/// More than two spans a run, and a few events that no run has.
const RUN: u64 = 2_100;
const EVENTS: u64 = 2 * RUN + 50;
/// Of the second run, in its second span.
const AT: u64 = RUN + 1_501;

fn new_event(i: u64) -> NewEvent {
    let event = NewEvent::new(format!("e{i:05}"), format!("T{}", i % 3));
    let event = NewEvent { correlationid: Some(format!("c{:05}", i / 2)), ..event };
    // Some events have no key.
    if i.is_multiple_of(10) { event } else { event.subject(key(i)).sequence(Sequence(i / 7 - zeros(i))) }
}

fn key(i: u64) -> String {
    format!("k/{}", i % 7)
}

/// How many events before `i` would be of its key, but have none.
fn zeros(i: u64) -> u64 {
    (i % 7..i).step_by(7).filter(|before| before.is_multiple_of(10)).count() as u64
}

/// A log of [`EVENTS`] with two runs.
async fn filled(event: impl Fn(u64) -> NewEvent) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    append(dir.path(), 0..EVENTS, event).await;
    indexed(dir.path()).await;
    dir
}

async fn append(dir: &Path, range: std::ops::Range<u64>, event: impl Fn(u64) -> NewEvent) {
    append_by(500, dir, range, event).await;
}

async fn append_by(size: u64, dir: &Path, range: std::ops::Range<u64>, event: impl Fn(u64) -> NewEvent) {
    let store = LocalStore::open(dir, options()).unwrap();
    for first in range.clone().step_by(size as usize) {
        let events: Vec<_> = (first..range.end.min(first + size)).map(&event).collect();
        let batch = Batch {
            events: events.into(),
            session: "service/instance/session".into(),
            principal: None,
            default_source: "/test".into(),
            fallback_correlation: "fallback".into(),
            fence: None,
        };
        store.append(batch).await.unwrap();
    }
    store.close().await;
}

/// Makes the index again: opening writes all runs that are due at once.
async fn indexed(dir: &Path) {
    std::fs::remove_dir_all(dir.join("index")).unwrap();
    LocalStore::open(dir, options()).unwrap().close().await;
}

fn options() -> Options {
    let ticks = std::sync::atomic::AtomicI64::new(1_000_000);
    let clock =
        move || daybook_model::Timestamp(ticks.fetch_add(1_000, std::sync::atomic::Ordering::Relaxed));
    Options {
        first_segment_bytes: 64 << 10,
        segment_bytes: 256 << 10,
        run_events: RUN as usize,
        clock: std::sync::Arc::new(clock),
        ..Options::default()
    }
}

fn hash(dir: &Path, kind: Kind, text: &str) -> u64 {
    let id = Log::identify(&RealDisk::read_only(dir)).unwrap().unwrap();
    Hasher::new(id).hash(kind, text)
}

/// What a run says, to be changed.
struct Said {
    places: Vec<Place>,
    lists: Vec<(u64, u64)>,
    names: Vec<KeyEntry>,
    first_time: i64,
    id_times: IdTimes,
}

/// The second run of `dir` with `change` made to what it says; its path.
fn changed(dir: &Path, change: impl FnOnce(&mut Said)) -> PathBuf {
    let disk = RealDisk::open(&dir.join("index")).unwrap();
    let id = Log::identify(&RealDisk::read_only(dir)).unwrap().unwrap();
    let name = run::name(RUN, 2 * RUN);
    let run = Run::open(&disk, &name, id).unwrap();
    let mut places = Vec::new();
    while (places.len() as u64) < RUN {
        places.extend(run.places(RUN + places.len() as u64).unwrap());
    }
    let blocks = (0..run.posting_blocks()).flat_map(|i| run.posting_block(i).unwrap());
    let positions = |posting: super::super::codec::Posting| {
        posting.positions.into_iter().map(move |at| (posting.hash, RUN + u64::from(at)))
    };
    let mut said = Said {
        places,
        lists: blocks.flat_map(positions).collect(),
        names: (0..run.key_blocks()).flat_map(|i| run.key_block(i).unwrap()).collect(),
        first_time: run.first_time,
        id_times: run.id_times,
    };
    let entries = run.filter_entries;
    drop(run);
    change(&mut said);
    said.lists.sort_unstable();
    let range = (RUN, 2 * RUN);
    let mut writer = RunWriter::create(&disk, id, range, entries, said.first_time, said.id_times).unwrap();
    (RUN..).zip(&said.places).for_each(|(position, place)| writer.place(position, *place).unwrap());
    writer.places_done().unwrap();
    said.lists.iter().for_each(|(hash, position)| writer.postings(*hash, [*position].into_iter()).unwrap());
    writer.postings_done().unwrap();
    said.names.iter().for_each(|entry| writer.key(entry).unwrap());
    writer.finish().unwrap();
    dir.join("index").join(name)
}

/// What `verify` says is wrong with the file at `path`.
fn told(dir: &Path, path: &Path) -> String {
    match verify(dir, |_| ()) {
        Err(VerifyError::Index { path: wrong, offset, reason }) => {
            assert_eq!(wrong, path);
            let len = std::fs::metadata(path).unwrap().len();
            assert!(offset < len, "{offset} of {len}: {reason}");
            reason
        }
        other => panic!("{other:?}"),
    }
}

async fn check(change: impl FnOnce(&mut Said), expected: &str) {
    let dir = filled(new_event).await;
    let path = changed(dir.path(), change);
    let reason = told(dir.path(), &path);
    assert!(reason.contains(expected), "expected: {expected}\ntold: {reason}");
    std::fs::remove_file(path).unwrap();
    LocalStore::open(dir.path(), options()).unwrap().close().await;
    assert_eq!(verify(dir.path(), |_| ()).unwrap().runs, 2, "it was not made again");
}

#[tokio::test]
async fn what_says_the_same_as_the_log_agrees() {
    let dir = filled(new_event).await;
    changed(dir.path(), |_| ());
    let found = verify(dir.path(), |_| ()).unwrap();
    assert_eq!((found.events, found.keys, found.runs), (EVENTS, 7, 2));
}

/// Each kind of list and one that this event is in.
fn kinds() -> [(Kind, String); 6] {
    [
        (Kind::Id, format!("e{AT:05}")),
        (Kind::Subject, key(AT)),
        (Kind::Type, format!("T{}", AT % 3)),
        (Kind::Correlation, format!("c{:05}", AT / 2)),
        (Kind::Session, "service/instance/session".into()),
        (Kind::Session, "service/".into()),
    ]
}

#[tokio::test]
async fn an_event_that_a_list_lacks_is_told_with_kind_and_text() {
    for (kind, text) in kinds() {
        let dir = filled(new_event).await;
        let entry = (hash(dir.path(), kind, &text), AT);
        let path = changed(dir.path(), |said| said.lists.retain(|known| *known != entry));
        let expected = format!("position {AT} is missing from the list of its {} `{text}`", kind.name());
        assert_eq!(told(dir.path(), &path), expected);
    }
}

#[tokio::test]
async fn an_event_in_a_list_that_is_not_its_own_is_told_with_the_kind() {
    for (kind, text) in kinds() {
        let dir = filled(new_event).await;
        let hash = hash(dir.path(), kind, &text);
        // Another event's list of that kind; those of sessions have every event once.
        let at = if kind == Kind::Session { AT } else { AT + 11 };
        let path = changed(dir.path(), |said| said.lists.push((hash, at)));
        let expected = match kind {
            Kind::Session => format!("position {at} is twice in the list of its session"),
            _ => format!("position {at} is in the list of another {} than its own", kind.name()),
        };
        assert_eq!(told(dir.path(), &path), expected);
    }
}

#[tokio::test]
async fn an_event_in_a_list_at_another_position_is_told() {
    for (kind, text) in kinds() {
        let dir = filled(new_event).await;
        let hash = hash(dir.path(), kind, &text);
        let path = changed(dir.path(), |said| {
            let entry = said.lists.iter_mut().find(|entry| **entry == (hash, AT)).unwrap();
            entry.1 += 11;
        });
        let reason = told(dir.path(), &path);
        assert!(reason.contains(kind.name()) && reason.contains("position"), "{reason}");
    }
}

#[tokio::test]
async fn two_events_that_changed_places_in_their_lists_are_told() {
    let dir = filled(new_event).await;
    let id = |i: u64| hash(dir.path(), Kind::Id, &format!("e{i:05}"));
    let (one, other) = (id(AT), id(AT + 1));
    let path = changed(dir.path(), |said| {
        for entry in &mut said.lists {
            entry.1 = match *entry {
                (hash, AT) if hash == one => AT + 1,
                (hash, at) if hash == other && at == AT + 1 => AT,
                (_, at) => at,
            };
        }
    });
    let reason = told(dir.path(), &path);
    assert!(reason.contains("in the list of another id than its own"), "{reason}");
}

/// The entry of a key, or of a type.
fn name<'a>(said: &'a mut Said, text: &str) -> &'a mut KeyEntry {
    said.names.iter_mut().find(|entry| names::plain(&entry.text) == text).unwrap()
}

#[tokio::test]
async fn a_name_that_is_missing_too_much_or_ends_elsewhere_is_told() {
    let without = |text: &'static str| {
        move |said: &mut Said| said.names.retain(|entry| names::plain(&entry.text) != text)
    };
    check(without("k/3"), "the key `k/3` of position").await;
    check(without("T1"), "the type `T1` of position").await;
    check(|said| name(said, "k/3").next += 1, "the key `k/3` is said to go on with").await;
    check(|said| name(said, "k/3").last -= 7, "the key `k/3` is said to").await;
    check(|said| name(said, "k/3").last = 10, "the key `k/3` is said to").await;
    check(|said| name(said, "T1").next += 1, "the type `T1` has another number").await;
    let earlier = |said: &mut Said| {
        let entry = name(said, "T1");
        (entry.last, entry.next) = (entry.last - 3, entry.next - 3);
    };
    check(earlier, "the type `T1` is said to end at position").await;
    let renamed = |said: &mut Said| name(said, "k/3").text = "k/33".into();
    check(renamed, "`k/3").await;
    let more = |said: &mut Said| said.names.push(KeyEntry { text: "k/9".into(), next: 5, last: 20 });
    check(more, "the key `k/9` is said to end at position").await;
    let twice = |said: &mut Said| {
        let last = name(said, "k/3").last;
        said.names.push(KeyEntry { text: "k/9".into(), next: 5, last });
    };
    check(twice, "two keys are said to end at position").await;
    let behind = |said: &mut Said| name(said, "k/3").last = RUN as u32;
    check(behind, "`k/3` is said to end behind the file's last position").await;
    check(|said| said.names.reverse(), "is out of order").await;
}

#[tokio::test]
async fn places_and_times_that_are_not_the_logs_are_told() {
    let nudged = |said: &mut Said| said.places[(AT - RUN) as usize].offset += 8;
    check(nudged, &format!("position {AT} is not where it says")).await;
    check(|said| said.first_time += 1, &format!("position {RUN} was not recorded when it says")).await;
    let dir = filled(|i| NewEvent::new(format!("0198c0de-{:04x}-7000-8000-{i:012x}", i % 500), "T")).await;
    let path = changed(dir.path(), |said| said.id_times = IdTimes::NONE);
    assert!(told(dir.path(), &path).contains("is not of the times it tells"));
}

#[tokio::test]
async fn a_filter_that_would_deny_an_id_is_told() {
    let dir = filled(new_event).await;
    let path = changed(dir.path(), |_| ());
    let mut bytes = std::fs::read(&path).unwrap();
    let trailer = bytes.len() - TRAILER_BYTES;
    let number = |i: usize| u64::from_le_bytes(*bytes[trailer + 8 * i..].first_chunk().unwrap()) as usize;
    let (meta, len, entries) = (number(3), number(4), number(5));
    // The filter ends the meta data; one of the last run has far fewer keys than entries.
    let filter = (entries * 12).div_ceil(512) * 64;
    bytes[meta + len - filter..meta + len].fill(0);
    let crc = crc32c::crc32c(&bytes[meta..meta + len]);
    bytes[trailer + 56..trailer + 60].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[trailer..trailer + 60]);
    bytes[trailer + 60..].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    assert!(told(dir.path(), &path).contains(&format!("its filter does not know the id `e{RUN:05}`")));
}

#[tokio::test]
async fn lists_whose_fence_or_order_is_wrong_are_told() {
    let dir = filled(new_event).await;
    changed(dir.path(), |_| ());
    let id = Log::identify(&RealDisk::read_only(dir.path())).unwrap().unwrap();
    let disk = RealDisk::read_only(&dir.path().join("index"));
    let open = || Run::open(&disk, &run::name(RUN, 2 * RUN), id).unwrap();
    let finish = |run: Run| {
        let again: ReadAgain<'_> = &|_, _| panic!("nothing has to be read again");
        let begun = Comparison::begin(run, Hasher::new(id), &mut |_| ()).map(|mut comparison| {
            comparison.lists(&mut |_| ())?;
            comparison.finish(again, &mut |_| ())
        });
        match begun.and_then(|finished| finished) {
            Err(Wrong::Run(_, error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let mut run = open();
    let PostingFence { hash, .. } = &mut run.posting_fences[3];
    *hash -= 1;
    assert!(finish(run).contains("do not begin as their fence says"));
    let mut run = open();
    run.key_fences[0].text = "k/0".into();
    assert!(finish(run).contains("names do not begin as their fence says"));
    let mut run = open();
    run.posting_fences.swap(3, 4);
    assert!(!finish(run).is_empty());
}

fn swap_index(one: &Path, other: &Path) {
    let (one, other, aside) = (one.join("index"), other.join("index"), one.join("aside"));
    std::fs::rename(&one, &aside).unwrap();
    std::fs::rename(&other, &one).unwrap();
    std::fs::rename(&aside, &other).unwrap();
}

/// A copy of a log is the same log until one goes on: from `split` on the other
/// has `event`s up to `until`.
async fn two_histories(split: u64, event: impl Fn(u64) -> NewEvent, until: u64) -> (TempDir, TempDir) {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    append(one.path(), 0..split, new_event).await;
    for entry in std::fs::read_dir(one.path()).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), other.path().join(entry.file_name())).unwrap();
        }
    }
    std::fs::create_dir(other.path().join("index")).unwrap();
    // In one batch each: a pause between two would leave a mark in the log, and
    // what comes after it in other places.
    append_by(EVENTS, one.path(), split..EVENTS, new_event).await;
    append_by(EVENTS, other.path(), split..until, event).await;
    indexed(one.path()).await;
    indexed(other.path()).await;
    (one, other)
}

#[tokio::test]
async fn the_index_of_another_history_of_the_log_is_told() {
    // Every record as long as its sibling, so that the places are alike.
    let sibling = |i: u64| NewEvent { id: format!("x{i:05}"), ..new_event(i) };
    let (one, other) = two_histories(1_000, sibling, EVENTS).await;
    assert_eq!(verify(one.path(), |_| ()).unwrap().runs, 2);
    swap_index(one.path(), other.path());
    let first = one.path().join("index").join(run::name(0, RUN));
    assert!(told(one.path(), &first).contains("in the list of another id than its own"));
}

#[tokio::test]
async fn an_index_that_has_seen_more_than_the_log_holds_is_told() {
    let (one, other) = two_histories(RUN + 700, new_event, RUN + 700).await;
    swap_index(one.path(), other.path());
    let wrong = other.path().join("index").join(run::name(RUN, 2 * RUN));
    let expected = format!("it tells where position {} is, and the log has {} events", RUN + 700, RUN + 700);
    assert_eq!(told(other.path(), &wrong), expected);
}

#[tokio::test]
async fn damage_to_the_log_is_told_before_a_wrong_index() {
    let dir = filled(new_event).await;
    changed(dir.path(), |said| said.lists.truncate(100));
    let segment = dir.path().join("0000000001.segment");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[5_000] ^= 1;
    std::fs::write(segment, bytes).unwrap();
    assert!(matches!(verify(dir.path(), |_| ()), Err(VerifyError::Log(OpenError::Damaged { .. }))));
}
