//! Published, delivered, acked: members of one group take what publishers store
//! meanwhile. Every event is acked by the one member that got it. Before, the
//! same server shows what it appends without a group: the one figure says little
//! on a machine that nobody knows, their ratio does.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daybook_client::{Client, Join};
use daybook_model::{Data, Filter, NewEvent};
use serde::Serialize;
use tokio::task::JoinSet;

use super::server::Measured;
use super::{append, payload};
use crate::exit::Failure;

/// Throughput of a service group, end to end.
#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    members: u32,
    /// Members beside them that take what they get and never ack.
    #[arg(long, default_value_t = 0)]
    stuck: u32,
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// Publishes under way at once, over four connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    writers: u32,
    /// Events a second; default: as many as go.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Measure this bus instead of a server of our own.
    #[arg(long)]
    bus: Option<String>,
    /// Where the server of our own keeps its log; default the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figures {
    members: u32,
    stuck: u32,
    keys: u64,
    payload: usize,
    seconds: f64,
    published: u64,
    settled: u64,
    events_per_s: f64,
    /// As many writers on the same server, without a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    append_events_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_append: Option<f64>,
    /// From the publisher's receipt to the member's handler.
    p50_us: u64,
    p99_us: u64,
}

#[derive(Default)]
struct Shared {
    receipts: Mutex<HashMap<u64, Instant>>,
    /// Delivered before the publisher had its receipt: it waits for nobody.
    early: Mutex<HashMap<u64, Instant>>,
    latencies: Mutex<Vec<u64>>,
    settled: AtomicU64,
    done: AtomicBool,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let measured = Measured::start(args.bus.clone(), args.dir.clone()).await?;
    // At a given rate there is nothing to compare.
    let append_events_per_s = match args.rate {
        Some(_) => None,
        None => Some(append::events_per_s(&measured.bus, args.writers, args.payload, args.seconds).await?),
    };
    let shared = Arc::new(Shared::default());
    // A group and a type of its own for each run.
    let name = format!("bench-{}", uuid::Uuid::now_v7());
    let mut members = JoinSet::new();
    for i in 0..args.members + args.stuck {
        let client =
            Client::builder(&measured.bus).service("bench").instance(format!("m{i}")).connect().await?;
        let join = Join { filter: Some(Filter::types([name.as_str()])), ..Join::new(name.as_str(), 64) };
        let membership = client.join(join).await?;
        if i < args.members {
            members.spawn(member(client, membership, shared.clone()));
        } else {
            members.spawn(stuck(client, membership));
        }
    }
    let mut publishers = Vec::new();
    for i in 0..4 {
        publishers
            .push(Client::builder(&measured.bus).service("bench").instance(format!("p{i}")).connect().await?);
    }
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(args.seconds);
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for i in 0..args.writers as usize {
        let load = Load {
            client: publishers[i % publishers.len()].clone(),
            kind: name.clone(),
            payload: payload(args.payload),
            keys: args.keys,
            pause: args.rate.map(|rate| Duration::from_secs_f64(f64::from(args.writers) / f64::from(rate))),
            deadline,
            next: next.clone(),
            shared: shared.clone(),
        };
        writers.spawn(load.run());
    }
    while let Some(writer) = writers.join_next().await {
        writer.map_err(|e| Failure::failed(e.to_string()))??;
    }
    let published = next.load(Ordering::Relaxed);
    // With stuck members the others are measured while they get all they can.
    let mut seconds = begun.elapsed().as_secs_f64();
    let mut settled = shared.settled.load(Ordering::Relaxed);
    while args.stuck == 0 && shared.settled.load(Ordering::Relaxed) < published {
        if begun.elapsed() > Duration::from_secs(args.seconds + 60) {
            return Err(Failure::failed("not everything that was published was delivered within a minute"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if args.stuck == 0 {
        (seconds, settled) = (begun.elapsed().as_secs_f64(), published);
    }
    shared.done.store(true, Ordering::Relaxed);
    members.abort_all();
    measured.stop().await;
    let mut latencies = std::mem::take(&mut *lock(&shared.latencies));
    latencies.sort_unstable();
    let percentile =
        |p: f64| latencies.get(((latencies.len() as f64 - 1.0) * p) as usize).copied().unwrap_or_default();
    let figures = Figures {
        members: args.members,
        stuck: args.stuck,
        keys: args.keys,
        payload: args.payload,
        seconds,
        published,
        settled,
        events_per_s: (settled as f64 / seconds).round(),
        append_events_per_s,
        share_of_append: append_events_per_s
            .map(|append| (settled as f64 / seconds / append.max(1.0) * 100.0).round() / 100.0),
        p50_us: percentile(0.5),
        p99_us: percentile(0.99),
    };
    println!("{}", serde_json::to_string(&figures).map_err(std::io::Error::from)?);
    Ok(())
}

async fn stuck(client: Client, mut membership: daybook_client::Membership) {
    while membership.next().await.is_some() {}
    drop(client);
}

async fn member(client: Client, mut membership: daybook_client::Membership, shared: Arc<Shared>) {
    while let Some(delivery) = membership.next().await {
        let (position, now) = (delivery.event.position.0, Instant::now());
        // Under one lock, so that receipt and delivery always meet.
        let receipt = {
            let mut receipts = lock(&shared.receipts);
            let receipt = receipts.remove(&position);
            if receipt.is_none() {
                lock(&shared.early).insert(position, now);
            }
            receipt
        };
        if let Some(receipt) = receipt {
            lock(&shared.latencies).push(now.duration_since(receipt).as_micros() as u64);
        }
        membership.ack(&delivery.token).await;
        shared.settled.fetch_add(1, Ordering::Relaxed);
    }
    drop(client);
}

struct Load {
    client: Client,
    kind: String,
    payload: Data,
    keys: u64,
    pause: Option<Duration>,
    deadline: Instant,
    next: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

impl Load {
    async fn run(self) -> Result<(), Failure> {
        while Instant::now() < self.deadline {
            let begun = Instant::now();
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            // Spread over the keys, not one after the other.
            let key = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.keys;
            let event = NewEvent::new(format!("{}-{i}", self.kind), self.kind.as_str())
                .subject(format!("{}/{key}", self.kind))
                .data(self.payload.clone());
            let receipt = self.client.publish(vec![event]).await?;
            let (position, now) = (receipt.position().0, Instant::now());
            {
                let mut receipts = lock(&self.shared.receipts);
                if lock(&self.shared.early).remove(&position).is_some() {
                    lock(&self.shared.latencies).push(0);
                } else {
                    receipts.insert(position, now);
                }
            }
            if let Some(pause) = self.pause {
                tokio::time::sleep_until((begun + pause).into()).await;
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}
