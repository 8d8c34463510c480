//! The bank on real parts: store on disk, server, Lua host, backend.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use daybook_bank_web::Web;
use daybook_client::{Client, ReadQuery};
use daybook_model::Event;
use daybook_server::Server;
use daybook_superclient::{Host, Limits, Script, StateLocation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

struct Bank {
    server: Server,
    host: Host,
    web: Web,
    bus: String,
    url: String,
    dir: tempfile::TempDir,
}

fn services() -> Vec<Script> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services");
    ["users.lua", "accounts.lua", "transactions.lua", "reporting.lua"]
        .iter()
        .map(|name| Script::File(dir.join(name)))
        .collect()
}

async fn start(dir: tempfile::TempDir) -> Bank {
    let any = "127.0.0.1:0".parse().unwrap();
    let config = daybook_server::Config::new(dir.path().join("log")).listen(any);
    let server = daybook_server::start(config).await.unwrap();
    let bus = format!("http://{}", server.local_addr());
    let host = daybook_superclient::start(daybook_superclient::Config {
        bus: bus.clone(),
        scripts: services(),
        state: StateLocation::Dir(dir.path().join("state")),
        listen: any,
        instances: 1,
        token: Some("secret".into()),
        instance_name: "test".into(),
        services: HashMap::new(),
        limits: Limits::default(),
        reload: daybook_superclient::Reload::default(),
    })
    .await
    .unwrap();
    let services = format!("http://{}", host.local_addr());
    let config = daybook_bank_web::Config { listen: any, services, token: "secret".into() };
    let web = daybook_bank_web::start(config).await.unwrap();
    let url = format!("http://{}", web.local_addr());
    Bank { server, host, web, bus, url, dir }
}

impl Bank {
    async fn stop(self) -> tempfile::TempDir {
        self.web.shutdown().await;
        self.host.shutdown().await;
        self.server.shutdown().await;
        self.dir
    }

    async fn events(&self) -> Vec<Event> {
        let client = Client::builder(&self.bus).service("auditor").connect().await.unwrap();
        let mut events = Vec::new();
        let each = |event: std::sync::Arc<Event>| {
            events.push((*event).clone());
            Ok::<_, daybook_client::ReadError>(())
        };
        client.read_all(ReadQuery::default(), each).await.unwrap();
        client.close().await;
        events
    }

    async fn person(&self, name: &str) -> Person {
        let mut person =
            Person { url: self.url.clone(), http: reqwest::Client::new(), cookie: String::new() };
        let body = json!({ "username": name, "password": "correct horse" });
        let answer = person.http.post(format!("{}/api/users", self.url)).json(&body).send().await.unwrap();
        let mut answer = if answer.status() == 409 {
            person.http.post(format!("{}/api/sessions", self.url)).json(&body).send().await.unwrap()
        } else {
            answer
        };
        let cookie = answer.headers_mut().remove("set-cookie").unwrap();
        person.cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        person
    }
}

#[derive(Clone)]
struct Person {
    url: String,
    http: reqwest::Client,
    cookie: String,
}

