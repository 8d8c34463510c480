//! What a group's claims hold against over the wire: processes that pause, die and
//! fall silent, handlers that are repeated, readers that rebuild meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use daybook_client::model::{Code, Filter, NewEvent};
use daybook_client::{Client, Delivery, Item, Join, Membership};
use daybook_server::{Config, Server};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

async fn server(heartbeat: Duration) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = Config { heartbeat, ..Config::new(dir.path().join("log")).listen(listen) };
    (daybook_server::start(config).await.unwrap(), dir)
}

async fn client(server: &Server, instance: &str) -> Client {
    let url = format!("http://{}", server.local_addr());
    Client::builder(&url).service("worker").instance(instance).connect().await.unwrap()
}

fn join() -> Join {
    Join { filter: Some(Filter::types(["Happened"])), ..Join::new("g", 10) }
}

async fn next(membership: &mut Membership) -> Delivery {
    tokio::time::timeout(Duration::from_secs(20), membership.next()).await.unwrap().unwrap()
}

async fn publish(client: &Client, id: &str, subject: &str) {
    client.publish(vec![NewEvent::new(id, "Happened").subject(subject)]).await.unwrap();
}

/// A member that says nothing unless told, not even to pings.
struct Silent(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Silent {
    async fn join(server: &Server) -> (Self, Value) {
        let (socket, _) = connect_async(format!("ws://{}/v1/ws", server.local_addr())).await.unwrap();
        let mut silent = Self(socket);
        let hello = json!({ "op": "hello", "id": 1, "service": "worker", "instance": "silent" });
        let filter = json!({ "types": ["Happened"] });
        let join = json!({ "op": "join", "id": 2, "group": "g", "credit": 10, "filter": filter });
        silent.0.send(Message::Text(json!([hello, join]).to_string().into())).await.unwrap();
        loop {
            for message in silent.messages().await {
                if message["op"] == "deliver" {
                    return (silent, message["deliveries"][0].clone());
                }
            }
        }
    }

    async fn messages(&mut self) -> Vec<Value> {
        let frame = tokio::time::timeout(Duration::from_secs(20), self.0.next()).await.unwrap();
        let Message::Text(text) = frame.unwrap().unwrap() else { return Vec::new() };
        match serde_json::from_str(&text).unwrap() {
            Value::Array(messages) => messages,
            message => vec![message],
        }
    }
}

#[tokio::test]
async fn a_member_whose_socket_is_half_open_loses_its_keys_after_three_pings() {
    let (server, _dir) = server(Duration::from_millis(50)).await;
    let other = client(&server, "other").await;
    publish(&other, "e", "k").await;
    // Its socket stays open; nobody reads from it, so nobody answers the pings.
    let (silent, first) = Silent::join(&server).await;
    let mut member = other.join(join()).await.unwrap();
    let again = next(&mut member).await;
    assert_eq!((again.event.id.as_str(), again.attempt), ("e", 2));
    assert_eq!(first["attempt"], 1);
    drop(silent);
    server.shutdown().await;
}

#[tokio::test]
async fn a_repeated_handler_gets_the_old_receipts_and_a_paused_one_is_fenced() {
    let (server, _dir) = server(Duration::from_millis(50)).await;
    let other = client(&server, "other").await;
    publish(&other, "e", "k").await;
    let (mut paused, first) = Silent::join(&server).await;
    let effect =
        |id: &str| json!({ "specversion": "1.0", "id": id, "type": "Effect", "data": { "of": "e" } });
    let publish = |id: u64, of: &str| {
        json!({ "op": "publish", "id": id, "events": [effect(of)], "delivery": first["token"] }).to_string()
    };
    paused.0.send(Message::Text(publish(10, "e/effect").into())).await.unwrap();
    let receipt = loop {
        let mut messages = paused.messages().await.into_iter();
        if let Some(receipt) = messages.find(|message| message["id"] == 10) {
            break receipt;
        }
    };
    let position = receipt["events"][0]["position"].clone();
    // It pauses before its ack. Another process repeats what it did, with the same id.
    let mut member = other.join(join()).await.unwrap();
    let again = next(&mut member).await;
    let derived = NewEvent::new("e/effect", "Effect");
    let derived = derived.data(daybook_client::model::Data::json(&json!({ "of": "e" })).unwrap());
    let repeated = other.publish_with(vec![derived], Some(&again.token)).await.unwrap();
    assert!(repeated.is_duplicate());
    assert_eq!(json!(repeated.position()), position, "the effect is in the log once");
    // It wakes up: nothing it does under its old claim counts any more.
    let woken = client(&server, "woken").await;
    let token = first["token"].as_str().unwrap();
    let refused =
        woken.publish_with(vec![NewEvent::new("e/second", "Effect")], Some(token)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Fenced);
    assert!(member.settler().ack_durable(&again.token).await);
    server.shutdown().await;
}

#[tokio::test]
async fn what_a_member_holds_may_still_be_settled_while_the_server_goes_down() {
    let (server, dir) = server(Duration::from_secs(20)).await;
    let other = client(&server, "other").await;
    publish(&other, "e0", "k").await;
    publish(&other, "e1", "k").await;
    other.close().await;
    let (mut member, first) = Silent::join(&server).await;
    let going = tokio::spawn(server.shutdown());
    while !member.messages().await.iter().any(|message| message["op"] == "drain") {}
    let effect = json!({ "specversion": "1.0", "id": "e0/effect", "type": "Effect" });
    let token = &first["token"];
    let publish = json!({ "op": "publish", "id": 10, "events": [effect], "delivery": token });
    let ack = json!({ "op": "ack", "id": 11, "subscription": 1, "tokens": [token] });
    member.0.send(Message::Text(json!([publish, ack]).to_string().into())).await.unwrap();
    let mut answers = BTreeMap::new();
    while answers.len() < 2 {
        for message in member.messages().await {
            answers.insert(message["id"].as_u64().unwrap(), message);
        }
    }
    assert_eq!(answers[&10]["op"], "receipt", "{answers:?}");
    assert_eq!((&answers[&11]["op"], &answers[&11]["stale"]), (&json!("done"), &json!([])), "{answers:?}");
    going.await.unwrap();

    let listen = "127.0.0.1:0".parse().unwrap();
    let server = daybook_server::start(Config::new(dir.path().join("log")).listen(listen)).await.unwrap();
    let worker = client(&server, "worker").await;
    let mut member = worker.join(join()).await.unwrap();
    let delivery = next(&mut member).await;
    assert_eq!((delivery.event.id.as_str(), delivery.attempt), ("e1", 1), "what was settled came again");
    server.shutdown().await;
}

#[tokio::test]
async fn a_rolling_restart_of_the_server_costs_no_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = || Config::new(dir.path().join("log")).listen(([127, 0, 0, 1], port).into());
    let mut server = daybook_server::start(config()).await.unwrap();
    let publisher = client(&server, "publisher").await;
    for i in 0..60 {
        publish(&publisher, &format!("e{i}"), &format!("k/{}", i % 6)).await;
    }
    let worker = client(&server, "worker").await;
    let mut member = worker.join(join()).await.unwrap();
    let mut settled = BTreeSet::new();
    for i in 0..60 {
        if i % 20 == 10 {
            // While the worker holds what it was given and more is under way.
            server.shutdown().await;
            server = daybook_server::start(config()).await.unwrap();
        }
        let delivery = next(&mut member).await;
        assert_eq!(delivery.attempt, 1, "a restart in good order counted as an attempt");
        if member.settler().ack_durable(&delivery.token).await {
            settled.insert(delivery.event.id.clone());
        }
    }
    while settled.len() < 60 {
        let delivery = next(&mut member).await;
        assert_eq!(delivery.attempt, 1, "a restart in good order counted as an attempt");
        if member.settler().ack_durable(&delivery.token).await {
            settled.insert(delivery.event.id.clone());
        }
    }
    server.shutdown().await;
}

