//! A log opened for reading only: nothing is touched, damage ends the view.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use daybook_store::local::{self, LocalStore, OpenError, Options, VerifyError};
use daybook_store::{AppendError, EventStore, Health};
use rustix::thread::CapabilitySet;

use crate::{all, batch, event, positions};

const EVENTS: u64 = 300;

fn options() -> Options {
    Options { first_segment_bytes: 8 << 10, segment_bytes: 16 << 10, run_events: 64, ..Options::default() }
}

fn open_read_only(dir: &Path) -> Arc<dyn EventStore> {
    Arc::new(LocalStore::open_read_only(dir, options()).unwrap())
}

async fn fill(dir: &Path) {
    let store: Arc<dyn EventStore> = Arc::new(LocalStore::open(dir, options()).unwrap());
    for i in 0..EVENTS {
        store.append(batch(vec![event(&format!("e{i}"), "k", Some(i))])).await.unwrap();
    }
    store.save_checkpoint("g", b"one".to_vec()).await.unwrap();
    store.close().await;
}

/// Every file below with its bytes and when it was last changed.
fn snapshot(dir: &Path) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            files.push((path.display().to_string(), fs::read(&path).unwrap(), changed));
        }
    }
    files.sort();
    files
}

/// Position of a segment's first event.
fn base_of(segment: &Path) -> u64 {
    u64::from_le_bytes(fs::read(segment).unwrap()[32..40].try_into().unwrap())
}

/// What is there is the log's beginning, answered by every kind of question.
async fn check_prefix(store: &Arc<dyn EventStore>, context: &str) -> u64 {
    let found = positions(store, all()).await;
    assert!(found.iter().copied().eq(0..found.len() as u64), "{context}: {found:?}");
    assert_eq!(store.head().borrow().0, found.len() as u64, "{context}");
    for position in found.iter().step_by(29) {
        let known = store.event_by_id(&format!("e{position}")).await.unwrap();
        assert_eq!(known.map(|event| event.position.0), Some(*position), "{context}");
    }
    let events = store.subject("k").await.unwrap().map_or(0, |info| info.events);
    assert_eq!(events, found.len() as u64, "{context}");
    found.len() as u64
}

#[tokio::test]
async fn a_healthy_log_is_read_and_nothing_is_touched_or_taken() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let before = snapshot(dir.path());
    let store = open_read_only(dir.path());
    assert_eq!(check_prefix(&store, "healthy").await, EVENTS);
    let refused = store.append(batch(vec![event("new", "k", None)])).await;
    assert!(matches!(refused, Err(AppendError::Unavailable { reason }) if reason.contains("reading only")));
    let health = store.health().borrow().clone();
    assert!(matches!(&health, Health::Degraded(reason) if reason.contains("reading only")), "{health:?}");
    let refused = store.save_checkpoint("g", b"two".to_vec()).await.unwrap_err();
    assert!(refused.to_string().contains("reading only"), "{refused}");
    store.close().await;
    drop(store);
    assert_eq!(snapshot(dir.path()), before);
}

#[tokio::test]
async fn it_can_be_read_beside_the_process_that_writes() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let writer: Arc<dyn EventStore> = Arc::new(LocalStore::open(dir.path(), options()).unwrap());
    let reader = open_read_only(dir.path());
    writer.append(batch(vec![event("new", "k", Some(EVENTS))])).await.unwrap();
    assert_eq!(check_prefix(&reader, "beside a writer").await, EVENTS);
}

#[tokio::test]
async fn of_a_damaged_log_what_lies_before_the_damage_is_served() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let mut segments: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "segment"))
        .collect();
    segments.sort();
    assert!(segments.len() > 3);
    let mut last = 0;
    // The whole index is gone: each segment has to be read.
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    for segment in &segments {
        let base = base_of(segment);
        let good = fs::read(segment).unwrap();
        let used = good.iter().rposition(|byte| *byte != 0).unwrap();
        // A header of 64 bytes, and the first batch: one of 96, then as many as it says.
        let body = u32::from_le_bytes(*good[64 + 28..].first_chunk().unwrap()) as usize;
        let hits_first_batch = used / 2 < 64 + 96 + body;
        let mut flipped = good.clone();
        flipped[used / 2] ^= 1;
        let mut headless = good.clone();
        headless[9] ^= 1;
        for (how, bytes) in
            [("flipped", flipped), ("headless", headless), ("cut short", good[..used / 2].to_vec())]
        {
            let context = format!("{} {how}", segment.display());
            fs::write(segment, bytes).unwrap();
            assert!(LocalStore::open(dir.path(), options()).is_err(), "{context}: opened for writing");
            let before = snapshot(dir.path());
            let store = open_read_only(dir.path());
            let served = check_prefix(&store, &context).await;
            match how {
                "headless" => assert_eq!(served, base, "{context}: all before the segment"),
                _ if hits_first_batch => assert_eq!(served, base, "{context}: all before the segment"),
                _ => assert!(served > base, "{context}: and its beginning"),
            }
            last = last.max(served);
            store.close().await;
            drop(store);
            assert_eq!(snapshot(dir.path()), before, "{context}: touched");
        }
        fs::write(segment, good).unwrap();
    }
    let base = base_of(&segments[1]);
    fs::rename(&segments[1], dir.path().join("elsewhere")).unwrap();
    let store = open_read_only(dir.path());
    assert_eq!(check_prefix(&store, "segment 1 missing").await, base);
    assert!(last > EVENTS / 2, "{last}");
}

