//! What a service costs: a real `daybook run` beside a real bus, each a process
//! of its own, under load from this one.
//!
//! `noop` handles and acks; `handler` decides, evolves and publishes one event
//! on one of 1,000 keys; `accounts` is the bank's own script, each transaction an
//! atomic batch over two accounts; `rebuild` refills a table that counts.
//! The host's CPU is what the kernel says of its process.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use daybook_client::Client;
use daybook_model::{Data, NewEvent};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::hosted::Hosted;
use super::server::Measured;
use crate::commands::Bus;
use crate::commands::http::Http;
use crate::exit::Failure;

/// Events a second through a service, and the host's CPU for each.
#[derive(clap::Args)]
pub struct Args {
    /// What the service does.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Work::Noop, Work::Handler, Work::Accounts, Work::Rebuild])]
    work: Vec<Work>,
    /// Machines of the service; `handler` is measured with one by design.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    instances: u32,
    /// How long events are published.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Events a second; default: as many as the service takes.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Accounts that take part.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..))]
    accounts: u64,
    /// Events that `rebuild` reads.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Where log and state are kept; default the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Work {
    Noop,
    Handler,
    Accounts,
    Rebuild,
}

#[derive(Serialize)]
struct Figures {
    work: Work,
    instances: u32,
    seconds: f64,
    events: u64,
    events_per_s: f64,
    /// Of the host's process, for each event handled.
    host_cpu_us_per_event: f64,
    bus_cpu_us_per_event: f64,
}

const NOOP: &str = r#"
local svc = service("bench", {})
svc:on("Happened", function() end)
"#;

const HANDLER: &str = r#"
local svc = service("bench", {})
local counter = svc:entity("counter", function() return { n = 0 } end)
counter:decide("add", { by = "integer" }, function(state, command) return event("Added", { by = command.by }) end)
counter:evolve("Added", function(state, e) state.n = state.n + e.data.by end)
svc:on("Happened", function(e) counter:send(e.data.key, "add", { by = 1 }) end)
"#;

const REBUILD: &str = r#"
local svc = service("bench", {})
svc:view("sums", { "Happened" }, function(kv, e)
  kv:put(e.data.key, (kv:get(e.data.key) or 0) + 1)
end)
svc:get("/ready", function() return json({}) end)
"#;

const ACCOUNTS: &str = include_str!("../../../../../apps/bank/services/accounts.lua");

impl Work {
    fn script(self) -> &'static str {
        match self {
            Self::Noop => NOOP,
            Self::Handler => HANDLER,
            Self::Accounts => ACCOUNTS,
            Self::Rebuild => REBUILD,
        }
    }

    fn group(self) -> &'static str {
        if self == Self::Accounts { "accounts" } else { "bench" }
    }
}

/// Publishes under way at once, each a batch: the load must not be what is slow.
const WRITERS: u64 = 4;
const BATCH: u64 = 50;
/// Events published and not handled yet, at most.
const AHEAD: u64 = 20_000;

pub async fn run(args: Args) -> Result<(), Failure> {
    for &work in &args.work {
        let figures = if work == Work::Rebuild { rebuild(&args).await? } else { load(&args, work).await? };
        println!("{}", serde_json::to_string(&figures).map_err(std::io::Error::from)?);
    }
    Ok(())
}

/// Publishes for a while and waits until everything is settled.
async fn load(args: &Args, work: Work) -> Result<Figures, Failure> {
    let measured = Measured::start(None, args.dir.clone()).await?;
    let client = Client::builder(&measured.bus).service("bench-load").connect().await?;
    if work == Work::Accounts {
        open_accounts(&client, args.accounts).await?;
    }
    let instances = if work == Work::Handler { 1 } else { args.instances };
    let hosted = Hosted::start(&measured.bus, work.script(), instances, args.dir.clone()).await?;
    let group = Group::new(&measured.bus, work.group())?;
    // What a first event needs is not what the thousandth costs.
    publish(&client, work, 0, BATCH, args.accounts).await?;
    group.settle().await?;
    let (host_before, bus_before) = (hosted.cpu()?, measured.cpu()?);
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(args.seconds);
    let mut writers = JoinSet::new();
    let mut published = BATCH;
    let mut behind = 0;
    while Instant::now() < deadline {
        let due = args.rate.map(|rate| (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64 + BATCH);
        if behind >= AHEAD || due.is_some_and(|due| published >= due) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        } else {
            while writers.len() as u64 >= WRITERS {
                joined(writers.join_next().await)?;
            }
            let (client, first, accounts) = (client.clone(), published, args.accounts);
            writers.spawn(async move { publish(&client, work, first, BATCH, accounts).await });
            published += BATCH;
        }
        if published.is_multiple_of(BATCH * 20) || behind >= AHEAD {
            behind = group.behind().await?;
        }
    }
    while !writers.is_empty() {
        joined(writers.join_next().await)?;
    }
    group.settle().await?;
    let seconds = begun.elapsed().as_secs_f64();
    let (host, bus) = (hosted.cpu()? - host_before, measured.cpu()? - bus_before);
    hosted.stop().await;
    measured.stop().await;
    Ok(figures(work, instances, seconds, published - BATCH, host, bus))
}

