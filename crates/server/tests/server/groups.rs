//! Groups through the SDK and HTTP: operations, records, following what is settled.

use std::time::Duration;

use daybook_client::model::wire::{NackAction, Start};
use daybook_client::model::{Code, Event, Filter, NewEvent, Position};
use daybook_client::{Client, Delivery, Item, Join, Membership, ReadQuery};
use daybook_server::{Config, Server};
use serde_json::{Value, json};

struct Bus {
    server: Server,
    url: String,
    http: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Bus {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().join("log")).listen("127.0.0.1:0".parse().unwrap());
        let server = daybook_server::start(config).await.unwrap();
        let url = format!("http://{}", server.local_addr());
        Self { server, url, http: reqwest::Client::new(), _dir: dir }
    }

    async fn client(&self, service: &str) -> Client {
        Client::builder(&self.url).service(service).connect().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.url)).body(body.to_string());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn records(&self, client: &Client) -> Vec<Value> {
        let filter = Filter { types: Some(vec!["daybook.*".into()]), ..Filter::default() };
        let mut found = Vec::new();
        for _ in 0..500 {
            let page =
                client.read(ReadQuery { filter: filter.clone(), ..ReadQuery::default() }).await.unwrap();
            found = page.events.iter().map(|event| serde_json::to_value(&**event).unwrap()).collect();
            if !found.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        found
    }
}

async fn publish(client: &Client, subjects: &[&str]) {
    for subject in subjects {
        let id = format!("{subject}-{}", uuid::Uuid::new_v4());
        client.publish(vec![NewEvent::new(id, "Happened").subject(*subject)]).await.unwrap();
    }
}

fn join(group: &str) -> Join {
    Join {
        filter: Some(Filter { types: Some(vec!["Happened".into()]), ..Filter::default() }),
        ..Join::new(group, 10)
    }
}

