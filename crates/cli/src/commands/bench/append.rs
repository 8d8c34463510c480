//! Durable appends over WebSocket: each writer on a key of its own, the next
//! batch sent when the last one's receipt is there. Each writer has a
//! connection of its own, so that the sockets' system calls are half of the
//! work; with `--connections` they share some, as the handlers of a service do.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use daybook_client::Client;
use daybook_model::{Data, NewEvent, Sequence, wire};
use serde::Serialize;

use super::lean::Lean;
use super::payload;
use super::server::Measured;
use crate::exit::Failure;
use crate::output::Format;

/// Durable appends with a sequence check, over WebSocket.
#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    writers: u32,
    /// Sockets that the writers share; default: each writer its own.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    connections: Option<u32>,
    /// Publish through the SDK even if each writer has a connection of its own.
    #[arg(long)]
    sdk: bool,
    /// Events of one atomic batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch: u32,
    /// Bytes of JSON data per event.
    #[arg(long, default_value_t = 256)]
    payload: usize,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    #[arg(long, value_enum)]
    output: Option<Format>,
    /// Measure this bus instead of a server of our own.
    #[arg(long)]
    bus: Option<String>,
    /// Where the server of our own keeps its log; default the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figures {
    writers: u32,
    connections: u32,
    batch: u32,
    payload: usize,
    seconds: f64,
    events: u64,
    events_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    syncs_per_s: f64,
    events_per_sync: f64,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let measured = Measured::start(args.bus.clone(), args.dir.clone()).await?;
    let connections = args.connections.unwrap_or(args.writers).min(args.writers);
    let writers = Writers::connect(&args, connections, &measured.bus).await?;
    let syncs_before = measured.metric("daybook_fsync_duration_seconds_count").await?;
    let begun = Instant::now();
    let mut latencies = writers.run(&args, begun + Duration::from_secs(args.seconds)).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let syncs = measured.metric("daybook_fsync_duration_seconds_count").await? - syncs_before;
    measured.stop().await;
    latencies.sort_unstable();
    let events = latencies.len() as u64 * u64::from(args.batch);
    let percentile =
        |p: f64| latencies.get(((latencies.len() as f64 - 1.0) * p) as usize).copied().unwrap_or_default();
    let figures = Figures {
        writers: args.writers,
        connections,
        batch: args.batch,
        payload: args.payload,
        seconds,
        events,
        events_per_s: (events as f64 / seconds).round(),
        p50_us: percentile(0.5),
        p99_us: percentile(0.99),
        syncs_per_s: (syncs / seconds).round(),
        events_per_sync: (events as f64 / syncs.max(1.0) * 10.0).round() / 10.0,
    };
    match Format::or_default(args.output) {
        Format::Table => println!(
            "{} writers on {} connections, batches of {}, {} bytes: {} events/s, p50 {} µs, p99 {} µs, {} syncs/s, {} events per sync",
            figures.writers,
            figures.connections,
            figures.batch,
            figures.payload,
            figures.events_per_s,
            figures.p50_us,
            figures.p99_us,
            figures.syncs_per_s,
            figures.events_per_sync
        ),
        _ => println!("{}", serde_json::to_string(&figures).map_err(std::io::Error::from)?),
    }
    Ok(())
}

/// Events per second of as many writers, each with a connection of its own: what
/// other figures are held against.
pub(super) async fn events_per_s(
    bus: &str,
    writers: u32,
    payload: usize,
    seconds: u64,
) -> Result<f64, Failure> {
    let (connections, sdk, batch, output, bus_of_args, dir) = (None, false, 1, None, None, None);
    let args = Args { writers, connections, sdk, batch, payload, seconds, output, bus: bus_of_args, dir };
    let connected = Writers::connect(&args, writers, bus).await?;
    let begun = Instant::now();
    let events = connected.run(&args, begun + Duration::from_secs(seconds)).await?.len();
    Ok((events as f64 / begun.elapsed().as_secs_f64()).round())
}

/// Who publishes: lean connections, or the SDK where writers share some.
enum Writers {
    Lean(Vec<Lean>),
    Sdk(Vec<Client>),
}

impl Writers {
    async fn connect(args: &Args, connections: u32, bus: &str) -> Result<Self, Failure> {
        if connections == args.writers && !args.sdk {
            let mut all = Vec::new();
            for i in 0..connections {
                all.push(Lean::connect(bus, &i.to_string()).await?);
            }
            return Ok(Self::Lean(all));
        }
        let mut all = Vec::new();
        for i in 0..connections {
            all.push(Client::builder(bus).service("bench").instance(i.to_string()).connect().await?);
        }
        Ok(Self::Sdk(all))
    }

    /// Microseconds of every acknowledged batch.
    async fn run(self, args: &Args, deadline: Instant) -> Result<Vec<u64>, Failure> {
        let load = Load { batch: args.batch, payload: payload(args.payload), deadline };
        let mut tasks = tokio::task::JoinSet::new();
        match self {
            Self::Lean(all) => all.into_iter().for_each(|lean| {
                tasks.spawn(load.clone().by_hand(lean));
            }),
            Self::Sdk(all) => (0..args.writers as usize).for_each(|i| {
                tasks.spawn(load.clone().by_sdk(all[i % all.len()].clone()));
            }),
        }
        let mut latencies = Vec::new();
        while let Some(writer) = tasks.join_next().await {
            latencies.extend(writer.map_err(|e| Failure::failed(e.to_string()))??);
        }
        Ok(latencies)
    }
}

/// What each writer does.
#[derive(Clone)]
struct Load {
    batch: u32,
    payload: Data,
    deadline: Instant,
}

impl Load {
    /// Events of the next batch, of a key that no earlier run on this bus has used.
    fn events(&self, run: uuid::Uuid, sequence: u64) -> Vec<NewEvent> {
        (sequence..sequence + u64::from(self.batch))
            .map(|sequence| {
                NewEvent::new(format!("{run}-{sequence}"), "Measured")
                    .subject(format!("bench/{run}"))
                    .sequence(Sequence(sequence))
                    .data(self.payload.clone())
            })
            .collect()
    }

    async fn by_hand(self, mut lean: Lean) -> Result<Vec<u64>, Failure> {
        let (run, mut sequence, mut latencies) = (uuid::Uuid::now_v7(), 0, Vec::new());
        while Instant::now() < self.deadline {
            let id = latencies.len() as u64 + 2;
            let publish = wire::Publish { id, events: self.events(run, sequence).into(), delivery: None };
            let mut frame = Vec::with_capacity(512);
            wire::write_frame(&[wire::ClientMessage::from(publish)], &mut frame);
            let frame = String::from_utf8(frame).expect("JSON is UTF-8");
            let sent = Instant::now();
            lean.call(frame).await?;
            latencies.push(sent.elapsed().as_micros() as u64);
            sequence += u64::from(self.batch);
        }
        Ok(latencies)
    }

    async fn by_sdk(self, client: Client) -> Result<Vec<u64>, Failure> {
        let (run, mut sequence, mut latencies) = (uuid::Uuid::now_v7(), 0, Vec::new());
        while Instant::now() < self.deadline {
            let events = self.events(run, sequence);
            let sent = Instant::now();
            client.publish(events).await?;
            latencies.push(sent.elapsed().as_micros() as u64);
            sequence += u64::from(self.batch);
        }
        Ok(latencies)
    }
}
