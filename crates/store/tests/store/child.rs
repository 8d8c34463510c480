//! A process that writes until somebody stops it, and what it was told.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use daybook_model::Event;
use daybook_store::EventStore;
use daybook_store::local::{LocalStore, Options};

use crate::{all, batch, event};

const DIR: &str = "DAYBOOK_WRITER_DIR";
const WRITERS: u64 = 8;

fn options() -> Options {
    Options { first_segment_bytes: 64 << 10, segment_bytes: 256 << 10, run_events: 100, ..Options::default() }
}

/// Not a test: what the process does. It prints each id once it is
/// acknowledged, and each number once the group's checkpoint with it is saved.
#[tokio::test]
async fn writer_process() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store: Arc<dyn EventStore> = Arc::new(LocalStore::open(dir.as_ref(), options()).unwrap());
    let round = *store.head().borrow();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0.. {
                    let id = format!("{round}-{writer}-{i}");
                    let event = event(&id, &format!("k/{writer}"), None);
                    let Ok(stored) = store.append(batch(vec![event])).await else { return };
                    println!("ACK {} {id}", stored[0].position);
                }
            })
        })
        .collect();
    let group = format!("g{}", round.0 % 3);
    for number in round.0.. {
        if store.save_checkpoint(&group, number.to_string().into_bytes()).await.is_err() {
            break;
        }
        println!("SAVED {number} {group}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    for writer in writers {
        let _ = writer.await;
    }
}

pub struct Writer {
    child: Child,
    output: JoinHandle<Told>,
}

/// What the process was told before it ended.
#[derive(Default)]
pub struct Told {
    /// Position and id of what was acknowledged.
    pub acknowledged: Vec<(u64, String)>,
    /// The last number saved, by group.
    pub saved: Vec<(u64, String)>,
}

impl Writer {
    /// `wrapper`: a command that runs it, or none.
    pub fn start(dir: &Path, wrapper: &[String]) -> Self {
        let exe = std::env::current_exe().unwrap().display().to_string();
        let line: Vec<_> = wrapper.iter().cloned().chain([exe]).collect();
        let mut child = Command::new(&line[0])
            .args(&line[1..])
            .args(["--exact", "child::writer_process", "--nocapture"])
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let output = std::thread::spawn(move || {
            let mut told = Told::default();
            for line in output.lines().map_while(Result::ok) {
                let line = line.split_once("ACK ").map_or(line.as_str(), |(_, rest)| rest);
                let saved = line.strip_prefix("SAVED ");
                let Some((number, name)) = saved.unwrap_or(line).split_once(' ') else { continue };
                let Ok(number) = number.parse() else { continue };
                match saved {
                    Some(_) => told.saved.push((number, name.to_owned())),
                    None => told.acknowledged.push((number, name.to_owned())),
                }
            }
            told
        });
        Self { child, output }
    }

    /// `kill -9`, if it is still there.
    pub fn kill(mut self) -> Told {
        let _ = self.child.kill();
        self.wait()
    }

    pub fn wait(mut self) -> Told {
        self.child.wait().unwrap();
        self.output.join().unwrap()
    }
}

/// Opens what the process left: everything it was told of is there, in order and once.
pub async fn check(dir: &Path, told: &Told, context: &str) {
    let store = LocalStore::open(dir, options()).unwrap_or_else(|e| panic!("{context}: {e}"));
    let events = everything(&store).await;
    for (position, id) in &told.acknowledged {
        let found = events.get(*position as usize).map(|event| event.id.as_str());
        assert_eq!(found, Some(id.as_str()), "{context}: acknowledged at {position}");
    }
    for (position, id) in told.acknowledged.iter().rev().step_by(37) {
        let found = store.event_by_id(id).await.unwrap().map(|event| event.position.0);
        assert_eq!(found, Some(*position), "{context}: the index does not know {id}");
    }
    let mut next = std::collections::HashMap::new();
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event.position.0, i as u64, "{context}");
        let sequence = next.entry(event.subject.clone()).or_insert(0);
        assert_eq!(event.sequence.unwrap().0, *sequence, "{context}");
        *sequence += 1;
    }
    let checkpoints = store.checkpoints().await.unwrap();
    for (number, group) in &told.saved {
        let found = checkpoints.iter().find(|(name, _)| name == group);
        let found = found.unwrap_or_else(|| panic!("{context}: the checkpoint of {group} is lost"));
        let found: u64 = str::from_utf8(&found.1).unwrap().parse().unwrap();
        assert!(found >= *number, "{context}: {group} is at {found}, and {number} was saved");
    }
    store.close().await;
}

async fn everything(store: &LocalStore) -> Vec<Arc<Event>> {
    let (mut events, mut query) = (Vec::new(), all());
    loop {
        let page = store.read(query.clone()).await.unwrap();
        events.extend(page.events);
        let Some(next) = page.next else { return events };
        query.from = next;
    }
}