async fn next(membership: &mut Membership) -> Delivery {
    tokio::time::timeout(Duration::from_secs(20), membership.next()).await.unwrap().unwrap()
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn subject(event: &Event) -> &str {
    event.subject.as_deref().unwrap()
}

#[tokio::test]
async fn explain_tells_why_a_key_is_where_it_is() {
    let bus = Bus::start().await;
    let client = bus.client("worker").await;
    publish(&client, &["k/1", "k/1", "k/2"]).await;
    let mut member = client.join(join("g")).await.unwrap();
    let (first, second) = (next(&mut member).await, next(&mut member).await);
    let one = bus.get("/v1/groups/g/keys/k%2F1").await;
    assert_eq!(
        (&one["state"], &one["waiting"], &one["next"]),
        (&json!("in-flight"), &json!(2), &json!("0")),
        "{one}"
    );
    assert_eq!(one["owner"], one["instance"]);
    member
        .nack(&first.token, NackAction::Retry, Some(Duration::from_secs(50)), Some("not today".into()))
        .await;
    until("a backoff", async || bus.get("/v1/groups/g/keys/k%2F1").await["state"] == "backoff").await;
    let one = bus.get("/v1/groups/g/keys/k%2F1").await;
    assert_eq!((&one["failed_attempts"], &one["last_error"]), (&json!(1), &json!("not today")), "{one}");
    member.nack(&second.token, NackAction::Park, None, Some("no such account".into())).await;
    until("a parked key", async || bus.get("/v1/groups/g/keys/k%2F2").await["state"] == "parked").await;
    let two = bus.get("/v1/groups/g/keys/k%2F2").await;
    assert_eq!((&two["reason"], &two["attempts"]), (&json!("no such account"), &json!(1)), "{two}");
    assert_eq!(bus.get("/v1/groups/g/keys/other").await["state"], "absent");
}

#[tokio::test]
async fn what_is_parked_retried_and_skipped_is_on_record() {
    let bus = Bus::start().await;
    let client = bus.client("worker").await;
    publish(&client, &["k/1", "k/1", "k/1"]).await;
    let mut member = client.join(join("g")).await.unwrap();
    let first = next(&mut member).await;
    member.nack(&first.token, NackAction::Park, None, Some("why".into())).await;
    let records = bus.records(&client).await;
    assert_eq!(records[0]["type"], "daybook.EventParked");
    assert_eq!(records[0]["causationid"], json!(first.event.id));
    assert_eq!(records[0]["correlationid"], json!(first.event.correlationid));
    assert_eq!(records[0].get("subject"), None);
    assert_eq!(
        records[0]["data"],
        json!({ "group": "g", "key": "k/1", "position": "0", "attempts": 1, "reason": "why", "by": "group" })
    );
    let (status, counted) = bus.post("/v1/groups/g/parked/k%2F1/skip?dry_run=true", Value::Null).await;
    assert_eq!((status, &counted["events"]), (200, &json!("3")));
    assert_eq!(bus.post("/v1/groups/g/parked/k%2F1/skip", Value::Null).await.0, 204);
    assert_eq!(next(&mut member).await.event.position, Position(1));
    until("the skip is on record", async || bus.records(&client).await.len() == 2).await;
    let skipped = &bus.records(&client).await[1];
    assert_eq!(
        (&skipped["type"], &skipped["data"]["by"]),
        (&json!("daybook.EventSkipped"), &json!("operator"))
    );
    // The records are not for groups that do not name them.
    assert_eq!(bus.get("/v1/groups/g").await["options"]["filter"].get("types"), None);
}

/// Group `g` has settled the three events of the log.
async fn three_settled(bus: &Bus) -> (Client, Membership) {
    let client = bus.client("worker").await;
    publish(&client, &["k/1", "k/2", "k/3"]).await;
    let mut member = client.join(join("g")).await.unwrap();
    for _ in 0..3 {
        let delivery = next(&mut member).await;
        assert!(member.settler().ack_durable(&delivery.token).await);
    }
    (client, member)
}

#[tokio::test]
async fn a_group_is_reset_only_without_members_and_says_the_number_first() {
    let bus = Bus::start().await;
    let (client, member) = three_settled(&bus).await;
    let (status, refused) = bus.post("/v1/groups/g/reset", json!({ "to": "start" })).await;
    assert_eq!((status, &refused["code"]), (503, &json!("unavailable")), "{refused}");
    member.leave().await;
    let (status, dry) = bus.post("/v1/groups/g/reset", json!({ "to": "1", "dry_run": true })).await;
    assert_eq!((status, &dry["again"], &dry["to"]), (200, &json!("2"), &json!("1")), "{dry}");
    assert_eq!(bus.get("/v1/groups/g").await["lag_events"], "0");
    assert_eq!(bus.post("/v1/groups/g/reset", json!({ "to": "1" })).await.0, 200);
    let mut member = client.join(join("g")).await.unwrap();
    assert_eq!([next(&mut member).await, next(&mut member).await].map(|d| d.event.position.0), [1, 2]);
    for (body, member) in [(json!({ "to": "9" }), "to"), (json!({ "to": -1 }), "to"), (json!({}), "to")] {
        let (status, refused) = bus.post("/v1/groups/g/reset", body).await;
        assert_eq!((status, &refused["code"]), (400, &json!("invalid")), "{refused}");
        let _ = member;
    }
    assert_eq!(bus.post("/v1/groups/none/reset", json!({ "to": "start" })).await.0, 404);
}

#[tokio::test]
async fn settled_by_yields_the_past_and_then_each_settling_in_its_order() {
    let bus = Bus::start().await;
    let client = bus.client("worker").await;
    publish(&client, &["k/1", "k/2", "k/3", "k/4", "k/1"]).await;
    let mut member = client.join(join("g")).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(next(&mut member).await);
    }
    // Settled before: the second. Everything else later, in an order of its own.
    let second = held.remove(1);
    assert!(member.settler().ack_durable(&second.token).await);
    let rebuilding = bus.client("rebuilding").await;
    let filter = Filter { settled_by: Some("g".into()), ..Filter::default() };
    let mut settled = rebuilding.subscribe(Start::START, filter).await.unwrap();
    let mut events = Vec::new();
    let take = async |settled: &mut daybook_client::Subscription, events: &mut Vec<String>| {
        match tokio::time::timeout(Duration::from_secs(20), settled.next()).await.unwrap().unwrap() {
            Item::Event(event) => events.push(format!("{}@{}", subject(&event), event.position)),
            Item::CaughtUp(_) => events.push("caught up".into()),
        }
    };
    take(&mut settled, &mut events).await;
    take(&mut settled, &mut events).await;
    for i in [2, 0] {
        member.ack(&held[i].token).await;
        take(&mut settled, &mut events).await;
    }
    member.nack(&held[1].token, NackAction::Skip, None, None).await;
    take(&mut settled, &mut events).await;
    let last = next(&mut member).await;
    member.ack(&last.token).await;
    take(&mut settled, &mut events).await;
    assert_eq!(events, ["k/2@1", "caught up", "k/4@3", "k/1@0", "k/3@2", "k/1@4"]);
}

