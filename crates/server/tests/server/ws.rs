//! The WebSocket protocol over a real socket, with a client that sends what it likes.

use std::time::Duration;

use daybook_server::{Config, Server};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

async fn server() -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path().join("log")).listen("127.0.0.1:0".parse().unwrap());
    let config = Config { session_threads: 2, ..config };
    (daybook_server::start(config).await.unwrap(), dir)
}

struct Raw {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    waiting: Vec<Value>,
}

impl Raw {
    async fn open(server: &Server) -> Self {
        let (socket, _) = connect_async(format!("ws://{}/v1/ws", server.local_addr())).await.unwrap();
        Self { socket, waiting: Vec::new() }
    }

    async fn hello(server: &Server, instance: &str) -> Self {
        let mut raw = Self::open(server).await;
        raw.send(json!({ "op": "hello", "id": 1, "service": "test", "instance": instance })).await;
        assert_eq!(raw.next().await["op"], "welcome");
        raw
    }

    async fn send(&mut self, message: Value) {
        self.text(message.to_string()).await;
    }

    async fn text(&mut self, text: String) {
        self.socket.send(Message::Text(text.into())).await.unwrap();
    }

    /// The next message; a frame of several is taken apart.
    async fn next(&mut self) -> Value {
        while self.waiting.is_empty() {
            let frame = tokio::time::timeout(Duration::from_secs(20), self.socket.next()).await;
            if let Message::Text(text) = frame.expect("no answer").expect("closed").unwrap() {
                match serde_json::from_str(&text).unwrap() {
                    Value::Array(messages) => self.waiting.extend(messages),
                    message => self.waiting.push(message),
                }
            }
        }
        self.waiting.remove(0)
    }

    async fn call(&mut self, message: Value) -> Value {
        self.send(message).await;
        self.next().await
    }

    async fn deliveries(&mut self, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        while found.len() < count {
            let message = self.next().await;
            if message["op"] == "deliver" {
                found.extend(message["deliveries"].as_array().unwrap().clone());
            }
        }
        found
    }
}

fn event(id: &str, subject: &str, sequence: Option<&str>) -> Value {
    let mut event = json!({ "specversion": "1.0", "id": id, "type": "T", "subject": subject });
    if let Some(sequence) = sequence {
        event["sequence"] = sequence.into();
    }
    event
}

fn publish(id: u64, events: &[Value]) -> Value {
    json!({ "op": "publish", "id": id, "events": events })
}

#[tokio::test]
async fn bad_frames_get_a_code_and_the_connection_lives_on() {
    let (server, _dir) = server().await;
    let mut raw = Raw::hello(&server, "a").await;
    let deep = format!(
        "{{\"op\":\"publish\",\"id\":9,\"events\":[{{\"specversion\":\"1.0\",\"id\":\"d\",\"type\":\"T\",\"data\":{}{}}}]}}",
        "[".repeat(500),
        "]".repeat(500)
    );
    let long = "x".repeat(129);
    for (frame, member) in [
        ("no json".to_owned(), ""),
        ("{\"op\":".to_owned(), ""),
        ("42".to_owned(), ""),
        (deep, "events[0].data"),
        (json!({ "op": "fly", "id": 2 }).to_string(), "op"),
        (json!({ "id": 2 }).to_string(), "op"),
        (json!({ "op": 7, "id": 2 }).to_string(), "op"),
        (json!({ "op": "publish", "id": 2 }).to_string(), ""),
        (publish(2, &[]).to_string(), "events"),
        (publish(2, &[event(&long, "k", None)]).to_string(), "events[0].id"),
        (publish(2, &[event("", "k", None)]).to_string(), "events[0].id"),
        (publish(2, &[event("a", "k\u{7}", None)]).to_string(), "events[0].subject"),
        (publish(2, &[event("a", "k", Some("01"))]).to_string(), "events[0].sequence"),
        (publish(2, &[event("a", "k", None), event("a", "k", None)]).to_string(), "events[1].id"),
        (json!({ "op": "publish", "id": 2, "events": [{ "specversion": "1.0", "id": "a", "type": "T", "subject": "k", "sequence": 0 }] }).to_string(), "events[0].sequence"),
        (json!({ "op": "publish", "id": 2, "events": [{ "specversion": "1.0", "id": "a", "type": "T", "sequence": "0" }] }).to_string(), "events[0].sequence"),
        (json!({ "op": "publish", "id": 2, "events": [{ "specversion": "1.0", "id": "a", "type": "daybook.x" }] }).to_string(), "events[0].type"),
        (json!({ "op": "read", "id": 2, "from": 5 }).to_string(), "from"),
        (json!({ "op": "subscribe", "id": 2, "from": "yesterday", "credit": "1" }).to_string(), "from"),
    ] {
        raw.text(frame.clone()).await;
        let answer = raw.next().await;
        assert_eq!(answer["op"], "error", "{frame} → {answer}");
        assert_eq!(answer["problem"]["code"], "invalid", "{frame} → {answer}");
        if !member.is_empty() {
            assert_eq!(answer["problem"]["member"], member, "{frame} → {answer}");
        }
    }
    raw.send(json!({ "op": "ack", "subscription": 99, "tokens": ["x"] })).await;
    assert_eq!(raw.next().await["problem"]["code"], "not-found");
    let page = raw.call(json!({ "op": "read", "id": 3 })).await;
    assert_eq!((page["op"].as_str(), page["events"].as_array().map(Vec::len)), (Some("page"), Some(0)));
    server.shutdown().await;
}

