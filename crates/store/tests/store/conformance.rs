//! What every store keeps. Each test runs against all of them.

use std::sync::Arc;

use daybook_model::wire::{self, ClientMessage};
use daybook_model::{Event, Filter, NewEvent, Position, Timestamp};
use daybook_store::local::{LocalStore, Options};
use daybook_store::memory::MemoryStore;
use daybook_store::{AppendError, Batch, EventStore, Fence, Query};

use crate::lent::lend_a_thread;
use crate::{all, batch, clock, event, positions};

/// Every kind of store, with what keeps its files alive.
fn stores() -> Vec<(Arc<dyn EventStore>, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { clock: Arc::new(clock), ..Options::default() };
    let local = LocalStore::open(&dir.path().join("data"), options).unwrap();
    // The same with nothing in memory that could be on disk.
    let other = tempfile::tempdir().unwrap();
    let options = Options {
        clock: Arc::new(clock),
        tail_bytes: 0,
        run_events: 2,
        first_segment_bytes: 1024,
        segment_bytes: 2048,
        ..Options::default()
    };
    let on_disk = LocalStore::open(&other.path().join("data"), options).unwrap();
    // The same with a thread of somebody else's that writes.
    let third = tempfile::tempdir().unwrap();
    let options = Options { clock: Arc::new(clock), ..Options::default() };
    let helped = LocalStore::open(&third.path().join("data"), options).unwrap();
    lend_a_thread(&helped);
    vec![
        (Arc::new(MemoryStore::new(clock)), None),
        (Arc::new(local), Some(dir)),
        (Arc::new(on_disk), Some(other)),
        (Arc::new(helped), Some(third)),
    ]
}

#[tokio::test]
async fn positions_and_sequences_have_no_gaps() {
    for (store, _dir) in stores() {
        let first =
            store.append(batch(vec![event("a", "k", Some(0)), event("b", "k", Some(1))])).await.unwrap();
        let second =
            store.append(batch(vec![event("c", "k", None), event("d", "l", Some(0))])).await.unwrap();
        let numbers: Vec<_> =
            first.iter().chain(&second).map(|s| (s.position.0, s.sequence.unwrap().0)).collect();
        assert_eq!(numbers, [(0, 0), (1, 1), (2, 2), (3, 0)]);
        assert_eq!(*store.head().borrow(), Position(4));
    }
}

#[tokio::test]
async fn a_stale_value_stores_nothing_of_the_batch() {
    for (store, _dir) in stores() {
        store.append(batch(vec![event("a", "k", Some(0))])).await.unwrap();
        let refused = store.append(batch(vec![event("b", "other", Some(0)), event("c", "k", Some(0))])).await;
        assert_eq!(refused, Err(AppendError::Conflict { subject: "k".into() }));
        assert_eq!(positions(&store, all()).await, [0]);
        assert_eq!(store.subject("other").await.unwrap(), None);
    }
}

#[tokio::test]
async fn the_same_id_gets_the_old_receipt_whatever_its_sequence() {
    for (store, _dir) in stores() {
        let first = store.append(batch(vec![event("a", "k", Some(0))])).await.unwrap();
        let fence = Fence::new();
        fence.raise();
        let mut again = batch(vec![event("a", "k", Some(7))]);
        again.fence = Some(fence);
        let again = store.append(again).await.unwrap();
        assert!(again[0].duplicate && !first[0].duplicate);
        assert_eq!(again[0].position, first[0].position);
        let other = NewEvent { kind: "Other".into(), ..event("a", "k", None) };
        assert_eq!(store.append(batch(vec![other])).await, Err(AppendError::IdConflict { id: "a".into() }));
        let named = NewEvent { source: Some("/test".into()), ..event("a", "k", None) };
        assert_eq!(store.append(batch(vec![named])).await, Err(AppendError::IdConflict { id: "a".into() }));
    }
}

/// The same events as they lie in the frame of their publish.
fn framed(events: Vec<NewEvent>) -> Batch {
    let mut frame = Vec::new();
    let publish = wire::Publish { id: 1, events: events.into(), delivery: None };
    wire::write_frame::<ClientMessage>(&[publish.into()], &mut frame);
    let mut read = None;
    wire::messages(str::from_utf8(&frame).unwrap(), |message| read = message.ok());
    let Some(ClientMessage::Publish(publish)) = read else { panic!("no publish") };
    Batch { events: publish.events, ..batch(Vec::new()) }
}