#[tokio::test]
async fn a_new_process_of_an_instance_takes_over_at_once() {
    let bus = Bus::start().await;
    let publisher = bus.client("publisher").await;
    publish(&publisher, &["k/1"]).await;
    let old = Client::builder(&bus.url).service("worker").instance("one").connect().await.unwrap();
    let mut member = old.join(join("g")).await.unwrap();
    let first = next(&mut member).await;
    assert_eq!(first.attempt, 1);
    // The process dies without a word, and another is started under its name.
    drop(member);
    drop(old);
    let new = Client::builder(&bus.url).service("worker").instance("one").connect().await.unwrap();
    let mut member = new.join(join("g")).await.unwrap();
    let again = next(&mut member).await;
    assert_eq!(again.event.id, first.event.id);
}

#[tokio::test]
async fn metrics_tell_of_each_group() {
    let bus = Bus::start().await;
    let client = bus.client("worker").await;
    publish(&client, &["k/1", "k/2"]).await;
    let mut member = client.join(join("bank/g")).await.unwrap();
    let first = next(&mut member).await;
    member.nack(&first.token, NackAction::Park, None, None).await;
    until("the parked key is counted", async || {
        let text = bus.http.get(format!("{}/metrics", bus.url)).send().await.unwrap().text().await.unwrap();
        text.contains("daybook_group_parked_keys{group=\"bank/g\",reason=\"session\"} 1\n")
            && text.contains("daybook_group_members{group=\"bank/g\"} 1\n")
            && text.contains("daybook_group_lag_events{group=\"bank/g\"} ")
    })
    .await;
    bus.server.shutdown().await;
}

#[tokio::test]
async fn a_group_begins_where_its_first_member_says() {
    let bus = Bus::start().await;
    let client = bus.client("worker").await;
    publish(&client, &["k/0", "k/1", "k/2"]).await;
    let third = client.read(ReadQuery::default()).await.unwrap().events[2].clone();
    let starts = [
        ("start", Start::START, Some(0)),
        ("end", Start::END, None),
        ("position", Start::Position(Position(1)), Some(1)),
        ("time", Start::Time { time: third.recordedtime }, Some(2)),
    ];
    for (group, start, first) in starts {
        let mut member = client.join(Join { start: Some(start), ..join(group) }).await.unwrap();
        match first {
            Some(first) => assert_eq!(next(&mut member).await.event.position.0, first, "{group}"),
            None => {
                publish(&client, &["k/new"]).await;
                assert_eq!(subject(&next(&mut member).await.event), "k/new");
            }
        }
    }
    let beyond = Join { start: Some(Start::Position(Position(99))), ..join("beyond") };
    let refused = client.join(beyond).await.err().unwrap().to_string();
    assert!(refused.contains("start") && refused.contains("99"), "{refused}");
}

#[tokio::test]
async fn a_member_that_contradicts_the_group_is_refused_by_the_member_of_the_message() {
    let bus = Bus::start().await;
    let first = bus.client("worker").await;
    let _member = first.join(join("g")).await.unwrap();
    let second = bus.client("worker").await;
    let other = Join { filter: Some(Filter::subject("k/1")), ..join("g") };
    let refused = second.join(other).await.err().unwrap().to_string();
    assert!(refused.contains("filter"), "{refused}");
    assert!(second.join(Join { max_attempts: Some(3), ..join("g") }).await.is_err());
    // Who names nothing, or the same, is welcome.
    second.join(Join::new("g", 1)).await.unwrap();
}

