//! What only files have: reopening, refusals, damage.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use daybook_model::{Data, ExtensionValue, NewEvent, Timestamp};
use daybook_store::EventStore;
use daybook_store::local::{LocalStore, OpenError, Options, verify};

use crate::{all, batch, event};

fn open(dir: &Path) -> Arc<dyn EventStore> {
    Arc::new(LocalStore::open(dir, Options::default()).unwrap())
}

fn refusal(dir: &Path) -> OpenError {
    match LocalStore::open(dir, Options::default()) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

/// All files with their bytes, to see that a refusal touched nothing.
fn snapshot(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.is_file() && !["LOCK", "spare"].contains(&path.file_name().unwrap().to_str().unwrap())
        })
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

async fn filled(dir: &Path, events: usize) -> Vec<daybook_model::Event> {
    let store = open(dir);
    for i in 0..events {
        store.append(batch(vec![event(&format!("e{i}"), &format!("k/{}", i % 7), None)])).await.unwrap();
    }
    let events = store.read(all()).await.unwrap().events;
    store.close().await;
    events.iter().map(|e| (**e).clone()).collect()
}

#[tokio::test]
async fn everything_is_there_again_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let odd = NewEvent {
        source: Some("/elsewhere".into()),
        subject: Some("läufer/☃".into()),
        correlationid: Some("c".into()),
        causationid: Some("unknown".into()),
        time: Some("2020-02-29T23:59:60.5+01:00".replace(":60", ":59")),
        datacontenttype: Some("application/json".into()),
        dataschema: Some("urn:x".into()),
        traceparent: Some("00-1-2-03".into()),
        extensions: vec![
            ("flag".into(), ExtensionValue::Boolean(true)),
            ("level".into(), ExtensionValue::Integer(-7)),
            ("zone".into(), ExtensionValue::String("ü".into())),
        ],
        data: Some(Data::Json(daybook_model::JsonText::from_string("{ \"a\":1.000 }".into()).unwrap())),
        ..NewEvent::new("odd", "Odd")
    };
    let binary = NewEvent { data: Some(Data::Binary(vec![0, 255, 1])), ..NewEvent::new("binary", "B") };
    let before = {
        let store = open(dir.path());
        store.append(batch(vec![odd.clone(), binary])).await.unwrap();
        let before = store.read(all()).await.unwrap().events;
        store.close().await;
        before
    };
    let store = open(dir.path());
    assert_eq!(store.read(all()).await.unwrap().events, before);
    assert!(
        store
            .append(batch(vec![
                odd,
                NewEvent { data: Some(Data::Binary(vec![0, 255, 1])), ..NewEvent::new("binary", "B") }
            ]))
            .await
            .unwrap()[0]
            .duplicate
    );
}

#[tokio::test]
async fn segments_roll_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        || Options { first_segment_bytes: 4096, segment_bytes: 8192, tail_bytes: 0, ..Options::default() };
    let store: Arc<dyn EventStore> = Arc::new(LocalStore::open(dir.path(), options()).unwrap());
    for i in 0..200 {
        store.append(batch(vec![event(&format!("e{i}"), "k", Some(i))])).await.unwrap();
    }
    let large = "x".repeat(50_000);
    let large = NewEvent { data: Some(Data::json(&large).unwrap()), ..NewEvent::new("large", "L") };
    store.append(batch(vec![large])).await.unwrap();
    store.close().await;
    drop(store);
    let segments = snapshot(dir.path()).iter().filter(|(name, _)| name.ends_with(".segment")).count();
    assert!(segments > 3, "{segments}");
    let store: Arc<dyn EventStore> = Arc::new(LocalStore::open(dir.path(), options()).unwrap());
    assert_eq!(store.read(all()).await.unwrap().events.len(), 201);
    let next = store.append(batch(vec![event("next", "k", Some(200))])).await.unwrap();
    assert_eq!(next[0].position.0, 201);
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let before = filled(dir.path(), 20).await;
    let segment = dir.path().join("0000000000.segment");
    let bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
    // The last batch that holds something, cut at every byte: it is there as a
    // whole or not at all.
    let holds = |at: &usize| bytes[*at..].starts_with(b"DBba") && bytes[*at + 24] > 0;
    let last = (64..end).step_by(8).rev().find(holds).unwrap();
    let records = u32::from_le_bytes(bytes[last + 28..last + 32].try_into().unwrap());
    for cut in (last..last + 96 + records as usize).step_by(13) {
        let mut torn = bytes.clone();
        torn[cut..].fill(0);
        fs::write(&segment, &torn).unwrap();
        let store = open(dir.path());
        let events = store.read(all()).await.unwrap().events;
        assert_eq!(events.len(), 19, "cut at {cut}");
        assert_eq!(*events[18], before[18]);
        store.append(batch(vec![event("new", "k/5", None)])).await.unwrap();
        store.close().await;
        drop(store);
        assert_eq!(open(dir.path()).read(all()).await.unwrap().events.len(), 20);
    }
}