#[tokio::test]
async fn whoever_follows_what_is_settled_while_others_settle_misses_nothing_and_gets_nothing_twice() {
    const EVENTS: usize = 400;
    let (server, _dir) = server(Duration::from_secs(10)).await;
    let publisher = client(&server, "publisher").await;
    for i in 0..EVENTS {
        publish(&publisher, &format!("e{i}"), &format!("k/{}", i % 20)).await;
    }
    let mut workers = Vec::new();
    for i in 0..3 {
        let worker = client(&server, &format!("w{i}")).await;
        let mut member = worker.join(join()).await.unwrap();
        workers.push(tokio::spawn(async move {
            while let Some(delivery) = member.next().await {
                member.ack(&delivery.token).await;
            }
            drop(worker);
        }));
    }
    // Followers that begin at different moments of it.
    let mut followers = Vec::new();
    for i in 0..8 {
        let follower = client(&server, &format!("f{i}")).await;
        let filter = Filter { settled_by: Some("g".into()), ..Filter::default() };
        let mut settled =
            follower.subscribe(daybook_client::model::wire::Start::START, filter).await.unwrap();
        followers.push(tokio::spawn(async move {
            let (mut seen, mut past, mut live): (Vec<_>, _, _) = (Vec::new(), 0, false);
            while seen.len() < EVENTS {
                match tokio::time::timeout(Duration::from_secs(60), settled.next()).await.unwrap().unwrap() {
                    Item::CaughtUp(_) => live = true,
                    Item::Event(event) => {
                        past += usize::from(!live);
                        seen.push((event.position.0, event.subject.clone().unwrap()));
                    }
                }
            }
            drop(follower);
            (seen, past)
        }));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    for follower in followers {
        let (seen, past) = follower.await.unwrap();
        let once: BTreeSet<u64> = seen.iter().map(|(position, _)| *position).collect();
        assert_eq!(once.len(), EVENTS, "something came twice");
        assert!(seen[..past].is_sorted(), "the past is not in the order of positions");
        let mut last = BTreeMap::new();
        for (position, key) in &seen {
            let before = last.insert(key, position);
            assert!(
                before.is_none_or(|before| before < position),
                "{position} of {key} came after {before:?}"
            );
        }
    }
    workers.iter().for_each(tokio::task::JoinHandle::abort);
    server.shutdown().await;
}
