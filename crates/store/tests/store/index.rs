//! The index on disk: right, small in number, and never needed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use daybook_model::{Filter, NewEvent, Position, Timestamp};
use daybook_store::local::{self, LocalStore, OpenError, Options, VerifyError};
use daybook_store::{EventStore, Query, ReadError};

use crate::{all, batch, event, positions};

const EVENTS: u64 = 400;

fn options() -> Options {
    Options {
        first_segment_bytes: 4 << 10,
        segment_bytes: 8 << 10,
        tail_bytes: 0,
        run_events: 16,
        clock: {
            let now = AtomicI64::new(0);
            Arc::new(move || Timestamp(now.fetch_add(1_000, Ordering::Relaxed)))
        },
        ..Options::default()
    }
}

fn open(dir: &Path) -> Result<Arc<dyn EventStore>, OpenError> {
    LocalStore::open(dir, options()).map(|store| Arc::new(store) as Arc<dyn EventStore>)
}

/// Every other one a UUID of version 7, their times in no order.
fn id(i: u64) -> String {
    match i % 2 {
        0 => format!("e{i}"),
        _ => format!("0198c0de-{:04x}-7000-8000-{i:012x}", i * 7_919 % 10_007),
    }
}

fn numbered(i: u64) -> NewEvent {
    NewEvent { correlationid: Some(format!("c{}", i / 2)), ..event(&id(i), &format!("k/{}", i % 7), None) }
}

async fn fill(dir: &Path) {
    let store = open(dir).unwrap();
    for i in 0..EVENTS {
        store.append(batch(vec![numbered(i)])).await.unwrap();
    }
    wait_for_runs(dir, |runs| runs.len() <= 8).await;
    store.close().await;
}

fn runs(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir.join("index"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".run"))
        .collect();
    names.sort();
    names
}

async fn wait_for_runs(dir: &Path, enough: impl Fn(&[String]) -> bool) {
    for _ in 0..2_000 {
        let runs = runs(dir);
        let covered = runs.last().is_some_and(|last| last[21..41].parse::<u64>().unwrap() + 16 > EVENTS);
        if covered && enough(&runs) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the runs never settled: {:?}", runs(dir));
}

/// Every question that the index answers.
async fn ask(store: &Arc<dyn EventStore>) {
    for i in (0..EVENTS).step_by(13) {
        let found = store.event_by_id(&id(i)).await.unwrap().unwrap();
        assert_eq!(found.position.0, i);
        assert_eq!(store.position_at(found.recordedtime).await.unwrap().0, i);
        let earlier = Timestamp(found.recordedtime.0 - 1);
        assert_eq!(store.position_at(earlier).await.unwrap().0, i);
        let filter =
            Filter { correlationid: Some(format!("c{}", i / 2).as_str().into()), ..Filter::default() };
        let page = store.read(Query { filter, ..all() }).await.unwrap();
        assert_eq!(page.events.len(), 2);
    }
    for (types, sessions, count) in [
        (Some("Hap*"), None, EVENTS),
        (Some("Other*"), None, 0),
        (None, Some("test/*"), EVENTS),
        (None, Some("test/1/*"), EVENTS),
        (None, Some("test/1*"), EVENTS),
        (None, Some("test/2/*"), 0),
        (None, Some("te*"), EVENTS),
    ] {
        let filter = Filter {
            types: types.map(|types| vec![types.into()]),
            sessionid: sessions.map(Into::into),
            ..Filter::default()
        };
        let found = positions(store, Query { filter, ..all() }).await;
        assert!(
            found.len() as u64 >= count && found.iter().all(|at| *at < EVENTS + 1),
            "{types:?} {sessions:?}"
        );
        assert!(count > 0 || found.is_empty());
    }
    // Types stand among the keys, and are none.
    assert_eq!(store.subjects("", None, 100).await.unwrap().len(), 7);
    assert_eq!(store.subjects("\u{1}", None, 100).await.unwrap(), []);
    assert_eq!(store.event_by_id("other").await.unwrap(), None);
    assert_eq!(store.position_at(Timestamp(i64::MAX)).await.unwrap().0, EVENTS);
    for key in 0..7u64 {
        let info = store.subject(&format!("k/{key}")).await.unwrap().unwrap();
        let count = (EVENTS - key).div_ceil(7);
        assert_eq!((info.events, info.last.0), (count, key + (count - 1) * 7));
        let filter = Filter::subject(&format!("k/{key}"));
        let reverse = Query { filter, reverse: true, max_events: 3, ..all() };
        let page = store.read(reverse).await.unwrap();
        let newest: Vec<u64> = page.events.iter().map(|event| event.position.0).collect();
        assert_eq!(newest, [info.last.0, info.last.0 - 7, info.last.0 - 14]);
    }
    assert_eq!(store.subjects("k/", Some("k/2"), 2).await.unwrap().len(), 2);
}

#[tokio::test]
async fn few_runs_answer_everything_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let before = runs(dir.path());
    assert!(before.len() <= 8, "{before:?}");
    let store = open(dir.path()).unwrap();
    ask(&store).await;
    // Known keys and ids go on where they were.
    let next = store.append(batch(vec![event("new", "k/3", Some(57))])).await.unwrap();
    assert_eq!(next[0].position, Position(EVENTS));
    let again = store.append(batch(vec![numbered(40)])).await.unwrap();
    assert_eq!((again[0].position.0, again[0].duplicate), (40, true));
}

