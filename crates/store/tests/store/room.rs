//! A disk that is nearly full, full, or takes no index: publishes are refused
//! before anything is written, everything else goes on, and so does publishing
//! when there is room again.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use daybook_store::local::{LocalStore, Options};
use daybook_store::{AppendError, EventStore, Health, Stored};

use crate::{all, batch, event};

const MIB: u64 = 1 << 20;

fn open(dir: &Path, options: Options) -> Arc<dyn EventStore> {
    Arc::new(LocalStore::open(dir, options).unwrap())
}

async fn publish(store: &Arc<dyn EventStore>, i: u64) -> Result<Vec<Stored>, AppendError> {
    store.append(batch(vec![event(&format!("e{i}"), &format!("k/{}", i % 7), None)])).await
}

/// Publishes until it is refused; returns how many events were taken, and why no more.
async fn fill(store: &Arc<dyn EventStore>, from: u64, most: u64) -> (u64, String) {
    let mut i = from;
    while i < most {
        match publish(store, i).await {
            Ok(_) => i += 1,
            Err(AppendError::Unavailable { reason }) => return (i, reason),
            Err(AppendError::Overloaded) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("{most} events were taken")
}

async fn until_taken(store: &Arc<dyn EventStore>, i: u64) {
    for _ in 0..2_000 {
        if publish(store, i).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("publishing never resumed: {:?}", *store.health().borrow());
}

async fn until_refused(store: &Arc<dyn EventStore>) {
    let mut health = store.health();
    health.wait_for(|health| matches!(health, Health::Degraded(_))).await.unwrap();
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_before_it_is_full_and_resumes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(100 * MIB));
    let options = || Options {
        reserve_bytes: 10 * MIB,
        free_bytes: Some({
            let free = free.clone();
            Arc::new(move || Ok(free.load(Ordering::Relaxed)))
        }),
        ..Options::default()
    };
    let store = open(dir.path(), options());
    let receipt = publish(&store, 0).await.unwrap();
    free.store(9 * MIB, Ordering::Relaxed);
    until_refused(&store).await;
    let Err(AppendError::Unavailable { reason }) = publish(&store, 1).await else { panic!("it was taken") };
    assert!(reason.contains("9.0 MiB are free") && reason.contains("10.0 MiB"), "{reason}");
    // What is stored keeps its receipt; conflicts, reads and acks are as ever.
    let again = publish(&store, 0).await.unwrap();
    assert_eq!((again[0].position, again[0].duplicate), (receipt[0].position, true));
    let conflict = store.append(batch(vec![event("other", "k/0", Some(9))])).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    assert_eq!(store.read(all()).await.unwrap().events.len(), 1);
    store.save_checkpoint("g", b"state".to_vec()).await.unwrap();
    assert_eq!(store.barrier(Vec::new()).await.unwrap().0, 1);
    free.store(100 * MIB, Ordering::Relaxed);
    until_taken(&store, 1).await;
    assert_eq!(*store.health().borrow(), Health::Ok);
    // Opened on a full disk it refuses from its first moment on.
    store.close().await;
    drop(store);
    free.store(0, Ordering::Relaxed);
    let store = open(dir.path(), options());
    assert!(matches!(publish(&store, 2).await, Err(AppendError::Unavailable { .. })));
    assert_eq!(store.read(all()).await.unwrap().events.len(), 2);
    assert_eq!(store.checkpoints().await.unwrap().len(), 1);
}

/// Claiming a segment takes no time: somebody fast ran past the thread that looks.
#[tokio::test]
async fn whoever_needs_a_segment_before_anybody_looked_leaves_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(100 * MIB));
    let (begin, begun) = mpsc::channel::<()>();
    let begun = Mutex::new(begun);
    let (come, came) = mpsc::channel();
    let options = Options {
        reserve_bytes: 10 * MIB,
        first_segment_bytes: 64 << 10,
        free_bytes: Some({
            let free = free.clone();
            Arc::new(move || {
                if std::thread::current().name() == Some("preparer") {
                    let _ = come.send(());
                    let _ = begun.lock().unwrap().recv();
                }
                Ok(free.load(Ordering::Relaxed))
            })
        }),
        ..Options::default()
    };
    let store = open(dir.path(), options);
    // Dropped before the store, which waits for that thread.
    let begin = begin;
    publish(&store, 0).await.unwrap();
    // Where it still counted what a segment lacks, nobody else would.
    came.recv().unwrap();
    free.store(9 * MIB, Ordering::Relaxed);
    let (taken, reason) = fill(&store, 1, 2_000).await;
    assert!(reason.contains("nearly full") && reason.contains("9.0 MiB are free"), "{reason}");
    assert!(!dir.path().join("0000000001.segment").exists());
    assert_eq!(store.read(all()).await.unwrap().events.len() as u64, taken);
    free.store(100 * MIB, Ordering::Relaxed);
    drop(begin);
    until_taken(&store, taken).await;
}

