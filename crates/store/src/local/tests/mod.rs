//! What two committers and the look-ups beside them must never mix up. The disk
//! is stopped where it matters, so that each case happens for certain.

mod beside;
pub mod fuzz;
mod held;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use daybook_model::{NewEvent, Sequence};
use tempfile::TempDir;

use super::*;
use held::{Call, HeldDisk, Hold};

struct Fixture {
    store: LocalStore,
    log: Hold,
    index: Hold,
    /// Asked once for every batch that gets a place.
    placed: Arc<AtomicI64>,
    dir: TempDir,
}

/// Four runs of the index, and the last two in memory.
const OLD: u64 = 66;

impl Fixture {
    /// A store whose keys `k/0` … and ids `old-0` … are on disk only, but for the last.
    async fn new() -> Self {
        loop {
            let fixture = Self::of_any_log().await;
            if fixture.tells_new_from_old() {
                return fixture;
            }
        }
    }

    /// The filters of the index take one name in some hundred for one that they
    /// hold, another in every log: that would be looked up where a test says that
    /// it is not.
    fn tells_new_from_old(&self) -> bool {
        let index = &self.store.inner.visible().index;
        let is_new = |id: &&str| index.is_new(index::Id::of(index.hasher(), id));
        let is_new_key = |key: &&str| index.lookup_head(key).is_err_and(|lookup| lookup.far.is_empty());
        ["first", "b", "b1", "c", "d"].iter().all(is_new) && ["new", "other"].iter().all(is_new_key)
    }