#[tokio::test]
async fn a_conflict_names_the_key_but_not_the_value_and_repeats_are_duplicates() {
    let (server, _dir) = server().await;
    let mut raw = Raw::hello(&server, "a").await;
    let receipt = raw.call(publish(2, &[event("a", "k", Some("0"))])).await;
    assert_eq!(receipt["events"][0]["position"], "0");
    let refused = raw.call(publish(3, &[event("b", "k", Some("0"))])).await;
    assert_eq!((refused["id"].as_u64(), refused["problem"]["code"].as_str()), (Some(3), Some("conflict")));
    assert_eq!(refused["problem"]["subject"], "k");
    assert!(!refused.to_string().contains("\"1\""), "{refused}");
    let again = raw.call(publish(4, &[event("a", "k", Some("7"))])).await;
    assert_eq!(again["events"][0]["duplicate"], true);
    server.shutdown().await;
}

#[tokio::test]
async fn data_arrives_byte_for_byte_and_a_subscription_keeps_to_its_credit() {
    let (server, _dir) = server().await;
    let mut raw = Raw::hello(&server, "a").await;
    let data = r#"{ "a" : 1.00, "a":[ ] }"#;
    raw.text(format!(
        r#"{{"op":"publish","id":2,"events":[{{"specversion":"1.0","id":"x","type":"T","data":{data}}}]}}"#
    ))
    .await;
    raw.next().await;
    for i in 0..3 {
        raw.call(publish(10 + i, &[event(&i.to_string(), "k", None)])).await;
    }
    raw.text(json!({ "op": "read", "id": 3, "limit": "1" }).to_string()).await;
    let frame = loop {
        if let Message::Text(text) = raw.socket.next().await.unwrap().unwrap() {
            break text;
        }
    };
    assert!(frame.contains(data), "{frame}");
    let subscribed = raw.call(json!({ "op": "subscribe", "id": 4, "from": "start", "credit": 2 })).await;
    let subscription = subscribed["subscription"].clone();
    assert_eq!(raw.next().await["events"].as_array().unwrap().len(), 2);
    // Nothing more comes: the answer to the read is next.
    assert_eq!(raw.call(json!({ "op": "read", "id": 5 })).await["op"], "page");
    raw.send(json!({ "op": "credit", "subscription": subscription, "events": "10" })).await;
    assert_eq!(raw.next().await["events"].as_array().unwrap().len(), 2);
    assert_eq!(raw.next().await["op"], "caughtup");
    server.shutdown().await;
}

