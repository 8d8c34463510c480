//! `kill -9` at a random moment under load: everything acknowledged is there.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use daybook_store::EventStore;
use daybook_store::local::{LocalStore, Options};

use crate::{all, batch, event};

const DIR: &str = "DAYBOOK_KILL_TEST_DIR";
const ROUNDS: u64 = 12;

/// Not a test: what the killed process does. It prints each id once it is acknowledged.
#[tokio::test]
async fn writer_process() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let options = Options {
        first_segment_bytes: 64 << 10,
        segment_bytes: 256 << 10,
        run_events: 100,
        ..Options::default()
    };
    let store: Arc<dyn EventStore> = Arc::new(LocalStore::open(dir.as_ref(), options).unwrap());
    let round = *store.head().borrow();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0.. {
                    let id = format!("{round}-{writer}-{i}");
                    let stored =
                        store.append(batch(vec![event(&id, &format!("k/{writer}"), None)])).await.unwrap();
                    println!("ACK {} {id}", stored[0].position);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::writer_process", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let acks = output.lines().map_while(Result::ok);
            let acks = acks.filter_map(|line| {
                let (position, id) = line.split_once("ACK ")?.1.split_once(' ')?;
                Some((position.parse::<u64>().ok()?, id.to_owned()))
            });
            acks.collect::<Vec<_>>()
        });
        // Any moment will do; these are spread over start, first segment and rolls.
        std::thread::sleep(Duration::from_millis(60 + 37 * round % 300));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(reader.join().unwrap());

        let store = LocalStore::open(dir.path(), Options { run_events: 100, ..Options::default() }).unwrap();
        let mut events = Vec::new();
        let mut query = all();
        loop {
            let page = store.read(query.clone()).await.unwrap();
            events.extend(page.events);
            let Some(next) = page.next else { break };
            query.from = next;
        }
        for (position, id) in &acknowledged {
            assert_eq!(
                events.get(*position as usize).map(|e| e.id.as_str()),
                Some(id.as_str()),
                "round {round}"
            );
        }
        for (position, id) in acknowledged.iter().rev().step_by(37) {
            let found = store.event_by_id(id).await.unwrap().map(|event| event.position.0);
            assert_eq!(found, Some(*position), "round {round}: the index does not know {id}");
        }
        let mut next = std::collections::HashMap::new();
        for (i, event) in events.iter().enumerate() {
            assert_eq!(event.position.0, i as u64);
            let sequence = next.entry(event.subject.clone()).or_insert(0);
            assert_eq!(event.sequence.unwrap().0, *sequence);
            *sequence += 1;
        }
    }
    assert!(acknowledged.len() > 100, "only {} acknowledged: the kills came too early", acknowledged.len());
}
