//! Random operations on the local store and the model must agree, also over reopening.

use std::cell::RefCell;
use std::sync::Arc;

use daybook_log::sim::SimDisk;
use daybook_log::suite::Suite;
use daybook_model::{Event, Filter, NewEvent, Position};
use daybook_store::local::{Disks, LocalStore, Options};
use daybook_store::memory::MemoryStore;
use daybook_store::{Batch, EventStore, Query};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::{all, batch, clock, event};

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u8, u8, Option<u8>, bool)>),
    Read { from: u8, until: u8, filter: u8, reverse: bool, limit: u8 },
    Find { id: u8, subject: u8, limit: u8 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let events = prop::collection::vec((0..40u8, 0..4u8, prop::option::of(0..6u8), any::<bool>()), 1..4);
    prop_oneof![
        8 => events.prop_map(Step::Append),
        4 => (any::<u8>(), any::<u8>(), 0..8u8, any::<bool>(), 1..20u8)
            .prop_map(|(from, until, filter, reverse, limit)| Step::Read { from, until, filter, reverse, limit }),
        3 => (0..45u8, 0..5u8, 1..5u8).prop_map(|(id, subject, limit)| Step::Find { id, subject, limit }),
        1 => Just(Step::Reopen),
    ]
}

fn to_batch(events: &[(u8, u8, Option<u8>, bool)]) -> Batch {
    let one = |(id, subject, sequence, caused): &(u8, u8, Option<u8>, bool)| NewEvent {
        causationid: caused.then(|| format!("e{}", id / 2)),
        ..event(&format!("e{id}"), &format!("k/{subject}"), sequence.map(u64::from))
    };
    batch(events.iter().map(one).collect())
}

/// By every attribute, exact and by prefix, alone and together.
fn filters() -> [Filter; 8] {
    let many = |texts: &[&str]| Some(texts.iter().map(|text| (*text).into()).collect());
    [
        Filter::default(),
        Filter::subject("k/1"),
        Filter { subjects: many(&["k/2", "k/0", "none"]), ..Filter::default() },
        Filter { subjects: many(&["k/*"]), ..Filter::default() },
        Filter { types: many(&["Happened"]), ..Filter::default() },
        Filter { types: many(&["Hap*", "Other"]), ..Filter::default() },
        Filter {
            correlationid: Some("fallback".into()),
            sessionid: Some("test/1/s".into()),
            ..Filter::default()
        },
        Filter { sessionid: Some("test/*".into()), subjects: many(&["k/3"]), ..Filter::default() },
    ]
}

/// The first `max_events`, however many pages they come in: a page may be empty.
async fn read(store: &dyn EventStore, mut query: Query) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    loop {
        let page = store.read(query.clone()).await.unwrap();
        query.max_events -= page.events.len();
        events.extend(page.events);
        let Some(next) = page.next.filter(|_| query.max_events > 0) else { return events };
        if query.reverse {
            query.until = Some(next);
        } else {
            query.from = next;
        }
    }
}

/// The same as JSON, behind something that was there before.
async fn read_written(store: &dyn EventStore, mut query: Query) -> String {
    let mut events = Vec::new();
    loop {
        let page = store.read_written(query.clone(), b"[".to_vec()).await.unwrap();
        let json = String::from_utf8(page.json).unwrap();
        query.max_events -= page.events;
        events.extend(json.strip_prefix('[').filter(|some| !some.is_empty()).map(str::to_owned));
        let Some(next) = page.next.filter(|_| query.max_events > 0) else { return events.join(",") };
        if query.reverse {
            query.until = Some(next);
        } else {
            query.from = next;
        }
    }
}

fn write(events: &[Arc<Event>]) -> String {
    let mut json = Vec::new();
    for (i, event) in events.iter().enumerate() {
        json.extend((i > 0).then_some(b','));
        event.write_json(&mut json);
    }
    String::from_utf8(json).unwrap()
}

#[test]
fn the_local_store_and_the_model_agree() {
    let phases = ["stored", "refused", "looked up", "read", "opened again"];
    let suite = Suite::begin("store against a naive model", &phases);
    let cases = suite.pick(40, 2_000);
    let lengths = suite.pick(1, 100) as usize..=suite.pick(60, 100) as usize;
    let seed = suite.seeds(1, 1).next().unwrap_or_default();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_le_bytes().repeat(4));
    let config =
        ProptestConfig { cases: cases as u32, source_file: Some(file!()), ..ProptestConfig::default() };
    let suite = RefCell::new(suite);
    let run = TestRunner::new_with_rng(config, rng)
        .run(&prop::collection::vec(step(), lengths), |steps| agree(steps, &suite));
    run.unwrap_or_else(|e| panic!("{e}"));
    suite.into_inner().end();
}

fn agree(steps: Vec<Step>, suite: &RefCell<Suite>) -> Result<(), TestCaseError> {
    suite.borrow_mut().case();
    let hit = |phase| suite.borrow_mut().hit(phase);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let [log, index, groups] = [(); 3].map(|()| Arc::new(SimDisk::default()));
        let options = || Options {
            clock: Arc::new(clock),
            tail_bytes: 2_000,
            first_segment_bytes: 2048,
            segment_bytes: 4096,
            run_events: 3,
            ..Options::default()
        };
        let disks = || Disks { log: log.clone(), index: index.clone(), groups: groups.clone() };
        let open = || LocalStore::open_on(dir.path(), disks(), options()).unwrap();
        let model = MemoryStore::new(clock);
        let mut local = open();
        for step in steps {
            match step {
                Step::Append(events) => {
                    let (a, b) =
                        (model.append(to_batch(&events)).await, local.append(to_batch(&events)).await);
                    // Which of several reasons is told first is not fixed; whether it is stored is.
                    prop_assert_eq!(a.as_ref().ok(), b.as_ref().ok(), "{:?} / {:?}", a, b);
                    hit(if a.is_ok() { "stored" } else { "refused" });
                }
                Step::Find { id, subject, limit } => {
                    hit("looked up");
                    let (id, subject) = (format!("e{id}"), format!("k/{subject}"));
                    prop_assert_eq!(
                        model.event_by_id(&id).await.unwrap(),
                        local.event_by_id(&id).await.unwrap()
                    );
                    prop_assert_eq!(
                        model.subject(&subject).await.unwrap(),
                        local.subject(&subject).await.unwrap()
                    );
                    let some = limit.into();
                    for after in [None, Some("k"), Some(subject.as_str())] {
                        let (a, b) = (
                            model.subjects("k/", after, some).await,
                            local.subjects("k/", after, some).await,
                        );
                        prop_assert_eq!(a.unwrap(), b.unwrap());
                    }
                }
                Step::Read { from, until, filter, reverse, limit } => {
                    hit("read");
                    let filter = filters()[usize::from(filter)].clone();
                    let until = Some(Position(u64::from(until)));
                    let from = Position(u64::from(from));
                    let query = Query {
                        from,
                        until,
                        filter,
                        reverse,
                        max_events: limit.into(),
                        max_bytes: usize::MAX,
                    };
                    let events = read(&model, query.clone()).await;
                    prop_assert_eq!(&events, &read(&local, query.clone()).await);
                    prop_assert_eq!(write(&events), read_written(&local, query).await);
                }
                Step::Reopen => {
                    hit("opened again");
                    local.close().await;
                    drop(local);
                    local = open();
                }
            }
        }
        let (a, b) = (model.read(all()).await.unwrap(), local.read(all()).await.unwrap());
        prop_assert_eq!(write(&a.events), read_written(&local, all()).await);
        prop_assert_eq!(a.events, b.events);
        Ok(())
    })
}
