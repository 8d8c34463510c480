//! A group that comes late: everything is in the log before the first member
//! joins. How fast it catches up, and what memory the server needs for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daybook_client::{Client, Join};
use daybook_model::{Filter, NewEvent};
use serde::Serialize;
use tokio::task::JoinSet;

use super::payload;
use super::server::Measured;
use crate::exit::Failure;

/// A service group that works off a backlog.
#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    members: u32,
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// Where the server keeps its log; default the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figures {
    events: u64,
    keys: u64,
    members: u32,
    payload: usize,
    published_per_s: f64,
    settled_per_s: f64,
    /// MiB of the server before the group exists, and the most while it catches up.
    resident_mib_before: Option<u64>,
    resident_mib_most: Option<u64>,
}

/// Events of one batch while the backlog is made.
const BATCH: u64 = 500;
const PUBLISHERS: u64 = 4;

pub async fn run(args: Args) -> Result<(), Failure> {
    let measured = Measured::start(None, args.dir.clone()).await?;
    let begun = Instant::now();
    publish(&measured.bus, &args).await?;
    let published_per_s = args.events as f64 / begun.elapsed().as_secs_f64();
    let resident_mib_before = measured.resident_mib();

    let settled = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut members = JoinSet::new();
    for i in 0..args.members {
        let client =
            Client::builder(&measured.bus).service("bench").instance(format!("m{i}")).connect().await?;
        let join = Join { filter: Some(Filter::types(["Measured"])), ..Join::new("bench", 64) };
        let mut membership = client.join(join).await?;
        let settled = settled.clone();
        members.spawn(async move {
            while let Some(delivery) = membership.next().await {
                membership.ack(&delivery.token).await;
                settled.fetch_add(1, Ordering::Relaxed);
            }
            drop(client);
        });
    }
    let mut resident_mib_most = resident_mib_before;
    let mut told = Instant::now();
    while settled.load(Ordering::Relaxed) < args.events {
        if members.try_join_next().is_some() {
            return Err(Failure::failed("a member lost its place in the group"));
        }
        resident_mib_most = resident_mib_most.max(measured.resident_mib());
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            eprintln!("{} of {} events settled", settled.load(Ordering::Relaxed), args.events);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let settled_per_s = args.events as f64 / begun.elapsed().as_secs_f64();
    members.abort_all();
    measured.stop().await;
    let figures = Figures {
        events: args.events,
        keys: args.keys,
        members: args.members,
        payload: args.payload,
        published_per_s: published_per_s.round(),
        settled_per_s: settled_per_s.round(),
        resident_mib_before,
        resident_mib_most,
    };
    println!("{}", serde_json::to_string(&figures).map_err(std::io::Error::from)?);
    Ok(())
}

async fn publish(bus: &str, args: &Args) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let mut publishers = JoinSet::new();
    for i in 0..PUBLISHERS {
        let client = Client::builder(bus).service("bench").instance(format!("p{i}")).connect().await?;
        let (next, payload) = (next.clone(), payload(args.payload));
        let (events, keys) = (args.events, args.keys);
        publishers.spawn(async move {
            loop {
                let from = next.fetch_add(BATCH, Ordering::Relaxed);
                if from >= events {
                    return Ok::<_, daybook_client::PublishError>(());
                }
                let event = |i: u64| {
                    let key = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
                    NewEvent::new(format!("backlog-{i}"), "Measured")
                        .subject(format!("key/{key}"))
                        .data(payload.clone())
                };
                client.publish((from..events.min(from + BATCH)).map(event).collect()).await?;
            }
        });
    }
    while let Some(publisher) = publishers.join_next().await {
        publisher.map_err(|e| Failure::failed(e.to_string()))??;
    }
    Ok(())
}