#[tokio::test]
async fn an_index_that_cannot_be_written_ends_publishing_before_memory_grows_without_bound() {
    const RUN: u64 = 16;
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { run_events: RUN as usize, ..Options::default() };
    let store = open(dir.path(), options());
    let index = dir.path().join("index");
    fs::remove_dir_all(&index).unwrap();
    let (taken, reason) = fill(&store, 0, 100 * RUN).await;
    assert!(reason.contains("index"), "{reason}");
    // One run being written, the next, and what came until the first had failed.
    assert!(taken <= 6 * RUN, "{taken} events were taken");
    assert_eq!(store.read(all()).await.unwrap().events.len() as u64, taken);
    // The log does not need it: not even to be opened.
    store.close().await;
    drop(store);
    let store = open(dir.path(), options());
    assert_eq!(store.read(all()).await.unwrap().events.len() as u64, taken);
    fs::remove_dir_all(&index).unwrap();
    let (taken, _) = fill(&store, taken, 100 * RUN).await;
    fs::create_dir(&index).unwrap();
    until_taken(&store, taken).await;
    assert_eq!(store.read(all()).await.unwrap().events.len() as u64, taken + 1);
}

/// A small file system of memory, unmounted at the end.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(dir)),
            failed => {
                eprintln!("not run: a tmpfs cannot be mounted here ({failed:?})");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_real_disk_is_never_filled_to_its_end_and_what_was_acknowledged_stays() {
    let Some(disk) = Small::mount(24 * MIB) else { return };
    let data = disk.0.path().join("data");
    let options = || Options {
        reserve_bytes: 6 * MIB,
        first_segment_bytes: MIB,
        segment_bytes: 2 * MIB,
        run_events: 1_000,
        ..Options::default()
    };
    let store = open(&data, options());
    let large = "x".repeat(4_000);
    let publish_large = async |i: u64| {
        let mut event = event(&format!("e{i}"), &format!("k/{}", i % 7), None);
        event.data = Some(daybook_model::Data::json(&large).unwrap());
        store.append(batch(vec![event])).await
    };
    let mut taken = 0;
    let reason = loop {
        match publish_large(taken).await {
            Ok(_) => taken += 1,
            Err(AppendError::Unavailable { reason }) => break reason,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert!(reason.contains("nearly full"), "{reason}");
    assert!(taken * 4_000 > 8 * MIB, "only {taken} events were taken");
    let free = || daybook_log::free_bytes(disk.0.path()).unwrap();
    assert!(free() > 3 * MIB, "{} bytes are free", free());
    // Somebody else takes the rest: now the disk is really full.
    let filler = disk.0.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    assert!(free() < 4096);
    assert!(matches!(publish_large(taken).await, Err(AppendError::Unavailable { .. })));
    let count = async |store: &Arc<dyn EventStore>| store.read(all()).await.unwrap().events.len() as u64;
    assert_eq!(count(&store).await, taken);
    store.close().await;
    drop(store);
    let store = open(&data, options());
    assert_eq!(count(&store).await, taken);
    assert!(matches!(publish(&store, taken).await, Err(AppendError::Unavailable { .. })));
    fs::remove_file(&filler).unwrap();
    // There is room for an index and checkpoints again, and still none for a segment.
    assert!(matches!(publish(&store, taken).await, Err(AppendError::Unavailable { .. })));
    let size = format!("remount,size={}", 64 * MIB);
    assert!(Command::new("mount").args(["-o", &size]).arg(disk.0.path()).status().unwrap().success());
    until_taken(&store, taken).await;
    assert_eq!(count(&store).await, taken + 1);
    store.close().await;
}
