//! The store on disks that crash and fail at any call, under several writers
//! and a reader: what was acknowledged or read is there afterwards, what was
//! refused is not, and the retry of what nobody knows tells.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daybook_log::sim::{Random, SimDisk};
use daybook_log::suite::Suite;
use daybook_model::{Data, Event, JsonText, NewEvent, Position, Timestamp};
use daybook_store::local::{Disks, LocalStore, OpenError, Options};
use daybook_store::{AppendError, EventStore, Fence, Stored};

use crate::lent::lend_a_thread;
use crate::{all, batch, event};

const WRITERS: u64 = 4;
const APPENDS: u64 = 7;
const KEYS: usize = 3;

/// After that somebody sends his batch a second time.
const IMPATIENCE: Duration = Duration::from_millis(1);

/// What everybody was told.
#[derive(Default)]
struct Told {
    stored: Vec<Stored>,
    /// Ids that must not be there.
    refused: Vec<String>,
    unknown: Vec<Vec<NewEvent>>,
    /// Position and id of everything that was read.
    read: BTreeMap<u64, String>,
}

#[derive(Clone, Default)]
struct Machine {
    log: SimDisk,
    index: SimDisk,
    groups: SimDisk,
}

impl Machine {
    fn after_power_loss(&self, seed: u64) -> Self {
        Self {
            log: self.log.after_power_loss(seed),
            index: self.index.after_power_loss(seed),
            groups: self.groups.after_power_loss(seed),
        }
    }

    fn after_kill(&self) -> Self {
        Self { log: self.log.after_kill(), index: self.index.after_kill(), groups: self.groups.after_kill() }
    }

    /// `clock` is what the wall clock begins with: it may be earlier than before.
    fn open(&self, dir: &Path, clock: i64) -> Result<Arc<dyn EventStore>, OpenError> {
        let now = AtomicI64::new(clock);
        let options = Options {
            first_segment_bytes: 4 << 10,
            segment_bytes: 8 << 10,
            tail_bytes: 500,
            run_events: 8,
            clock: Arc::new(move || Timestamp(now.fetch_add(7, Ordering::Relaxed))),
            ..Options::default()
        };
        let disk = |disk: &SimDisk| Arc::new(disk.clone());
        let disks = Disks { log: disk(&self.log), index: disk(&self.index), groups: disk(&self.groups) };
        let store = LocalStore::open_on(dir, disks, options)?;
        // Half of the processes have threads to lend, as a server has.
        if clock % 2 == 1 {
            lend_a_thread(&store);
        }
        Ok(Arc::new(store))
    }
}

/// What writer `writer` publishes as its `i`th.
fn events(seed: u64, writer: u64, i: u64) -> Vec<NewEvent> {
    let mut random = Random::new(seed ^ writer << 32 ^ i << 40);
    (0..1 + random.below(3))
        .map(|j| {
            // Some expect a value, which is right only by luck.
            let sequence = (random.below(3) == 0).then(|| random.below(4) as u64);
            event(&format!("{writer}/{i}/{j}"), &format!("k{}", random.below(KEYS)), sequence)
        })
        .collect()
}

/// What is known of a batch that was sent twice: stored if any answer says so,
/// refused if both do.
fn either(
    first: Result<Vec<Stored>, AppendError>,
    second: Result<Vec<Stored>, AppendError>,
) -> Result<Vec<Stored>, AppendError> {
    match (first, second) {
        (Ok(first), Ok(second)) => {
            let places = |all: &[Stored]| all.iter().map(|stored| stored.position).collect::<Vec<_>>();
            assert_eq!(places(&first), places(&second), "one id has two places");
            Ok(first)
        }
        (Ok(stored), Err(_)) | (Err(_), Ok(stored)) => Ok(stored),
        (Err(unknown @ AppendError::UnknownOutcome { .. }), Err(_)) => Err(unknown),
        (Err(_), Err(second)) => Err(second),
    }
}