#[tokio::test]
async fn damage_to_the_identity_and_what_is_no_log_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |dir: &Path| LocalStore::open_read_only(dir, options()).err().unwrap();
    assert!(matches!(refusal(dir.path()), OpenError::NotALog { .. }));
    assert!(snapshot(dir.path()).is_empty());
    fill(dir.path()).await;
    let path = dir.path().join("LOG");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(refusal(dir.path()), OpenError::Damaged { .. }));
}

/// What `read` finds that may not write to anything of `dir`, as somebody who is
/// not its owner.
fn as_a_stranger<T: Send>(dir: &Path, read: impl FnOnce(&Path) -> T + Send) -> T {
    let mut held = Vec::new();
    let mut all = vec![dir.to_owned()];
    while let Some(path) = all.pop() {
        let before = fs::metadata(&path).unwrap().permissions();
        if path.is_dir() {
            all.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let mut after = before.clone();
        after.set_readonly(true);
        fs::set_permissions(&path, after).unwrap();
        held.push((path, before));
    }
    // Root may write to what nobody may, unless its thread gives that up.
    let found = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut sets = rustix::thread::capabilities(None).unwrap();
            sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
            rustix::thread::set_capabilities(None, sets).unwrap();
            read(dir)
        });
        thread.join().unwrap()
    });
    held.into_iter().rev().for_each(|(path, before)| fs::set_permissions(path, before).unwrap());
    found
}

#[tokio::test]
async fn who_may_only_read_verifies_a_log_that_nobody_serves() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let verify = |dir: &Path| local::verify(dir, |_| ());
    assert_eq!(as_a_stranger(dir.path(), verify).unwrap().events, EVENTS);
    // As a server does. The files of one that runs are not still enough to be changed here.
    let server = local::Lock::take(dir.path()).unwrap();
    let beside = as_a_stranger(dir.path(), verify).unwrap_err();
    let pid = std::process::id();
    assert!(
        matches!(&beside, VerifyError::Log(OpenError::InUse { pid: Some(by), .. }) if *by == pid),
        "{beside}"
    );
    drop(server);
    // Of two who read neither keeps the other out, but both a server.
    as_a_stranger(dir.path(), |dir| {
        let lock = local::Lock::take_to_read(dir).unwrap();
        assert!(verify(dir).is_ok());
        drop(lock);
    });
    fs::remove_file(dir.path().join("LOCK")).unwrap();
    let told = as_a_stranger(dir.path(), verify).unwrap_err().to_string();
    assert!(told.contains("LOCK") && told.contains("let its owner make it"), "{told}");
}

#[tokio::test]
async fn a_server_is_kept_out_while_somebody_reads_who_may_do_no_more() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let lock = as_a_stranger(dir.path(), |dir| local::Lock::take_to_read(dir).unwrap());
    assert!(matches!(LocalStore::open(dir.path(), options()), Err(OpenError::InUse { .. })));
    drop(lock);
    assert!(LocalStore::open(dir.path(), options()).is_ok());
}

#[tokio::test]
async fn a_file_of_the_index_that_may_not_be_read_is_not_called_wrong() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let index = dir.path().join("index");
    let run = fs::read_dir(&index).unwrap().next().unwrap().unwrap().path();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o000)).unwrap();
    let told = as_a_stranger(dir.path(), |dir| local::verify(dir, |_| ())).unwrap_err();
    assert!(matches!(&told, VerifyError::Log(OpenError::Io { path, .. }) if *path == run), "{told}");
}