#[tokio::test]
async fn events_in_their_frame_are_stored_as_owned_ones() {
    let full = NewEvent {
        source: Some("/named".into()),
        correlationid: Some("c".into()),
        causationid: Some("a".into()),
        time: Some("2026-11-24T09:30:00Z".into()),
        datacontenttype: Some("application/json".into()),
        dataschema: Some("urn:x".into()),
        traceparent: Some("00-1".into()),
        ..event("b", "läufer", Some(0))
    };
    let events = vec![event("a", "k", Some(0)), full, NewEvent::new("c", "Bare"), event("d", "k", Some(1))];
    for ((store, _dir), (other, _other_dir)) in stores().into_iter().zip(stores()) {
        let receipt = store.append(framed(events.clone())).await.unwrap();
        assert_eq!(receipt, other.append(batch(events.clone())).await.unwrap());
        let (read, expected) = (store.read(all()).await.unwrap(), other.read(all()).await.unwrap());
        assert_eq!(read.events, expected.events);
        // Whoever sends them again, and however: they are known.
        for again in [batch(events.clone()), framed(events.clone())] {
            assert!(store.append(again).await.unwrap().iter().all(|stored| stored.duplicate));
        }
        let stale = framed(vec![event("x", "k", Some(1))]);
        assert_eq!(store.append(stale).await, Err(AppendError::Conflict { subject: "k".into() }));
        let changed = NewEvent { kind: "Other".into(), ..events[3].clone() };
        assert_eq!(
            store.append(framed(vec![changed])).await,
            Err(AppendError::IdConflict { id: "d".into() })
        );
    }
}

#[tokio::test]
async fn a_batch_of_which_some_ids_are_known_is_refused() {
    for (store, _dir) in stores() {
        store.append(batch(vec![event("a", "k", None)])).await.unwrap();
        let refused = store.append(batch(vec![event("a", "k", None), event("b", "k", None)])).await;
        assert_eq!(refused, Err(AppendError::PartlyKnown { id: "a".into() }));
        let twice = store.append(batch(vec![event("x", "k", None), event("x", "k", None)])).await;
        assert!(matches!(twice, Err(AppendError::Invalid(_))));
        let mut many: Vec<_> = (0..20).map(|i| event(&format!("m{i}"), "k", None)).collect();
        many[19].id = "m3".into();
        let twice = store.append(batch(many)).await;
        assert!(matches!(twice, Err(AppendError::Invalid(_))));
        assert_eq!(positions(&store, all()).await, [0]);
    }
}

#[tokio::test]
async fn a_raised_fence_refuses_what_is_ordered_later() {
    for (store, _dir) in stores() {
        let fence = Fence::new();
        let mut under = batch(vec![event("a", "k", Some(0))]);
        under.fence = Some(fence.clone());
        let before = store.append(under);
        let head = store.barrier(vec![fence.clone()]);
        let mut under = batch(vec![event("b", "k", Some(5))]);
        under.fence = Some(fence);
        let after = store.append(under);
        assert!(before.await.is_ok());
        assert_eq!(head.await.unwrap(), Position(1));
        // Fence before sequence: this one would be a conflict too.
        assert_eq!(after.await, Err(AppendError::Fenced));
    }
}

#[tokio::test]
async fn correlation_comes_from_the_cause_in_the_log_or_the_batch() {
    for (store, _dir) in stores() {
        let named = NewEvent { correlationid: Some("unit".into()), ..NewEvent::new("a", "T") };
        store.append(batch(vec![named])).await.unwrap();
        let from_log = NewEvent { causationid: Some("a".into()), ..NewEvent::new("b", "T") };
        let from_batch = NewEvent { causationid: Some("b".into()), ..NewEvent::new("c", "T") };
        let unknown = NewEvent { causationid: Some("nobody".into()), ..NewEvent::new("d", "T") };
        store.append(batch(vec![from_log, from_batch, unknown, NewEvent::new("e", "T")])).await.unwrap();
        let page = store.read(all()).await.unwrap();
        let correlations: Vec<_> = page.events.iter().map(|e| e.correlationid.as_str()).collect();
        assert_eq!(correlations, ["unit", "unit", "unit", "fallback", "fallback"]);
    }
}