/// Writers and a reader, until the writers are through.
async fn run(store: &Arc<dyn EventStore>, seed: u64) -> Told {
    let told = Arc::new(Mutex::new(Told::default()));
    let failed = Arc::new(AtomicBool::new(false));
    let fence = Fence::new();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, told, failed, fence) = (store.clone(), told.clone(), failed.clone(), fence.clone());
            tokio::spawn(async move {
                for i in 0..APPENDS {
                    let events = events(seed, writer, i);
                    let mut batch = batch(events.clone());
                    // One writer is fenced after a while.
                    let fenced = writer == 0 && i >= APPENDS - 2;
                    if writer == 0 {
                        batch.fence = Some(fence.clone());
                        if fenced {
                            let _ = store.barrier(vec![fence.clone()]).await;
                        }
                    }
                    let late = failed.load(Ordering::SeqCst);
                    // Some are sent twice at once, by somebody impatient.
                    let again = (i % 3 == 1).then(|| batch.clone());
                    let mut answer = store.append(batch);
                    let answer = match again {
                        None => answer.await,
                        Some(again) => {
                            let early = tokio::time::timeout(IMPATIENCE, &mut answer).await;
                            let second = store.append(again);
                            let first = match early {
                                Ok(first) => first,
                                Err(_) => answer.await,
                            };
                            either(first, second.await)
                        }
                    };
                    let mut told = told.lock().unwrap();
                    match answer {
                        Ok(stored) => {
                            assert!(!late, "acknowledged after the error");
                            assert!(!fenced, "accepted from behind a fence");
                            assert_eq!(stored.len(), events.len(), "not every event has a receipt");
                            told.stored.extend(stored);
                        }
                        Err(AppendError::UnknownOutcome { .. }) => {
                            failed.store(true, Ordering::SeqCst);
                            told.unknown.push(events);
                        }
                        Err(_) => told.refused.extend(events.into_iter().map(|event| event.id)),
                    }
                }
            })
        })
        .collect();
    let reader = {
        let (store, told) = (store.clone(), told.clone());
        tokio::spawn(async move {
            let mut head = store.head();
            let mut query = all();
            while head.changed().await.is_ok() {
                let Ok(page) = store.read(query.clone()).await else { break };
                let mut told = told.lock().unwrap();
                for event in page.events {
                    query.from = Position(event.position.0 + 1);
                    told.read.insert(event.position.0, event.id.clone());
                }
            }
        })
    };
    for writer in writers {
        writer.await.unwrap();
    }
    reader.abort();
    let _ = reader.await;
    std::mem::take(&mut *told.lock().unwrap())
}

async fn everything(store: &Arc<dyn EventStore>) -> Vec<Arc<Event>> {
    let (mut events, mut query) = (Vec::new(), all());
    loop {
        let page = store.read(query.clone()).await.unwrap();
        events.extend(page.events);
        let Some(next) = page.next else { return events };
        query.from = next;
    }
}

/// What holds of any log.
fn check_log(events: &[Arc<Event>], context: &str) {
    let mut next: HashMap<&str, u64> = HashMap::new();
    let mut ids = HashSet::new();
    let mut last = i64::MIN;
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event.position.0, i as u64, "{context}: positions have a gap");
        assert!(ids.insert(event.id.as_str()), "{context}: `{}` is there twice", event.id);
        assert!(event.recordedtime.0 >= last, "{context}: recordedtime went backwards at {i}");
        last = event.recordedtime.0;
        let expected = next.entry(event.subject.as_deref().unwrap()).or_default();
        assert_eq!(event.sequence.unwrap().0, *expected, "{context}: sequence of position {i}");
        *expected += 1;
        if let Some((first, size)) = event.batch {
            let whole = events.get(first.0 as usize..first.0 as usize + size as usize);
            let whole = whole.is_some_and(|all| all.iter().all(|one| one.batch == event.batch));
            assert!(whole, "{context}: half a batch at {i}");
        }
    }
}