    async fn of_any_log() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let placed = Arc::new(AtomicI64::new(0));
        let counter = placed.clone();
        let options = Options {
            first_segment_bytes: 64 << 10,
            segment_bytes: 64 << 10,
            tail_bytes: 0,
            run_events: 16,
            clock: Arc::new(move || Timestamp(counter.fetch_add(1, Ordering::SeqCst))),
            ..Options::default()
        };
        let data = dir.path().join("data");
        let store = LocalStore::open(&data, options.clone()).unwrap();
        for i in 0..OLD {
            let event = NewEvent::new(format!("old-{i}"), "T").subject(format!("k/{i}"));
            store.append(batch("old", vec![event])).await.unwrap();
        }
        store.close().await;
        drop(store);
        // Opening writes all runs that are due at once.
        std::fs::remove_dir_all(data.join("index")).unwrap();
        let (log_disk, log) = HeldDisk::new(RealDisk::open(&data).unwrap());
        let (index_disk, index) = HeldDisk::new(RealDisk::open(&data.join("index")).unwrap());
        let groups = Arc::new(RealDisk::open(&data.join("groups")).unwrap());
        let disks = Disks { log: log_disk, index: index_disk, groups };
        let store = LocalStore::open_on(&data, disks, options).unwrap();
        placed.store(0, Ordering::SeqCst);
        Self { store, log, index, placed, dir }
    }

    /// Returns once `batches` of them have a place, durable or not.
    async fn placed(&self, batches: i64) {
        while self.placed.load(Ordering::SeqCst) < batches {
            tokio::task::yield_now().await;
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Returns once the runs that can become one are one.
    async fn merged(&self) {
        while self.store.inner.visible().index.size().1 > 1 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns once everything that was in memory is in a run. Nothing is looked up
    /// for that: no id before has a time.
    async fn moved_to_a_run(&self) {
        let next = self.store.inner.visible().index.end();
        let id = |i: u64| format!("0198c0de-0000-7000-8abc-{:012x}", next + i);
        let events = (0..16).map(|i| NewEvent::new(id(i), "T"));
        self.store.append(batch("filler", events.collect())).await.unwrap();
        while self.store.inner.visible().index.size().2 > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// An event that is being synced, and stays so: the sync is held.
    fn sync_held(&self, event: NewEvent) -> Answer<crate::Outcome> {
        self.log.hold(Call::Sync);
        let first = self.store.append(batch("first", vec![event]));
        self.log.reached(1);
        first
    }
}

/// Nothing may be held while the store's threads are waited for.
impl Drop for Fixture {
    fn drop(&mut self) {
        for hold in [&self.log, &self.index] {
            [Call::Read, Call::Write, Call::Sync, Call::Create]
                .into_iter()
                .for_each(|call| hold.release(call));
        }
    }
}

fn batch(session: &str, events: Vec<NewEvent>) -> Batch {
    Batch {
        events: events.into(),
        session: session.into(),
        principal: None,
        default_source: "/test".into(),
        fallback_correlation: "fallback".into(),
        fence: None,
    }
}

fn event(id: &str, subject: &str, sequence: u64) -> NewEvent {
    NewEvent::new(id, "T").subject(subject).sequence(Sequence(sequence))
}

fn position(answer: &crate::Outcome) -> u64 {
    answer.as_ref().unwrap()[0].position.0
}

#[tokio::test]
async fn of_two_publishers_of_one_cold_key_one_gets_the_value() {
    let f = Fixture::new().await;
    f.index.hold(Call::Read);
    let one = f.store.append(batch("a", vec![event("a", "k/0", 1)]));
    let other = f.store.append(batch("b", vec![event("b", "k/0", 1)]));
    f.index.reached(2);
    f.index.release(Call::Read);
    let (one, other) = (one.await, other.await);
    let conflict = Err(AppendError::Conflict { subject: "k/0".into() });
    assert!((one.is_ok() && other == conflict) || (other.is_ok() && one == conflict), "{one:?} {other:?}");
    // Whoever comes next goes on from there, without a look-up.
    f.index.hold(Call::Read);
    assert!(f.store.append(batch("c", vec![event("c", "k/0", 2)])).await.is_ok());
}

#[tokio::test]
async fn an_index_that_is_held_back_takes_its_bytes_and_no_more_until_it_is_written() {
    const LIMIT: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (index_disk, index) = HeldDisk::new(RealDisk::open(&data.join("index")).unwrap());
    let log = Arc::new(RealDisk::open(&data).unwrap());
    let groups = Arc::new(RealDisk::open(&data.join("groups")).unwrap());
    let options = Options { index_bytes: LIMIT, ..Options::default() };
    let store = LocalStore::open_on(&data, Disks { log, index: index_disk, groups }, options).unwrap();
    index.hold(Call::Create);
    // Keys as long as they may be: they are what takes most.
    let long = "x".repeat(240);
    let append = |i: u64| {
        let events = (0..20).map(|at| event(&format!("e{i}-{at}"), &format!("{i}-{at}/{long}"), 0));
        store.append(batch("a", events.collect()))
    };
    let mut batches = 0;
    while let Ok(stored) = append(batches).await {
        assert_eq!(stored.len(), 20);
        batches += 1;
    }
    assert_eq!(append(batches).await, Err(AppendError::Overloaded));
    let taken = store.inner.visible().index.memory_bytes();
    index.release(Call::Create);
    assert!((LIMIT..LIMIT + LIMIT / 8).contains(&taken), "{taken} bytes after {batches} batches");
    while append(batches).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.inner.visible().index.end(), 20 * (batches + 1));
}

#[tokio::test]
async fn an_id_repeated_while_it_is_looked_up_is_stored_once() {
    let f = Fixture::new().await;
    f.index.hold(Call::Read);
    let one = f.store.append(batch("a", vec![event("same", "k/1", 1)]));
    let other = f.store.append(batch("b", vec![event("same", "k/1", 1)]));
    f.index.reached(2);
    f.index.release(Call::Read);
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    assert_eq!(one[0].position, other[0].position);
    assert_ne!(one[0].duplicate, other[0].duplicate);
}

#[tokio::test]
async fn an_old_id_is_known_and_an_old_cause_hands_its_correlation_on() {
    let f = Fixture::new().await;
    let again = NewEvent::new("old-3", "T").subject("k/3");
    let receipt = f.store.append(batch("b", vec![again])).await.unwrap();
    assert!(receipt[0].duplicate);
    assert_eq!(receipt[0].position, Position(3));
    let caused = NewEvent { causationid: Some("old-3".into()), ..NewEvent::new("caused", "T") };
    let mut later = batch("b", vec![caused]);
    later.fallback_correlation = "another".into();
    f.store.append(later).await.unwrap();
    let caused = f.store.event_by_id("caused").await.unwrap().unwrap();
    assert_eq!(caused.correlationid, "fallback");
}

/// What is found out once must not be believed of what has come since.
#[tokio::test]
async fn an_id_that_was_stored_and_left_memory_while_it_was_looked_up_is_known() {
    const ID: &str = "0198c0de-0000-7000-8abd-000000000000";
    let f = Fixture::new().await;
    f.merged().await;
    f.index.hold_opened(Call::Read);
    // Its cause is on disk, its id nowhere yet.
    let caused = NewEvent { causationid: Some("old-3".into()), ..NewEvent::new(ID, "T") };
    let slow = f.store.append(batch("a", vec![caused]));
    f.index.reached(1);
    let quick = f.store.append(batch("b", vec![NewEvent::new(ID, "T")])).await;
    assert_eq!(position(&quick), OLD);
    f.moved_to_a_run().await;
    f.index.release(Call::Read);
    assert_eq!(slow.await, Err(AppendError::IdConflict { id: ID.into() }));
}

/// Whoever had looked at the runs before found those events nowhere.
#[tokio::test]
async fn a_read_finds_what_has_moved_from_memory_to_a_run_since_it_began() {
    let f = Fixture::new().await;
    f.merged().await;
    f.index.hold_opened(Call::Read);
    let read = f.store.read(Query {
        from: Position(0),
        until: None,
        filter: daybook_model::Filter::default(),
        reverse: false,
        max_events: 1_000,
        max_bytes: usize::MAX,
    });
    f.index.reached(1);
    f.moved_to_a_run().await;
    f.index.release(Call::Read);
    let page = read.await.unwrap();
    assert!(page.events.iter().map(|event| event.position.0).eq(0..OLD));
}

/// It was once merged in vain every second, and whenever a run was written.
#[tokio::test]
async fn a_damaged_run_is_merged_in_vain_once() {
    let f = Fixture::new().await;
    f.merged().await;
    f.moved_to_a_run().await;
    let index = f.data().join("index");
    let names = || -> Vec<_> {
        let names = std::fs::read_dir(&index).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let damaged = names().into_iter().max().unwrap();
    let file = std::fs::File::options().write(true).open(index.join(&damaged)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"damaged", 70).unwrap();
    let made = f.index.count(Call::Create);
    // The third of them would be merged with it.
    for _ in 0..7 {
        f.moved_to_a_run().await;
    }
    assert_eq!(f.index.count(Call::Create), made + 7 + 1);
    let names = names();
    assert!(names.contains(&damaged) && names.iter().all(|name| name.ends_with(".run")), "{names:?}");
}

/// A lent thread does nothing else for the length of a sync: the store has to notice
/// how long that is, whoever waited for it.
#[tokio::test]
async fn no_thread_is_borrowed_while_syncs_are_slow() {
    #[derive(Default)]
    struct Calls(AtomicI64);

    impl Lender for Calls {
        fn call(&self, _: crate::Call) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }

        fn miss(&self) {}
    }

    // Many times as long as a thread is borrowed for, and so often that it is no accident.
    const SLOW: Duration = Duration::from_millis(5);
    const TIMES: u64 = 20;
    for slow in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let log = daybook_log::sim::SimDisk::default();
        let disk = || Arc::new(daybook_log::sim::SimDisk::default());
        let disks = Disks { log: Arc::new(log.clone()), index: disk(), groups: disk() };
        let store = LocalStore::open_on(dir.path(), disks, Options::default()).unwrap();
        let append = |id: &str| store.append(batch("a", vec![NewEvent::new(id, "T")]));
        if slow {
            log.set_sync_time(SLOW);
            for i in 0..TIMES {
                append(&format!("alone-{i}")).await.unwrap();
            }
            log.set_sync_time(Duration::ZERO);
        }
        let calls = Arc::new(Calls::default());
        assert!(store.borrow_threads(calls.clone()).is_some());
        append("lent").await.unwrap();
        assert_eq!(calls.0.load(Ordering::SeqCst), i64::from(!slow), "slow: {slow}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_look_up_keeps_its_session_in_order_and_holds_up_nobody_else() {
    let f = Fixture::new().await;
    f.index.hold(Call::Read);
    let cold = f.store.append(batch("a", vec![event("a1", "k/2", 1)]));
    let behind = f.store.append(batch("a", vec![event("a2", "new", 0)]));
    f.index.reached(1);
    let other = f.store.append(batch("b", vec![event("b1", "other", 0)])).await;
    assert_eq!(position(&other), OLD);
    f.index.release(Call::Read);
    assert_eq!((position(&cold.await), position(&behind.await)), (OLD + 1, OLD + 2));
}

#[tokio::test]
async fn a_barrier_comes_after_what_is_still_looked_up_and_before_what_follows() {
    let f = Fixture::new().await;
    let (fence, unrelated) = (Fence::new(), Fence::new());
    let under = |events| Batch { fence: Some(fence.clone()), ..batch("a", events) };
    f.index.hold(Call::Read);
    let before = f.store.append(under(vec![event("a1", "k/2", 1)]));
    let barrier = f.store.barrier(vec![fence.clone(), unrelated.clone()]);
    let after = f.store.append(under(vec![event("a2", "new", 0)]));
    f.index.reached(1);
    let other = f.store.append(Batch { fence: Some(unrelated), ..batch("b", vec![event("b1", "o", 0)]) });
    assert_eq!(other.await, Err(AppendError::Fenced), "nobody held carries this fence");
    f.index.release(Call::Read);
    assert_eq!(position(&before.await), OLD);
    assert_eq!(barrier.await, Ok(Position(OLD + 1)));
    assert_eq!(after.await, Err(AppendError::Fenced));
}

#[tokio::test]
async fn a_closing_store_finishes_what_is_still_looked_up() {
    let f = Fixture::new().await;
    f.index.hold(Call::Read);
    let cold = f.store.append(batch("a", vec![event("a1", "k/2", 1)]));
    f.index.reached(1);
    let closed = f.store.close();
    f.index.release(Call::Read);
    assert_eq!(position(&cold.await), OLD);
    closed.await;
}

#[tokio::test]
async fn the_next_batch_is_made_while_one_syncs_and_written_after() {
    let f = Fixture::new().await;
    let first = f.sync_held(event("first", "new", 0));
    let writes = f.log.count(Call::Write);
    let rest: Vec<_> =
        (0..40).map(|i| f.store.append(batch("rest", vec![event(&format!("r{i}"), "new", i + 1)]))).collect();
    // Some have their place, though what they follow is not durable.
    f.placed(17).await;
    assert_eq!(f.log.count(Call::Write), writes, "nothing is written before the sync has returned");
    let conflict = f.store.append(batch("late", vec![event("x", "new", 1)]));
    f.log.release(Call::Sync);
    assert_eq!(position(&first.await), OLD);
    for (i, answer) in rest.into_iter().enumerate() {
        assert_eq!(position(&answer.await), OLD + 1 + i as u64);
    }
    assert_eq!(conflict.await, Err(AppendError::Conflict { subject: "new".into() }));
}

#[tokio::test]
async fn what_waited_for_a_sync_that_fails_is_unknown_or_was_never_written() {
    let f = Fixture::new().await;
    let first = f.sync_held(event("first", "new", 0));
    let conflict = f.store.append(batch("b", vec![event("b", "new", 0)]));
    let known = f.store.append(batch("c", vec![event("first", "new", 0)]));
    let certain = f.store.append(batch("d", vec![event("d", "k/65", 0)]));
    let rest: Vec<_> =
        (0..30).map(|i| f.store.append(batch("rest", vec![event(&format!("r{i}"), "new", i + 1)]))).collect();
    f.placed(14).await;
    f.log.fail(Call::Sync);
    assert!(matches!(first.await, Err(AppendError::UnknownOutcome { .. })));
    assert!(matches!(conflict.await, Err(AppendError::UnknownOutcome { .. })));
    assert!(matches!(known.await, Err(AppendError::UnknownOutcome { .. })));
    assert_eq!(certain.await, Err(AppendError::Conflict { subject: "k/65".into() }));
    for answer in rest {
        let answer = answer.await;
        assert!(matches!(answer, Err(AppendError::Unavailable { .. })), "{answer:?}");
    }
    let late = f.store.append(batch("late", vec![event("late", "late", 0)])).await;
    assert!(matches!(late, Err(AppendError::Unavailable { .. })), "{late:?}");
}

#[tokio::test]
async fn what_was_made_on_top_of_a_refused_batch_is_refused_and_leaves_no_gap() {
    let f = Fixture::new().await;
    // A batch that needs a new segment, which cannot be made.
    let large = "x".repeat(100 << 10);
    let large = event("large", "new", 0).data(daybook_model::Data::json(&large).unwrap());
    f.log.hold(Call::Create);
    let first = f.store.append(batch("first", vec![large.clone()]));
    f.log.reached(1);
    let rest: Vec<_> =
        (0..30).map(|i| f.store.append(batch("rest", vec![event(&format!("r{i}"), "new", i + 1)]))).collect();
    f.placed(17).await;
    f.log.fail(Call::Create);
    assert!(matches!(first.await, Err(AppendError::Unavailable { .. })));
    for (i, answer) in rest.into_iter().enumerate() {
        match answer.await {
            Err(AppendError::Unavailable { .. }) => {}
            // Not made yet when the one before was refused: the key is as it was.
            Err(AppendError::Conflict { .. }) if i >= 16 => {}
            other => panic!("{other:?}"),
        }
    }
    f.log.release(Call::Create);
    let stored = loop {
        match f.store.append(batch("first", vec![large.clone()])).await {
            Err(AppendError::Unavailable { .. }) => tokio::task::yield_now().await,
            other => break other,
        }
    };
    assert_eq!(position(&stored), OLD, "the refused took neither position nor value");
    let next = f.store.append(batch("rest", vec![event("r0", "new", 1)])).await;
    assert_eq!(position(&next), OLD + 1);
}