#[tokio::test]
async fn a_group_keeps_a_keys_order_through_nack_and_a_lost_member() {
    let (server, _dir) = server().await;
    let mut a = Raw::hello(&server, "a").await;
    for i in 0..3 {
        a.call(publish(10 + i, &[event(&format!("e{i}"), "k", None)])).await;
    }
    let joined = a.call(json!({ "op": "join", "id": 2, "group": "g", "credit": 10 })).await;
    assert_eq!(joined["op"], "joined", "{joined}");
    let first = a.deliveries(1).await;
    assert_eq!(first[0]["event"]["sequence"], "0");
    let nack = json!({ "op": "nack", "subscription": joined["subscription"], "token": first[0]["token"], "action": "retry", "delay_ms": 50 });
    a.send(nack).await;
    let again = a.deliveries(1).await;
    assert_eq!((again[0]["event"]["sequence"].as_str(), again[0]["attempt"].as_u64()), (Some("0"), Some(2)));
    let done = a.call(json!({ "op": "ack", "id": 3, "subscription": joined["subscription"], "tokens": [again[0]["token"]] }));
    let done = done.await;
    let second = if done["op"] == "deliver" {
        done["deliveries"][0].clone()
    } else {
        a.deliveries(1).await[0].clone()
    };
    assert_eq!(second["event"]["sequence"], "1");

    // Its socket breaks; another member gets the same event, and the old token settles nothing.
    let mut b = Raw::hello(&server, "b").await;
    let other = b.call(json!({ "op": "join", "id": 2, "group": "g", "credit": 10 })).await;
    assert_eq!(other["op"], "joined", "{other}");
    drop(a);
    let taken = b.deliveries(1).await;
    assert_eq!(taken[0]["event"]["sequence"], "1");
    let stale = publish(5, &[event("late", "x", None)]);
    let mut stale = stale;
    stale["delivery"] = second["token"].clone();
    assert_eq!(b.call(stale).await["problem"]["code"], "fenced");
    b.send(json!({ "op": "ack", "subscription": other["subscription"], "tokens": [taken[0]["token"]] }))
        .await;
    assert_eq!(b.deliveries(1).await[0]["event"]["sequence"], "2");
    server.shutdown().await;
}

#[tokio::test]
async fn shutdown_answers_what_was_taken_and_a_group_goes_on_after_a_restart() {
    let (server, dir) = server().await;
    let mut raw = Raw::hello(&server, "a").await;
    for i in 0..4 {
        raw.call(publish(10 + i, &[event(&format!("e{i}"), &format!("k{i}"), None)])).await;
    }
    let joined = raw.call(json!({ "op": "join", "id": 2, "group": "g", "credit": 10 })).await;
    let deliveries = raw.deliveries(4).await;
    let tokens: Vec<_> = deliveries[..3].iter().map(|delivery| delivery["token"].clone()).collect();
    let done = raw
        .call(json!({ "op": "ack", "id": 3, "subscription": joined["subscription"], "tokens": tokens }))
        .await;
    assert_eq!((done["op"].as_str(), done["stale"].as_array().map(Vec::len)), (Some("done"), Some(0)));
    let going = tokio::spawn(server.shutdown());
    assert_eq!(raw.next().await["op"], "drain");
    going.await.unwrap();

    let config = Config::new(dir.path().join("log")).listen("127.0.0.1:0".parse().unwrap());
    let server = daybook_server::start(config).await.unwrap();
    let mut raw = Raw::hello(&server, "a").await;
    raw.call(json!({ "op": "join", "id": 2, "group": "g", "credit": 10 })).await;
    let left = raw.deliveries(1).await;
    assert_eq!(left[0]["event"]["id"], deliveries[3]["event"]["id"]);
    server.shutdown().await;
}

#[tokio::test]
async fn an_oversized_frame_and_a_missing_hello_close_the_connection() {
    let (server, _dir) = server().await;
    let mut raw = Raw::open(&server).await;
    raw.send(json!({ "op": "read", "id": 1 })).await;
    assert_eq!(raw.next().await["problem"]["code"], "invalid");
    let mut raw = Raw::hello(&server, "a").await;
    let _ = raw.socket.send(Message::Text("x".repeat(9 << 20).into())).await;
    let ended = async { while let Some(Ok(_)) = raw.socket.next().await {} };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
    let mut next = Raw::hello(&server, "b").await;
    assert_eq!(next.call(json!({ "op": "read", "id": 2 })).await["op"], "page");
    server.shutdown().await;
}