impl Person {
    async fn post(&self, path: &str, key: &str, body: Value) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.url)).header("cookie", &self.cookie);
        let answer = request.header("idempotency-key", key).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer =
            self.http.get(format!("{}{path}", self.url)).header("cookie", &self.cookie).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn account(&self, currency: &str) -> String {
        let (status, body) =
            self.post("/api/accounts", &format!("open-{currency}"), json!({ "currency": currency })).await;
        assert_eq!(status, 201, "{body}");
        body["account"]["number"].as_str().unwrap().to_owned()
    }

    /// Starts a transaction and waits for its outcome.
    async fn settle(&self, key: &str, body: Value) -> Value {
        let (status, started) = self.post("/api/transactions", key, body).await;
        assert_eq!(status, 202, "{started}");
        let id = started["transaction"]["id"].as_str().unwrap().to_owned();
        loop {
            let (_, transaction) = self.get(&format!("/api/transactions/{id}")).await;
            if transaction["state"] != "pending" {
                return transaction;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn deposit(&self, to: &str, minor: i64) {
        let done = self
            .settle(
                &format!("deposit-{to}-{minor}"),
                json!({ "kind": "deposit", "to": to, "amount": gbp(minor) }),
            )
            .await;
        assert_eq!(done["state"], "accepted", "{done}");
    }
}

fn gbp(minor: i64) -> Value {
    json!({ "minor": minor.to_string(), "currency": "GBP" })
}

fn transfer(from: &str, to: &str, minor: i64) -> Value {
    json!({ "kind": "transfer", "from": from, "to": to, "amount": gbp(minor) })
}

/// Replays the log: nothing created or lost, nothing below zero, at any batch boundary.
fn audit(events: &[Event]) -> HashMap<String, i64> {
    let mut balances: HashMap<String, i64> = HashMap::new();
    for (i, event) in events.iter().enumerate() {
        let sign = match event.kind.as_str() {
            "Credited" => 1,
            "Debited" => -1,
            _ => continue,
        };
        let data: Value = event.data_as().unwrap();
        let minor: i64 = data["amount"]["minor"].as_str().unwrap().parse().unwrap();
        *balances.entry(event.subject.clone().unwrap()).or_default() += sign * minor;
        let ends = events.get(i + 1).is_none_or(|next| next.batch.map(|b| b.0) != event.batch.map(|b| b.0));
        if ends || events[i + 1].kind == "TransactionAccepted" {
            assert_eq!(balances.values().sum::<i64>(), 0, "at {}", event.position);
            let below = balances.iter().find(|(account, balance)| !account.contains("cash") && **balance < 0);
            assert_eq!(below, None, "at {}", event.position);
        }
    }
    balances
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_transfers_of_the_full_balance_one_is_accepted() {
    let bank = start(tempfile::tempdir().unwrap()).await;
    let (ada, grace) = (bank.person("ada").await, bank.person("grace").await);
    let (from, to) = (ada.account("GBP").await, grace.account("GBP").await);
    ada.deposit(&from, 5_000).await;
    let all = (0..50).map(|i| {
        let (ada, body) = (ada.clone(), transfer(&from, &to, 5_000));
        tokio::spawn(async move { ada.settle(&format!("all-{i}"), body).await })
    });
    let mut accepted = 0;
    for outcome in all.collect::<Vec<_>>() {
        let outcome = outcome.await.unwrap();
        match outcome["state"].as_str().unwrap() {
            "accepted" => accepted += 1,
            _ => assert_eq!(outcome["reason"], "insufficient_funds"),
        }
    }
    assert_eq!(accepted, 1);
    let balances = audit(&bank.events().await);
    assert_eq!(balances[&format!("account/{to}")], 5_000);
    bank.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_one_transfer_and_another_body_is_refused() {
    let bank = start(tempfile::tempdir().unwrap()).await;
    let (ada, grace) = (bank.person("ada").await, bank.person("grace").await);
    let (from, to) = (ada.account("GBP").await, grace.account("GBP").await);
    ada.deposit(&from, 5_000).await;
    let first = ada.settle("k", transfer(&from, &to, 100)).await;
    let again = ada.settle("k", transfer(&from, &to, 100)).await;
    assert_eq!(first["id"], again["id"]);
    let (status, other) = ada.post("/api/transactions", "k", transfer(&from, &to, 101)).await;
    assert_eq!((status, other["code"].as_str()), (409, Some("id-conflict")));
    assert_eq!(audit(&bank.events().await)[&format!("account/{to}")], 100);
    bank.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn form_errors_have_a_code_each_and_make_no_event() {
    let bank = start(tempfile::tempdir().unwrap()).await;
    let (ada, grace) = (bank.person("ada").await, bank.person("grace").await);
    let (mine, theirs) = (ada.account("GBP").await, grace.account("GBP").await);
    // What follows the opening of an account may still be on its way.
    let transactions = async || {
        let events = bank.events().await;
        events.iter().filter(|e| e.subject.as_deref().is_some_and(|s| s.starts_with("transaction/"))).count()
    };
    let amount = |minor: &str, currency: &str| json!({ "kind": "transfer", "from": mine, "to": theirs, "amount": { "minor": minor, "currency": currency } });
    for (body, code) in [
        (amount("0", "GBP"), "zero_amount"),
        (amount("-1", "GBP"), "negative_amount"),
        (amount("1.5", "GBP"), "invalid_amount"),
        (amount("99999999999999999999", "GBP"), "amount_too_large"),
        (amount("1", "ZZZ"), "invalid_currency"),
        (transfer(&mine, &mine, 1), "same_account"),
        (json!({ "kind": "gift", "amount": gbp(1) }), "unknown_kind"),
        (json!({ "kind": "transfer", "from": mine, "amount": gbp(1) }), "missing_field"),
    ] {
        let (status, problem) = ada.post("/api/transactions", "k", body).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some(code)), "{problem}");
    }
    assert_eq!(transactions().await, 0);
    // What only an authority knows is a rejected transaction.
    let unknown = ada.settle("u", transfer(&mine, "1111111111", 1)).await;
    assert_eq!(unknown["reason"], "unknown_account");
    assert!(transactions().await > 0, "transactions are not where this test looks for them");
    let euro = ada.account("EUR").await;
    assert_eq!(ada.settle("c", transfer(&mine, &euro, 1)).await["reason"], "currency_mismatch");
    // Rights: another's account as source, as statement; the refusals are recorded.
    let (status, problem) = ada.post("/api/transactions", "k", transfer(&theirs, &mine, 1)).await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("not_your_account")));
    assert_eq!(ada.get(&format!("/api/accounts/{theirs}/statement")).await.0, 404);
    let refusals = bank.events().await.iter().filter(|event| event.kind == "AccessRefused").count();
    assert_eq!(refusals, 2);
    let nobody = Person { cookie: String::new(), ..ada };
    assert_eq!(nobody.get("/api/init").await.0, 401);
    bank.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_conserved_in_a_ring_and_over_a_restart() {
    let bank = start(tempfile::tempdir().unwrap()).await;
    let mut ring = Vec::new();
    for name in ["ada", "grace", "tom"] {
        let person = bank.person(name).await;
        let number = person.account("GBP").await;
        person.deposit(&number, 1_000).await;
        ring.push((person, number));
    }
    let clients = (0..6).map(|client| {
        let ring = ring.clone();
        tokio::spawn(async move {
            for i in 0..25 {
                let (person, from) = &ring[(client + i) % 3];
                let (_, to) = &ring[(client + i + 1) % 3];
                person.settle(&format!("{client}-{i}"), transfer(from, to, 7 * (i as i64 + 1))).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let before = bank.events().await;
    let balances = audit(&before);
    let outcomes =
        before.iter().filter(|e| ["TransactionAccepted", "TransactionRejected"].contains(&e.kind.as_str()));
    assert_eq!(outcomes.count(), 153);
    let dir = bank.stop().await;

    let bank = start(dir).await;
    assert_eq!(bank.events().await, before);
    let ada = bank.person("ada").await;
    let number = &ring[0].1;
    let (_, statement) =
        ada.get(&format!("/api/accounts/{number}/statement?after={}", before.len() - 1)).await;
    assert_eq!(statement["closing"], gbp(balances[&format!("account/{number}")]));
    let mut sum: i64 = statement["opening"]["minor"].as_str().unwrap().parse().unwrap();
    for line in statement["lines"].as_array().unwrap() {
        sum += line["amount"]["minor"].as_str().unwrap().parse::<i64>().unwrap();
        assert_eq!(line["balance"], gbp(sum));
    }
    assert_eq!(statement["closing"], gbp(sum));
    bank.stop().await;
}

/// See `ui/scripts/stamp.mjs` for what is hashed.
#[test]
fn the_built_page_is_as_new_as_its_sources() {
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui");
    let mut files: Vec<PathBuf> =
        ["index.html", "package-lock.json", "package.json", "tsconfig.json", "vite.config.ts"]
            .map(PathBuf::from)
            .to_vec();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(ui.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let mut names: Vec<String> = files.iter().map(|file| file.to_str().unwrap().to_owned()).collect();
    names.sort();
    let mut hash = Sha256::new();
    for name in names {
        let bytes = std::fs::read(ui.join(&name)).unwrap();
        hash.update(format!("{name}\0{}\0", bytes.len()));
        hash.update(&bytes);
    }
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let stamp: Value = serde_json::from_slice(&std::fs::read(ui.join("dist/BUILD.json")).unwrap()).unwrap();
    assert_eq!(stamp["sources"], hash.as_str(), "run `npm run build` in apps/bank/ui and commit dist");
}
