//! Sessions on threads of their own: whom a thread that is at the disk holds up,
//! and who follows the log there.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daybook_client::model::wire::Start;
use daybook_client::{Client, Item, ReadQuery};
use daybook_model::{Event, Filter, NewEvent, Position, Timestamp};
use daybook_server::{Config, Server};
use daybook_store::memory::MemoryStore;
use daybook_store::*;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A store in memory whose every append calls a lent thread, which then stays
/// away until it is let go. One of the runtime's then finds that more has come.
struct Slow {
    memory: MemoryStore,
    lender: Arc<Mutex<Option<Arc<dyn Lender>>>>,
    /// Names of the threads that came.
    came: Sender<String>,
    go: Arc<Mutex<Receiver<()>>>,
}

impl EventStore for Slow {
    fn submit(&self, batch: Batch, reply: Reply) {
        if let Some(lender) = &*self.lender.lock().unwrap() {
            lender.call(Call::AtOnce);
        }
        self.memory.submit(batch, reply);
    }

    fn borrow_threads(&self, lender: Arc<dyn Lender>) -> Option<Chore> {
        *self.lender.lock().unwrap() = Some(lender);
        let (came, go, lender) = (self.came.clone(), self.go.clone(), self.lender.clone());
        Some(Arc::new(move || {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            let is_lane = name.starts_with("session");
            came.send(name).unwrap();
            go.lock().unwrap().recv().unwrap();
            if !is_lane && let Some(lender) = &*lender.lock().unwrap() {
                lender.call(Call::AtOnce);
            }
            1
        }))
    }

    fn barrier(&self, fences: Vec<Fence>) -> Answer<Result<Position, AppendError>> {
        self.memory.barrier(fences)
    }
    fn read(&self, query: Query) -> Answer<Result<Page, ReadError>> {
        self.memory.read(query)
    }
    fn event_by_id(&self, id: &str) -> Answer<Result<Option<Arc<Event>>, ReadError>> {
        self.memory.event_by_id(id)
    }
    fn position_at(&self, time: Timestamp) -> Answer<Result<Position, ReadError>> {
        self.memory.position_at(time)
    }
    fn subjects(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Answer<Result<Vec<SubjectInfo>, ReadError>> {
        self.memory.subjects(prefix, after, limit)
    }
    fn subject(&self, subject: &str) -> Answer<Result<Option<SubjectInfo>, ReadError>> {
        self.memory.subject(subject)
    }
    fn head(&self) -> watch::Receiver<Position> {
        self.memory.head()
    }
    fn save_checkpoint(&self, group: &str, bytes: Vec<u8>) -> Answer<Result<(), CheckpointError>> {
        self.memory.save_checkpoint(group, bytes)
    }
    fn checkpoints(&self) -> Answer<Result<Vec<Checkpoint>, CheckpointError>> {
        self.memory.checkpoints()
    }
    fn health(&self) -> watch::Receiver<Health> {
        self.memory.health()
    }
    fn stats(&self) -> Stats {
        self.memory.stats()
    }
    fn close(&self) -> Answer<()> {
        self.memory.close()
    }
}

/// A server with `session_threads`, who comes when it calls, and how to let them go.
async fn slow(session_threads: usize) -> (Server, Receiver<String>, Sender<()>) {
    let ((came, comes), (let_go, go)) = (channel(), channel());
    let memory = MemoryStore::new(Timestamp::default);
    let store = Slow { memory, lender: Arc::default(), came, go: Arc::new(Mutex::new(go)) };
    let config = Config { session_threads, ..Config::new("").listen("127.0.0.1:0".parse().unwrap()) };
    (daybook_server::start_with(config, Arc::new(store)).await.unwrap(), comes, let_go)
}

async fn client(server: &Server) -> Client {
    Client::builder(&format!("http://{}", server.local_addr())).service("lanes").connect().await.unwrap()
}

async fn health(server: &Server) -> bool {
    reqwest::get(format!("http://{}/healthz", server.local_addr())).await.unwrap().status().is_success()
}

#[tokio::test]
async fn a_publish_is_written_by_the_thread_of_its_session_and_holds_up_no_other() {
    let (server, comes, let_go) = slow(2).await;
    let (first, second) = (client(&server).await, client(&server).await);

    let publish = tokio::spawn(async move { first.publish(vec![NewEvent::new("T", "account/1")]).await });
    let who = tokio::task::spawn_blocking(move || (comes.recv().unwrap(), comes));
    let (name, _comes) = who.await.unwrap();
    assert_eq!(name, "session-0");

    // It is away: the other session and HTTP are served.
    assert_eq!(second.read(ReadQuery::default()).await.unwrap().events.len(), 1);
    assert!(health(&server).await);

    let_go.send(()).unwrap();
    publish.await.unwrap().unwrap();
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_over_http_is_written_by_none_of_them_and_what_is_found_after_it_is() {
    let (server, comes, let_go) = slow(1).await;
    let session = client(&server).await;
    let post = reqwest::Client::new()
        .post(format!("http://{}/v1/events", server.local_addr()))
        .header("content-type", "application/cloudevents-batch+json")
        .body(r#"[{"specversion":"1.0","id":"1","type":"T","subject":"account/1"}]"#);
    let posted = tokio::spawn(post.send());
    let who = tokio::task::spawn_blocking(move || (comes.recv().unwrap(), comes));
    let (name, comes) = who.await.unwrap();
    assert!(!name.starts_with("session"), "{name}");
    assert_eq!(session.read(ReadQuery::default()).await.unwrap().events.len(), 1);

    let_go.send(()).unwrap();
    assert!(posted.await.unwrap().unwrap().status().is_success());
    let who = tokio::task::spawn_blocking(move || (comes.recv().unwrap(), comes));
    let (name, _comes) = who.await.unwrap();
    assert_eq!(name, "session-0");
    let_go.send(()).unwrap();
    server.shutdown().await;
}

/// So that on one lane they have to take turns.
const FOLLOWERS: usize = 40;

#[tokio::test]
async fn followers_of_one_lane_see_every_event_whoever_comes_and_goes() {
    const EVENTS: usize = 300;
    let memory = MemoryStore::new(Timestamp::default);
    let config = Config { session_threads: 1, ..Config::new("").listen("127.0.0.1:0".parse().unwrap()) };
    let server = daybook_server::start_with(config, Arc::new(memory)).await.unwrap();
    let publisher = client(&server).await;
    let mut followers = JoinSet::new();
    for i in 0..FOLLOWERS {
        // Some share a connection, some have their own.
        let connection = if i % 2 == 0 { publisher.clone() } else { client(&server).await };
        let mut following = connection.subscribe(Start::START, Filter::default()).await.unwrap();
        followers.spawn(async move {
            let mut seen = 0;
            // A third leaves, each at another time.
            let all = if i % 3 == 0 { EVENTS * i / FOLLOWERS } else { EVENTS };
            while seen < all {
                match timeout(Duration::from_secs(30), following.next()).await.unwrap().unwrap() {
                    Item::Event(event) => {
                        assert_eq!(event.position, Position(seen as u64), "follower {i}");
                        seen += 1;
                    }
                    Item::CaughtUp(_) => {}
                }
            }
            drop((following, connection));
        });
    }
    for i in 0..EVENTS {
        publisher.publish(vec![NewEvent::new(format!("e{i}"), "T")]).await.unwrap();
    }
    while let Some(followed) = followers.join_next().await {
        followed.unwrap();
    }
    server.shutdown().await;
}
