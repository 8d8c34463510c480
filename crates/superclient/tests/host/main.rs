//! The host's promises, with a real bus on disk and real scripts.

#![allow(clippy::unwrap_used)]

mod api;
mod asking;
mod bodies;
mod chance;
mod consistency;
mod hostile;
mod hosts;
mod limits;
mod rebuild;
mod redis_server;
mod reload;
mod sandbox;
mod timers;
mod values;
mod views;

use std::collections::HashMap;
use std::time::Duration;

use daybook_client::{Client, ReadQuery};
use daybook_model::{Event, Filter, NewEvent};
use daybook_server::Server;
use daybook_superclient::{Config, Host, Limits, Reload, Script, StartError, StateLocation};
use serde_json::Value;

pub struct World {
    pub server: Server,
    pub bus: String,
    pub dir: tempfile::TempDir,
    http: reqwest::Client,
}

pub struct Running {
    pub host: Host,
    url: String,
    http: reqwest::Client,
}

impl World {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config =
            daybook_server::Config::new(dir.path().join("log")).listen("127.0.0.1:0".parse().unwrap());
        let server = daybook_server::start(config).await.unwrap();
        let bus = format!("http://{}", server.local_addr());
        Self { server, bus, dir, http: reqwest::Client::new() }
    }

    pub async fn try_run(&self, scripts: &[(&str, &str)], name: &str) -> Result<Running, StartError> {
        self.run_with(scripts, name, Limits { compute: Duration::from_millis(200), ..Limits::default() })
            .await
    }

    /// One service that knows others by their addresses.
    pub async fn run_beside(&self, text: &str, services: &[(&str, &str)]) -> Running {
        let mut config =
            self.config("beside", vec![Script::Source { name: "near.lua".into(), text: text.into() }]);
        config.services = services.iter().map(|(name, url)| ((*name).into(), (*url).into())).collect();
        self.start_host(config).await.unwrap()
    }

    pub async fn run_with(
        &self,
        scripts: &[(&str, &str)],
        name: &str,
        limits: Limits,
    ) -> Result<Running, StartError> {
        let script =
            |(name, text): &(&str, &str)| Script::Source { name: (*name).into(), text: (*text).into() };
        let mut config = self.config(name, scripts.iter().map(script).collect());
        config.limits = limits;
        self.start_host(config).await
    }

    /// One service from a file that may change, in two instances.
    pub async fn run_file(&self, path: &std::path::Path) -> Running {
        self.try_run_file(path).await.unwrap()
    }

    pub async fn try_run_file(&self, path: &std::path::Path) -> Result<Running, StartError> {
        let mut config = self.config("file", vec![Script::File(path.to_owned())]);
        config.instances = 2;
        self.start_host(config).await
    }

    pub fn config(&self, name: &str, scripts: Vec<Script>) -> Config {
        Config {
            bus: self.bus.clone(),
            scripts,
            state: StateLocation::Dir(self.dir.path().join(format!("state-{name}"))),
            listen: "127.0.0.1:0".parse().unwrap(),
            instances: 1,
            token: None,
            instance_name: name.into(),
            services: HashMap::new(),
            limits: Limits::default(),
            reload: Reload::default(),
        }
    }

    pub async fn start_host(&self, config: Config) -> Result<Running, StartError> {
        let host = daybook_superclient::start(config).await?;
        let url = format!("http://{}", host.local_addr());
        Ok(Running { host, url, http: self.http.clone() })
    }

    pub async fn run(&self, text: &str) -> Running {
        self.try_run(&[("script.lua", text)], "one").await.unwrap()
    }

    pub async fn client(&self) -> Client {
        Client::builder(&self.bus).service("test").connect().await.unwrap()
    }

    pub async fn events(&self, types: &[&str]) -> Vec<Event> {
        let client = self.client().await;
        let query = ReadQuery { filter: Filter::types(types.iter().copied()), ..ReadQuery::default() };
        let mut events = Vec::new();
        let each = |event: std::sync::Arc<Event>| {
            events.push((*event).clone());
            Ok::<_, daybook_client::ReadError>(())
        };
        client.read_all(query, each).await.unwrap();
        events
    }

    /// Publishes one event of this type and waits until `answer` events came of it.
    pub async fn cause(&self, kind: &str, subject: &str) -> String {
        self.cause_with(kind, subject, &serde_json::json!({})).await
    }

    pub async fn cause_with(&self, kind: &str, subject: &str, data: &serde_json::Value) -> String {
        let id = uuid::Uuid::now_v7().to_string();
        let event =
            NewEvent::new(id.as_str(), kind).subject(subject).data(daybook_model::Data::json(data).unwrap());
        self.client().await.publish(vec![event]).await.unwrap();
        id
    }

    pub async fn wait_for(&self, kind: &str, count: usize) -> Vec<Event> {
        for _ in 0..2_000 {
            let events = self.events(&[kind]).await;
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} events of {kind} never came");
    }
}

impl Running {
    /// After a machine was thrown away, the next one answers.
    pub async fn comes_back(&self, path: &str) {
        for _ in 0..1_000 {
            if self.get(path).await.0 == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{path} did not come back");
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
    }

    pub async fn post(&self, path: &str, body: &str, key: Option<&str>) -> (u16, Value) {
        let mut request = self.http.post(format!("{}{path}", self.url));
        request = request.header("content-type", "application/json").body(body.to_owned());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
    }

    /// Rows of a service's tables, as `daybook state` shows them.
    pub async fn dump(&self, service: &str) -> Vec<String> {
        let path = format!("{}/-/services/{service}/state", self.url);
        let answer = self.http.get(path).header("daybook-state", "1").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap().lines().map(str::to_owned).collect()
    }

    /// Rebuilds, and returns the lines that told how far it was.
    pub async fn rebuild(&self, service: &str) -> Vec<Value> {
        let path = format!("{}/-/services/{service}/rebuild", self.url);
        let answer = self.http.post(path).header("daybook-state", "1").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What `daybook reload` is told.
    pub async fn reload(&self, service: &str) -> String {
        let path = format!("{}/-/reload/{service}", self.url);
        let answer = self.http.post(path).header("daybook-reload", "1").send().await.unwrap();
        answer.text().await.unwrap()
    }

    /// What an expression is, as a route of a fresh script says it.
    pub async fn ok(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}