/// `(instance, connected)` of each seat of group `g`, over HTTP.
/// Whoever sends and does not read must not fill the server's memory, and must
/// not have to guess why the connection ended.
#[tokio::test]
async fn a_slow_consumer_is_cut_off_with_the_reason() {
    let (server, _dir) = server().await;
    let mut raw = Raw::hello(&server, "a").await;
    let nonsense = format!("[42{}]", ",42".repeat(999));
    for _ in 0..2_000 {
        // Stuck means that the server does not read on before its answers are read.
        let send = tokio::time::timeout(Duration::from_millis(200), raw.text(nonsense.clone()));
        if send.await.is_err() {
            break;
        }
    }
    let close = loop {
        match raw.socket.next().await.expect("a goodbye").unwrap() {
            Message::Close(Some(close)) => break close,
            Message::Text(_) | Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(close.code), 1008);
    assert!(close.reason.starts_with("slow consumer"), "{}", close.reason);
    drop(raw);
    assert_eq!(Raw::hello(&server, "b").await.call(json!({ "op": "read", "id": 3 })).await["op"], "page");
    server.shutdown().await;
}

async fn seats(server: &Server) -> Vec<(String, bool)> {
    let answer = reqwest::get(format!("http://{}/v1/groups/g", server.local_addr())).await.unwrap();
    let group: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let seat = |member: &Value| {
        (member["instance"].as_str().unwrap().to_owned(), member["connected"].as_bool().unwrap())
    };
    group["members"].as_array().unwrap().iter().map(seat).collect()
}

#[tokio::test]
async fn a_crashed_process_frees_its_keys_as_soon_as_the_next_one_of_its_instance_is_there() {
    let (server, _dir) = server().await;
    for new_one_first in [true, false] {
        let mut publisher = Raw::hello(&server, "publisher").await;
        publisher.call(publish(2, &[event(&format!("e{new_one_first}"), "k", None)])).await;
        let hello =
            |boot: &str| json!({ "op": "hello", "id": 1, "service": "s", "instance": "i", "boot": boot });
        let join = json!({ "op": "join", "id": 2, "group": "g", "credit": 10 });
        let (mut old, mut new) = (Raw::open(&server).await, Raw::open(&server).await);
        old.call(hello("first")).await;
        old.call(join.clone()).await;
        let first = old.deliveries(1).await;
        new.call(hello("second")).await;
        if new_one_first {
            assert_eq!(new.call(join).await["op"], "joined");
            drop(old);
        } else {
            drop(old);
            while seats(&server).await[0].1 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(new.call(join).await["op"], "joined");
        }
        // The old seat never waits for a process that cannot come back.
        loop {
            let seats = seats(&server).await;
            assert!(seats.iter().all(|(_, connected)| *connected), "{seats:?}");
            if seats.len() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let again = new.deliveries(1).await;
        assert_eq!(again[0]["event"]["id"], first[0]["event"]["id"]);
        assert_eq!(again[0]["attempt"], 2);
        let tokens = [again[0]["token"].clone()];
        let ack = json!({ "op": "ack", "id": 3, "subscription": 1, "tokens": tokens });
        assert_eq!(new.call(ack).await["stale"], json!([]));
        new.call(json!({ "op": "leave", "id": 4, "subscription": 1 })).await;
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_runtime_lends_its_threads_every_connection_keeps_its_order() {
    const EVENTS: usize = 40;
    let (server, dir) = server().await;
    let mut follower = Raw::hello(&server, "follower").await;
    let subscribe = json!({ "op": "subscribe", "id": 2, "from": "start", "credit": "1000" });
    assert_eq!(follower.call(subscribe).await["op"], "subscribed");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..6 {
        let mut raw = Raw::hello(&server, &format!("w{writer}")).await;
        writers.spawn(async move {
            for i in 0..EVENTS {
                let event = event(&format!("{writer}/{i}"), &format!("k{writer}"), Some(&i.to_string()));
                raw.send(json!({ "op": "publish", "id": i + 2, "events": [event] })).await;
            }
            for _ in 0..EVENTS {
                let answer = raw.next().await;
                assert_eq!(answer["op"], "receipt", "{answer}");
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let mut positions = Vec::new();
    while positions.len() < 6 * EVENTS {
        let message = follower.next().await;
        for event in message["events"].as_array().into_iter().flatten() {
            positions.push(event["position"].as_str().unwrap().parse::<usize>().unwrap());
        }
    }
    assert_eq!(positions, (0..6 * EVENTS).collect::<Vec<_>>());
    server.shutdown().await;
    let config = Config::new(dir.path().join("log")).listen("127.0.0.1:0".parse().unwrap());
    daybook_server::start(config).await.unwrap().shutdown().await;
}
