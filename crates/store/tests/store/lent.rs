//! A thread that works for a store when it is called, as a server's do.

use std::sync::{Arc, mpsc};

use daybook_store::local::{LocalStore, Options};
use daybook_store::{Call, EventStore, Lender};

use crate::{all, batch, event, positions};

struct Caller(mpsc::Sender<()>);

impl Lender for Caller {
    fn call(&self, _: Call) {
        let _ = self.0.send(());
    }

    fn miss(&self) {}
}

/// The thread ends with the store.
pub fn lend_a_thread(store: &dyn EventStore) {
    let (calls, called) = mpsc::channel();
    let chore = store.borrow_threads(Arc::new(Caller(calls))).unwrap();
    std::thread::spawn(move || {
        while called.recv().is_ok() {
            chore();
        }
    });
}

/// Calls nobody.
struct Absent;

impl Lender for Absent {
    fn call(&self, _: Call) {}

    fn miss(&self) {}
}

fn open(dir: &std::path::Path) -> Arc<dyn EventStore> {
    Arc::new(LocalStore::open(dir, Options::default()).unwrap())
}

#[tokio::test]
async fn what_no_lent_thread_comes_for_is_written_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(store.borrow_threads(Arc::new(Absent)).is_some());
    for i in 0..3 {
        let stored = store.append(batch(vec![event(&format!("e{i}"), "k", Some(i))])).await.unwrap();
        assert_eq!(stored[0].position.0, i);
    }
    // Nobody waits for the answer: closing still finishes it.
    drop(store.append(batch(vec![event("last", "k", Some(3))])));
    store.close().await;
    assert_eq!(positions(&store, all()).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_lent_thread_that_finds_nothing_to_do_says_so_and_so_it_does_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let chore = store.borrow_threads(Arc::new(Absent)).unwrap();
    assert_eq!(chore(), 0);
    store.append(batch(vec![event("e", "k", Some(0))])).await.unwrap();
    store.close().await;
    assert_eq!(chore(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lent_thread_and_those_of_the_store_keep_every_session_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    lend_a_thread(&*store);
    let sessions: Vec<_> = (0..4)
        .map(|session| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in (0..200).step_by(4) {
                    let one = |i| {
                        let mut batch =
                            batch(vec![event(&format!("{session}/{i}"), &format!("k{session}"), Some(i))]);
                        batch.session = format!("test/{session}/s").into();
                        store.append(batch)
                    };
                    // Sent together: each is right only behind the one before it.
                    for answer in [one(i), one(i + 1), one(i + 2), one(i + 3)] {
                        answer.await.unwrap();
                    }
                }
            })
        })
        .collect();
    for session in sessions {
        session.await.unwrap();
    }
    drop(store.append(batch(vec![event("last", "k", None)])));
    store.close().await;
    assert!(store.append(batch(vec![event("late", "k", None)])).await.is_err());
    assert_eq!(positions(&store, all()).await, (0..801).collect::<Vec<_>>());
    drop(store);
    assert_eq!(*open(dir.path()).head().borrow(), daybook_model::Position(801));
}