#[tokio::test]
async fn opening_does_not_read_what_is_sealed_and_indexed() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    damage_the_second_segment(dir.path());
    let store = open(dir.path()).unwrap();
    // Whoever reads it is told; everybody else is served.
    assert!(
        matches!(store.read(all()).await, Err(ReadError::Damaged(reason)) if reason.contains("0000000001.segment"))
    );
    assert!(store.event_by_id(&id(EVENTS - 1)).await.unwrap().is_some());
}

/// A log that is read from its beginning does not open then.
fn damage_the_second_segment(dir: &Path) {
    let segment = dir.join("0000000001.segment");
    let mut bytes = std::fs::read(&segment).unwrap();
    let in_data = bytes.windows(5).position(|some| some == b"{\"id\"").unwrap();
    bytes[in_data + 7] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
}

/// Their ids' times are not known: every one may hold any.
#[tokio::test]
async fn runs_of_the_format_before_answer_and_become_newer_ones() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    for name in runs(dir.path()) {
        let path = dir.path().join("index").join(name);
        let mut run = std::fs::read(&path).unwrap();
        run[8] = 2;
        run[48..60].fill(0);
        let crc = crc32c::crc32c(&run[..60]);
        run[60..64].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, run).unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    damage_the_second_segment(copy.path());
    assert!(open(copy.path()).is_ok(), "the runs were made again");
    let store = open(dir.path()).unwrap();
    ask(&store).await;
    for i in EVENTS..2 * EVENTS {
        store.append(batch(vec![numbered(i)])).await.unwrap();
    }
    for i in [1, 2, EVENTS - 1, EVENTS + 1] {
        let again = store.append(batch(vec![numbered(i)])).await.unwrap();
        assert_eq!((again[0].position.0, again[0].duplicate), (i, true));
    }
    store.close().await;
}

#[tokio::test]
async fn a_missing_index_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = open(dir.path()).unwrap();
    ask(&store).await;
    assert!(!runs(dir.path()).is_empty());
}