fn figures(work: Work, instances: u32, seconds: f64, events: u64, host: Duration, bus: Duration) -> Figures {
    let each = |time: Duration| (time.as_secs_f64() * 1e7 / events as f64).round() / 10.0;
    Figures {
        work,
        instances,
        seconds,
        events,
        events_per_s: (events as f64 / seconds).round(),
        host_cpu_us_per_event: each(host),
        bus_cpu_us_per_event: each(bus),
    }
}

fn joined(outcome: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Result<(), Failure> {
    outcome.map_or(Ok(()), |outcome| outcome.map_err(|error| Failure::failed(error.to_string()))?)
}

async fn publish(client: &Client, work: Work, first: u64, count: u64, accounts: u64) -> Result<(), Failure> {
    let batch = (first..first + count).map(|i| match work {
        Work::Accounts => {
            // Spread, so that neighbours in time are not neighbours in number.
            let from = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % accounts;
            let to = (from + 1 + i % (accounts - 1)) % accounts;
            let amount = json!({ "minor": "1", "currency": "GBP" });
            let data = json!({ "kind": "transfer", "from": from.to_string(), "to": to.to_string(), "amount": amount });
            event("TransactionPending", format!("transaction/{i}"), &data)
        }
        _ => {
            let key = i % 1_000;
            event("Happened", format!("bench/{key}"), &json!({ "key": key.to_string() }))
        }
    });
    let batch = batch.collect::<Result<Vec<_>, _>>()?;
    client.publish(batch).await?;
    Ok(())
}

fn event(kind: &str, subject: String, data: &serde_json::Value) -> Result<NewEvent, Failure> {
    let data = Data::json(data).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(NewEvent::new(uuid::Uuid::now_v7().to_string(), kind).subject(subject).data(data))
}

async fn open_accounts(client: &Client, accounts: u64) -> Result<(), Failure> {
    let numbers: Vec<u64> = (0..accounts).collect();
    for chunk in numbers.chunks(400) {
        let mut batch = Vec::with_capacity(chunk.len() * 2);
        for number in chunk {
            let subject = format!("account/{number}");
            let owner = format!("owner-{}", number / 2);
            let opened = json!({ "number": number.to_string(), "owner": owner, "currency": "GBP" });
            let credited = json!({ "amount": { "minor": "1000000", "currency": "GBP" } });
            batch.push(event("AccountOpened", subject.clone(), &opened)?);
            batch.push(event("Credited", subject, &credited)?);
        }
        client.publish(batch).await?;
    }
    Ok(())
}

/// Fills a log, then lets a fresh service read it.
async fn rebuild(args: &Args) -> Result<Figures, Failure> {
    let measured = Measured::start(None, args.dir.clone()).await?;
    let client = Client::builder(&measured.bus).service("bench-load").connect().await?;
    let mut position = None;
    for first in (0..args.events).step_by(1_000) {
        let count = 1_000.min(args.events - first);
        let batch = (first..first + count).map(|i| {
            let key = i % 10_000;
            event("Happened", format!("bench/{key}"), &json!({ "key": key.to_string() }))
        });
        position = Some(client.publish(batch.collect::<Result<Vec<_>, _>>()?).await?.position());
    }
    let last = position.ok_or_else(|| Failure::failed("nothing was published"))?;
    let bus_before = measured.cpu()?;
    let begun = Instant::now();
    let hosted = Hosted::start(&measured.bus, REBUILD, 1, args.dir.clone()).await?;
    let http = Http::new(&Bus { bus: hosted.url.clone(), token: None })?;
    // The route waits until the table has got there; longer than it waits at once, we ask again.
    while http.get(&format!("/ready?after={last}")).await.is_err() {
        if begun.elapsed() > Duration::from_secs(240) {
            return Err(Failure::failed("the table was not full within 4 minutes"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (host, bus) = (hosted.cpu()?, measured.cpu()? - bus_before);
    hosted.stop().await;
    measured.stop().await;
    Ok(figures(Work::Rebuild, 1, seconds, args.events, host, bus))
}

/// How far the service's group is.
struct Group {
    http: Http,
    path: String,
}

impl Group {
    fn new(bus: &str, group: &str) -> Result<Self, Failure> {
        let http = Http::new(&Bus { bus: bus.to_owned(), token: None })?;
        Ok(Self { http, path: format!("/v1/groups/{group}") })
    }

    /// Events not settled yet, roughly: what lies between counts too.
    async fn behind(&self) -> Result<u64, Failure> {
        let group = self.http.get(&self.path).await?;
        if group["parked"].as_u64() != Some(0) {
            return Err(Failure::failed(format!("the service failed: {group}")));
        }
        let lag = group["lag_events"].as_str().and_then(|lag| lag.parse::<u64>().ok());
        lag.ok_or_else(|| Failure::failed("the bus does not tell the group's lag"))
    }

    async fn settle(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        // The host says where it listens before its first instance has joined.
        while !matches!(self.behind().await, Ok(0)) {
            if begun.elapsed() > Duration::from_secs(120) {
                self.behind().await?;
                return Err(Failure::failed("not everything was handled within two minutes"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}