#[tokio::test]
async fn a_written_page_ends_where_its_limits_say_and_tells_what_follows() {
    for (store, _dir) in stores() {
        // More than are read from disk at once.
        let events = (0..300).map(|i| event(&format!("e{i}"), "k\"\u{fc}", None)).collect();
        store.append(batch(events)).await.unwrap();
        let whole = store.read(all()).await.unwrap();
        let bytes = |event: &Event| {
            let mut json = Vec::new();
            event.write_json(&mut json);
            json
        };
        for (max_events, max_bytes) in
            [(1, usize::MAX), (7, usize::MAX), (256, usize::MAX), (300, 1), (300, 5_000)]
        {
            let (mut from, mut found) = (Position(0), Vec::new());
            loop {
                let query = Query { from, max_events, max_bytes, ..all() };
                let page = store.read_written(query, Vec::new()).await.unwrap();
                assert!((1..=max_events).contains(&page.events), "{} events", page.events);
                assert!(page.json.len() <= max_bytes || page.events == 1, "{} bytes", page.json.len());
                let expected: Vec<_> =
                    whole.events[from.0 as usize..][..page.events].iter().map(|event| bytes(event)).collect();
                assert_eq!(page.json, expected.join(&b','));
                found.push(page.events);
                match page.next {
                    Some(next) => {
                        assert_eq!(next.0, from.0 + page.events as u64);
                        from = next;
                    }
                    None => break,
                }
            }
            assert_eq!(found.iter().sum::<usize>(), 300);
        }
        let nothing = Query { from: Position(300), ..all() };
        let page = store.read_written(nothing, b"as before".to_vec()).await.unwrap();
        assert_eq!((page.json, page.events, page.next), (b"as before".to_vec(), 0, None));
    }
}

#[tokio::test]
async fn reads_go_both_ways_page_by_page_under_every_filter() {
    for (store, _dir) in stores() {
        for i in 0..30 {
            let kind = if i % 3 == 0 { "Third" } else { "Other" };
            let new =
                NewEvent { kind: kind.into(), ..event(&format!("e{i}"), &format!("k/{}", i % 4), None) };
            store.append(batch(vec![new])).await.unwrap();
        }
        let filters = [
            Filter::default(),
            Filter::types(["Third"]),
            Filter::types(["Th*", "Third"]),
            Filter::subject("k/1"),
            Filter { subjects: Some(vec!["k/*".into(), "k/2".into()]), ..Filter::types(["Third"]) },
            Filter { correlationid: Some("fall*".into()), ..Filter::default() },
            Filter { sessionid: Some("test/1/".into()), ..Filter::default() },
            Filter { sessionid: Some("test/1/*".into()), ..Filter::subject("k/3") },
        ];
        for filter in filters {
            for reverse in [false, true] {
                let query = Query {
                    from: Position(3),
                    until: Some(Position(28)),
                    filter: filter.clone(),
                    reverse,
                    ..all()
                };
                let mut whole = positions(&store, query.clone()).await;
                let mut paged = Vec::new();
                let mut next = query.clone();
                next.max_events = 2;
                loop {
                    let page = store.read(next.clone()).await.unwrap();
                    assert!(page.events.len() <= 2);
                    paged.extend(page.events.iter().map(|e| e.position.0));
                    match page.next {
                        Some(position) if reverse => next.until = Some(position),
                        Some(position) => next.from = position,
                        None => break,
                    }
                }
                assert_eq!(paged, whole, "{filter:?}");
                if reverse {
                    whole.reverse();
                }
                assert!(whole.is_sorted());
                let matching = store.read(all()).await.unwrap().events.into_iter();
                let expected: Vec<_> = matching
                    .filter(|e| filter.matches(e) && (3..28).contains(&e.position.0))
                    .map(|e| e.position.0)
                    .collect();
                assert_eq!(whole, expected, "{filter:?}");
            }
        }
    }
}

#[tokio::test]
async fn keys_are_listed_by_prefix() {
    for (store, _dir) in stores() {
        for subject in ["b/1", "a/2", "a/1", "a/1", "c"] {
            store.append(batch(vec![event(&uuid(), subject, None)])).await.unwrap();
        }
        let list = store.subjects("a/", None, 10).await.unwrap();
        let list: Vec<_> = list.iter().map(|s| (s.subject.as_str(), s.events, s.last.0)).collect();
        assert_eq!(list, [("a/1", 2, 3), ("a/2", 1, 1)]);
        assert_eq!(store.subjects("", Some("a/2"), 1).await.unwrap()[0].subject, "b/1");
    }
}

#[tokio::test]
async fn time_finds_the_first_event_recorded_then_or_later() {
    for (store, _dir) in stores() {
        store.append(batch(vec![event("a", "k", None)])).await.unwrap();
        let recorded = clock();
        assert_eq!(store.position_at(recorded).await.unwrap(), Position(0));
        assert_eq!(store.position_at(Timestamp(recorded.0 + 1)).await.unwrap(), Position(1));
    }
}

#[tokio::test]
async fn a_closed_store_stores_nothing_more() {
    for (store, _dir) in stores() {
        store.append(batch(vec![event("a", "k", None)])).await.unwrap();
        store.close().await;
        let refused = store.append(batch(vec![event("b", "k", None)])).await;
        assert!(matches!(refused, Err(AppendError::Unavailable { .. })));
        assert_eq!(positions(&store, all()).await, [0]);
    }
}

fn uuid() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("id-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