#[tokio::test]
async fn a_window_holds_several_events_of_a_key_and_a_failure_fences_all_of_them() {
    let bus = Bus::start().await;
    let client = bus.client("worker").await;
    publish(&client, &["k", "k", "k"]).await;
    let mut member = client.join(Join { window: Some(3), ..join("g") }).await.unwrap();
    let (first, second, third) = (next(&mut member).await, next(&mut member).await, next(&mut member).await);
    let effect = || vec![NewEvent::new(uuid::Uuid::new_v4().to_string(), "Effect")];
    client.publish_with(effect(), Some(&third.token)).await.unwrap();
    // Acked before its time: its claim lives as long as it may come again.
    member.ack(&third.token).await;
    member.ack(&first.token).await;
    member.nack(&second.token, NackAction::Retry, Some(Duration::ZERO), None).await;
    let again = next(&mut member).await;
    assert_eq!((again.event.position, again.attempt), (Position(1), 2));
    let refused = client.publish_with(effect(), Some(&third.token)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Fenced, "{refused:?}");
    member.ack(&again.token).await;
    let last = next(&mut member).await;
    assert_eq!((last.event.position, last.attempt), (Position(2), 1));
}

#[tokio::test]
async fn whoever_follows_what_a_group_has_settled_is_told_that_it_was_reset() {
    let bus = Bus::start().await;
    let (client, member) = three_settled(&bus).await;
    member.leave().await;
    let filter = Filter { settled_by: Some("g".into()), ..Filter::default() };
    let rebuilding = bus.client("rebuilding").await;
    let mut settled = rebuilding.subscribe(Start::START, filter.clone()).await.unwrap();
    let item = async |settled: &mut daybook_client::Subscription| {
        tokio::time::timeout(Duration::from_secs(20), settled.next()).await.unwrap()
    };
    for _ in 0..3 {
        assert!(matches!(item(&mut settled).await, Some(Item::Event(_))));
    }
    assert!(matches!(item(&mut settled).await, Some(Item::CaughtUp(_))));
    let (status, _) = bus.post("/v1/groups/g/reset", json!({ "to": "1" })).await;
    assert_eq!(status, 200);
    assert!(item(&mut settled).await.is_none());
    let why = settled.ended().unwrap();
    assert!(why.code == Code::Unavailable && why.to_string().contains("began anew at 1"), "{why}");
    // Begun again, it sees what the group has settled now, and what it settles next.
    let mut settled = rebuilding.subscribe(Start::START, filter).await.unwrap();
    let mut member = client.join(join("g")).await.unwrap();
    let again = next(&mut member).await;
    member.ack(&again.token).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let Some(Item::Event(event)) = item(&mut settled).await {
            seen.push(event.position.0);
        }
    }
    assert_eq!(seen, [0, 1]);
}

#[tokio::test]
async fn a_checkpoint_that_is_ahead_of_the_log_is_refused_with_both_positions() {
    let dir = tempfile::tempdir().unwrap();
    let (data, old) = (dir.path().join("log"), dir.path().join("old"));
    let config = || Config::new(&data).listen("127.0.0.1:0".parse().unwrap());
    let server = daybook_server::start(config()).await.unwrap();
    let client = Client::builder(&format!("http://{}", server.local_addr())).service("s").connect();
    let client = client.await.unwrap();
    publish(&client, &["k/1"]).await;
    let mut member = client.join(join("g")).await.unwrap();
    let first = next(&mut member).await;
    assert!(member.settler().ack_durable(&first.token).await);
    client.close().await;
    server.shutdown().await;
    copy(&data, &old);
    let server = daybook_server::start(config()).await.unwrap();
    let client = Client::builder(&format!("http://{}", server.local_addr())).service("s").connect();
    let client = client.await.unwrap();
    publish(&client, &["k/2", "k/3"]).await;
    let mut member = client.join(join("g")).await.unwrap();
    for _ in 0..2 {
        let delivery = next(&mut member).await;
        assert!(member.settler().ack_durable(&delivery.token).await);
    }
    client.close().await;
    server.shutdown().await;
    // Somebody puts the old log back, and leaves the checkpoints.
    copy(&data.join("groups"), &dir.path().join("newer"));
    std::fs::remove_dir_all(&data).unwrap();
    copy(&old, &data);
    std::fs::remove_dir_all(data.join("groups")).unwrap();
    copy(&dir.path().join("newer"), &data.join("groups"));
    let refused = daybook_server::start(config()).await.err().unwrap().to_string();
    for part in ["group `g`", "position 3", "ends at 1", "daybook restore"] {
        assert!(refused.contains(part), "{refused}");
    }
    // Both from one time are good.
    std::fs::remove_dir_all(&data).unwrap();
    copy(&old, &data);
    daybook_server::start(config()).await.unwrap().shutdown().await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