#[tokio::test]
async fn a_damaged_index_gives_no_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let names = runs(dir.path());
    let mut refused = 0;
    for name in &names {
        let path = dir.path().join("index").join(name);
        let good = std::fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(good.len() / 12 + 1) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, bad).unwrap();
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let store = open(copy.path()).unwrap();
            for i in (0..EVENTS).step_by(9) {
                match store.event_by_id(&id(i)).await {
                    Ok(found) => assert_eq!(found.unwrap().position.0, i),
                    Err(ReadError::Unavailable(reason)) => {
                        assert!(reason.contains("index"), "{reason}");
                        refused += 1;
                    }
                    Err(other) => panic!("damage to the index is told as {other:?}"),
                }
            }
        }
        std::fs::write(&path, good).unwrap();
    }
    assert!(refused > 0, "no block was ever damaged");
}

#[tokio::test]
async fn an_index_of_another_log_or_a_newer_program_is_made_again() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(dir.path()).await;
    let store = open(other.path()).unwrap();
    for i in 0..EVENTS {
        store.append(batch(vec![event(&format!("x{i}"), "x", None)])).await.unwrap();
    }
    store.close().await;
    drop(store);
    let replaced = |with: &dyn Fn(&Path)| {
        std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        std::fs::create_dir(dir.path().join("index")).unwrap();
        with(&dir.path().join("index"));
    };
    replaced(&|index| copy_dir(&other.path().join("index"), index));
    ask(&open(dir.path()).unwrap()).await;
    // Names that look like runs, files that are none, a foreign file.
    replaced(&|index| {
        for name in ["00000000000000000000-00000000000000000400.run", "a.run", "x.tmp", "notes.txt"] {
            std::fs::write(index.join(name), vec![7; 5_000]).unwrap();
        }
    });
    ask(&open(dir.path()).unwrap()).await;
    assert!(dir.path().join("index/notes.txt").is_file(), "somebody's file was removed");
}

#[tokio::test]
async fn a_rare_type_or_session_is_found_by_prefix_in_one_page_of_a_long_log() {
    // A page looks at 10,000 positions: the match lies behind, so a scan would not reach it.
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { run_events: 2_000, tail_bytes: 0, ..Options::default() };
    let open = || Arc::new(LocalStore::open(dir.path(), options()).unwrap()) as Arc<dyn EventStore>;
    let store = open();
    for i in 0..130 {
        let events = (0..100).map(|j| event(&format!("e{i}-{j}"), &format!("k/{j}"), None)).collect();
        store.append(batch(events)).await.unwrap();
    }
    let mut rare = batch(vec![NewEvent::new("rare", "RareThing")]);
    rare.session = "other/7/s".into();
    store.append(rare).await.unwrap();
    let ask = async |store: &Arc<dyn EventStore>| {
        let types = Filter { types: Some(vec!["Rare*".into()]), ..Filter::default() };
        let service = Filter { sessionid: Some("other/*".into()), ..Filter::default() };
        let instance = Filter { sessionid: Some("other/7/*".into()), ..Filter::default() };
        for filter in [types, service, instance] {
            assert_eq!(positions(store, Query { filter, ..all() }).await, [13_000]);
        }
    };
    ask(&store).await;
    store.close().await;
    drop(store);
    ask(&open()).await;
}

#[tokio::test]
async fn a_damaged_block_of_the_index_is_told_with_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    assert_eq!(local::verify(dir.path(), |_| ()).unwrap().events, EVENTS);
    let path = dir.path().join("index").join(&runs(dir.path())[0]);
    let good = std::fs::read(&path).unwrap();
    // Behind the header each byte belongs to a block, a fence or the trailer.
    for at in (0..good.len()).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(&path, bad).unwrap();
        match local::verify(dir.path(), |_| ()) {
            Err(VerifyError::Index { path: told, offset, .. }) => {
                assert_eq!(told, path);
                assert!(offset <= at as u64, "the damage at {at} is told at {offset}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_segment_that_was_indexed_and_is_gone_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let names = || {
        let all =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        all.filter(|name| name.ends_with(".segment")).max().unwrap()
    };
    std::fs::remove_file(dir.path().join(names())).unwrap();
    std::fs::remove_file(dir.path().join(names())).unwrap();
    let refused = open(dir.path()).err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