async fn check(store: &Arc<dyn EventStore>, told: &Told, context: &str) -> Vec<Arc<Event>> {
    let events = everything(store).await;
    check_log(&events, context);
    for stored in &told.stored {
        let found = events.get(stored.position.0 as usize);
        let found = found.unwrap_or_else(|| panic!("{context}: acknowledged `{}` is lost", stored.id));
        assert_eq!(
            (&found.id, found.sequence, found.recordedtime),
            (&stored.id, stored.sequence, stored.recordedtime),
            "{context}"
        );
        let by_id = store.event_by_id(&stored.id).await.unwrap().map(|event| event.position);
        assert_eq!(by_id, Some(stored.position), "{context}: found by id");
    }
    for (position, id) in &told.read {
        let found = events.get(*position as usize).map(|event| &event.id);
        assert_eq!(found, Some(id), "{context}: what was read at {position} is not there");
    }
    let ids: HashSet<_> = events.iter().map(|event| event.id.as_str()).collect();
    for id in &told.refused {
        assert!(!ids.contains(id.as_str()), "{context}: `{id}` was refused and is stored");
    }
    events
}

/// Everybody asks again, with the same ids; keys go on where they were.
async fn go_on(store: &Arc<dyn EventStore>, told: &mut Told, seed: u64, context: &str) {
    let known: HashMap<_, _> =
        told.stored.iter().map(|stored| (stored.id.clone(), stored.position)).collect();
    for (writer, i) in (0..WRITERS).flat_map(|writer| (0..APPENDS).map(move |i| (writer, i))) {
        let again = events(seed, writer, i);
        let Some(position) = known.get(&again[0].id) else { continue };
        let stored = store.append(batch(again)).await.unwrap_or_else(|e| panic!("{context}: retry: {e}"));
        assert!(stored[0].duplicate && stored[0].position == *position, "{context}: retry of what is stored");
    }
    for events in std::mem::take(&mut told.unknown) {
        match store.append(batch(events.clone())).await {
            Ok(stored) => told.stored.extend(stored),
            Err(AppendError::Conflict { .. }) => told.refused.extend(events.into_iter().map(|e| e.id)),
            Err(other) => panic!("{context}: retry of what nobody knows: {other}"),
        }
    }
    for key in 0..KEYS {
        let subject = format!("k{key}");
        let next = store.subject(&subject).await.unwrap().map_or(0, |info| info.events);
        let stale = event(&format!("stale/{key}"), &subject, Some(next.saturating_sub(1)));
        if next > 0 {
            let refused = store.append(batch(vec![stale])).await;
            assert!(matches!(refused, Err(AppendError::Conflict { .. })), "{context}: {refused:?}");
        }
        let fresh = event(&format!("fresh/{key}"), &subject, Some(next));
        told.stored
            .extend(store.append(batch(vec![fresh])).await.unwrap_or_else(|e| panic!("{context}: {e}")));
    }
}

#[test]
fn whatever_the_disk_does_the_store_keeps_its_word() {
    let phases = [
        "power lost",
        "killed",
        "EIO",
        "ENOSPC",
        "while opening",
        "again while opening",
        "in the middle",
        "acknowledged before",
        "unknown outcome",
        "refused",
        "read before",
        "survived without a receipt",
    ];
    let mut suite = Suite::begin("store under crashes and errors", &phases);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for seed in suite.seeds(150, 3_000) {
        runtime.block_on(one(&mut suite, seed));
    }
    suite.end();
}