#[tokio::test]
async fn flipped_bits_are_refused_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let before = filled(dir.path(), 12).await;
    let segment = dir.path().join("0000000000.segment");
    let bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
    let mut refused = 0;
    // Every bit is flipped in the log's own suite; here the whole store opens.
    let bytes_tried = (0..end).step_by(11);
    let tried = bytes_tried.len();
    for at in bytes_tried {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&segment, &damaged).unwrap();
        match LocalStore::open(dir.path(), Options::default()) {
            Ok(store) => {
                let events = store.read(all()).await.unwrap().events;
                let same = events.iter().zip(&before).filter(|(a, b)| a.as_ref() == *b).count();
                assert_eq!(same, 12, "byte {at} changed what is read");
            }
            Err(OpenError::Damaged { .. }) => {
                refused += 1;
                assert_eq!(fs::read(&segment).unwrap(), damaged, "the refusal touched the file");
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(refused > tried / 2, "{refused} of {tried}");
}

#[tokio::test]
async fn a_second_process_and_foreign_directories_are_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3).await;
    {
        let _first = open(dir.path());
        assert!(
            matches!(refusal(dir.path()), OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id())
        );
    }
    let before = snapshot(dir.path());
    let log = dir.path().join("LOG");
    let good = fs::read(&log).unwrap();
    let mut future = good.clone();
    future[8] = 9;
    fs::write(&log, &future).unwrap();
    assert!(matches!(refusal(dir.path()), OpenError::OtherVersion { .. }));
    fs::write(&log, &good).unwrap();
    assert_eq!(snapshot(dir.path()), before);

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("thesis.txt"), "precious").unwrap();
    assert!(refusal(foreign.path()).to_string().contains("thesis.txt"));
    assert_eq!(snapshot(foreign.path()).len(), 1);

    fs::remove_file(&log).unwrap();
    assert!(matches!(refusal(dir.path()), OpenError::NotALog { .. }));
}

#[tokio::test]
async fn recorded_time_never_goes_backwards() {
    let dir = tempfile::tempdir().unwrap();
    let times = std::sync::Mutex::new(vec![50, 10, 70, 20].into_iter());
    let clock = move || Timestamp(times.lock().unwrap().next().unwrap_or(0));
    let store =
        LocalStore::open(dir.path(), Options { clock: Arc::new(clock), ..Options::default() }).unwrap();
    for i in 0..4 {
        store.append(batch(vec![event(&i.to_string(), "k", None)])).await.unwrap();
    }
    let recorded: Vec<_> = store.read(all()).await.unwrap().events.iter().map(|e| e.recordedtime.0).collect();
    assert_eq!(recorded, [50, 50, 70, 70]);
}

#[tokio::test]
async fn checkpoints_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        store.save_checkpoint("g", b"one".to_vec()).await.unwrap();
        store.save_checkpoint("g", b"three".to_vec()).await.unwrap();
        store.save_checkpoint("h/ü", b"x".to_vec()).await.unwrap();
    }
    let mut found = open(dir.path()).checkpoints().await.unwrap();
    found.sort();
    assert_eq!(found, [("g".into(), b"three".to_vec()), ("h/ü".into(), b"x".to_vec())]);
}

#[tokio::test]
async fn a_log_that_falls_idle_vouches_for_its_last_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(batch(vec![event("a", "k", None)])).await.unwrap();
    let segment = dir.path().join("0000000000.segment");
    let marks = || {
        let bytes = fs::read(&segment).unwrap();
        let is_mark = |at: &usize| bytes[*at..].starts_with(b"DBba") && bytes[at + 24..at + 28] == [0; 4];
        (64..bytes.len() - 96).step_by(8).filter(is_mark).count()
    };
    for _ in 0..2_000 {
        if marks() == 1 {
            // Once is enough, however long it stays idle.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            assert_eq!(marks(), 1);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("nothing vouches for the last batch");
}

#[tokio::test]
async fn a_torn_checkpoint_leaves_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        store.save_checkpoint("g", b"one".to_vec()).await.unwrap();
        store.save_checkpoint("g", b"two".to_vec()).await.unwrap();
    }
    let newest = dir.path().join("groups/000000.a");
    let good = fs::read(&newest).unwrap();
    // Behind the state is only space that was claimed.
    for at in 0..48 + "g".len() + "two".len() {
        let mut torn = good.clone();
        torn[at] ^= 0x40;
        fs::write(&newest, torn).unwrap();
        let found = open(dir.path()).checkpoints().await.unwrap();
        assert_eq!(found, [("g".to_owned(), b"one".to_vec())], "byte {at}");
    }
}

#[tokio::test]
async fn a_group_whose_two_checkpoints_are_damaged_is_told_and_does_not_begin_anew() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        store.append(batch(vec![event("a", "k", None)])).await.unwrap();
        store.save_checkpoint("g", b"one".to_vec()).await.unwrap();
        store.save_checkpoint("g", b"two".to_vec()).await.unwrap();
    }
    let [old, new] = ["b", "a"].map(|letter| dir.path().join(format!("groups/000000.{letter}")));
    let good = fs::read(&old).unwrap();
    for path in [&old, &new] {
        let mut bytes = fs::read(path).unwrap();
        bytes[50] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    for refused in [refusal(dir.path()).to_string(), verify(dir.path(), |_| ()).unwrap_err().to_string()] {
        assert!(refused.contains("000000.b") && refused.contains("000000.a"), "{refused}");
    }
    fs::write(&old, good).unwrap();
    assert_eq!(open(dir.path()).checkpoints().await.unwrap(), [("g".to_owned(), b"one".to_vec())]);
}

/// Taken for absent, either would be taken for the end of the log.
#[tokio::test]
async fn a_segment_that_is_a_link_is_read_and_one_that_is_a_directory_is_told() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        store.append(batch(vec![event("a", "k", None)])).await.unwrap();
    }
    let [segment, moved] = ["0000000000.segment", "moved"].map(|name| dir.path().join(name));
    fs::rename(&segment, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &segment).unwrap();
    assert_eq!(open(dir.path()).read(all()).await.unwrap().events.len(), 1);
    fs::remove_file(&moved).unwrap();
    let dangling = refusal(dir.path()).to_string();
    fs::remove_file(&segment).unwrap();
    fs::create_dir(&segment).unwrap();
    for refused in [dangling, refusal(dir.path()).to_string()] {
        assert!(refused.contains("0000000000.segment"), "{refused}");
    }
}