async fn one(suite: &mut Suite, seed: u64) {
    suite.case();
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    if seed.is_multiple_of(8) {
        // The second copy comes while the first is being written.
        machine.log.set_sync_time(3 * IMPATIENCE);
    }
    let call = 1 + random.below(60) as u64;
    let fault = random.below(4);
    match fault {
        0 | 1 => machine.log.crash_at(call),
        2 => machine.log.fail_at(call, ErrorKind::Other),
        _ => machine.log.fail_at(call, ErrorKind::StorageFull),
    }
    let mut told = match machine.open(dir.path(), 1_000_000 + (seed % 2) as i64) {
        Ok(store) => {
            let told = run(&store, seed).await;
            store.close().await;
            told
        }
        Err(_) => {
            suite.hit("while opening");
            Told::default()
        }
    };
    if !told.stored.is_empty() && machine.log.failed().is_some() {
        suite.hit("in the middle");
    }
    let (after, what) = match fault {
        0 => (machine.after_kill(), "killed"),
        1 => (machine.after_power_loss(seed), "power lost"),
        2 => (machine.after_power_loss(seed), "EIO"),
        _ => (machine.after_kill(), "ENOSPC"),
    };
    let context = format!("seed {seed}: {what} at call {call} ({:?})", machine.log.failed());
    suite.hit(what);
    for (hit, phase) in [
        (!told.stored.is_empty(), "acknowledged before"),
        (!told.unknown.is_empty(), "unknown outcome"),
        (!told.refused.is_empty(), "refused"),
        (!told.read.is_empty(), "read before"),
    ] {
        if hit {
            suite.hit(phase);
        }
    }
    // Half of the time the machine goes down again while the log is being opened.
    let after = if seed % 4 < 2 {
        after.log.crash_at(1 + random.below(50) as u64);
        if after.open(dir.path(), 700).is_err() {
            suite.hit("again while opening");
        }
        after.after_power_loss(seed ^ 1 << 59)
    } else {
        after
    };
    // The clock of the machine that came back is slow.
    let store = after.open(dir.path(), 500).unwrap_or_else(|e| panic!("{context}: {e}"));
    let events = check(&store, &told, &context).await;
    if events.len() > told.stored.len() {
        suite.hit("survived without a receipt");
    }
    go_on(&store, &mut told, seed, &context).await;
    check(&store, &told, &context).await;
    store.close().await;
    drop(store);
    let store = after.after_power_loss(seed ^ 1 << 60).open(dir.path(), 10);
    let store = store.unwrap_or_else(|e| panic!("{context}, went on, power lost: {e}"));
    check(&store, &told, &format!("{context}, went on, power lost")).await;
    store.close().await;
}

/// Larger than a segment.
fn large(id: &str, subject: &str) -> NewEvent {
    let text = format!("\"{}\"", "x".repeat(16 << 10));
    let data = Data::Json(JsonText::from_string(text).unwrap());
    NewEvent { data: Some(data), ..event(id, subject, None) }
}

/// No space for the next segment: what was refused leaves no trace, and keys go
/// on without a gap when there is space again.
#[tokio::test]
async fn a_full_disk_refuses_and_takes_more_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let store = machine.open(dir.path(), 0).unwrap();
    let mut told = Told::default();
    for round in 0..3 {
        machine.log.set_full(true);
        // It needs a segment that nobody has made ahead: placed, and refused by the disk.
        let large = large(&format!("{round}/large"), "k");
        let answer = store.append(batch(vec![large.clone()])).await;
        assert!(matches!(answer, Err(AppendError::Unavailable { .. })), "{answer:?}");
        let mut refused = 0;
        for i in 0..500 {
            // Several at once: some are checked behind one that is then refused.
            let ids: Vec<_> = (0..4).map(|j| format!("{round}/{i}/{j}")).collect();
            let answers: Vec<_> =
                ids.iter().map(|id| store.append(batch(vec![event(id, "k", None)]))).collect();
            for (id, answer) in ids.into_iter().zip(answers) {
                match answer.await {
                    Ok(stored) => told.stored.extend(stored),
                    Err(AppendError::Unavailable { .. }) => {
                        told.refused.push(id);
                        refused += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            if refused > 20 {
                break;
            }
        }
        assert!(refused > 20, "the disk was never full");
        machine.log.set_full(false);
        let resumed = async {
            loop {
                let id = format!("{round}/after/{}", told.refused.len());
                match store.append(batch(vec![event(&id, "k", None)])).await {
                    Ok(stored) => return told.stored.extend(stored),
                    Err(_) => told.refused.push(id),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), resumed).await.expect("publishing never resumed");
        let stored = store.append(batch(vec![large])).await.unwrap();
        assert!(!stored[0].duplicate, "what was refused is known");
        told.stored.extend(stored);
    }
    check(&store, &told, "full and not full").await;
    store.close().await;
    drop(store);
    let store = machine.after_power_loss(1).open(dir.path(), 0).unwrap();
    check(&store, &told, "full and not full, power lost").await;
}
