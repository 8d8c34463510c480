//! Durable appends over WebSocket: each writer on a key of its own, the next
//! batch sent when the last one's receipt is there. Each writer has a
//! connection of its own, so that the sockets' system calls are half of the
//! work; with `--connections` they share some, as the handlers of a service do.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use daybook_client::Client;
use daybook_model::{Data, NewEvent, Sequence};
use serde::Serialize;

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
    let mut clients = Vec::new();
    let connections = args.connections.unwrap_or(args.writers).min(args.writers);
    for i in 0..connections {
        clients
            .push(Client::builder(&measured.bus).service("bench").instance(i.to_string()).connect().await?);
    }
    let payload = payload(args.payload);
    let syncs_before = measured.metric("daybook_fsync_duration_seconds_count").await?;
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(args.seconds);
    let writers: Vec<_> = (0..args.writers as usize)
        .map(|i| &clients[i % clients.len()])
        .map(|client| tokio::spawn(writer(client.clone(), args.batch, payload.clone(), deadline)))
        .collect();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await.map_err(|e| Failure::failed(e.to_string()))??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    for client in clients {
        client.close().await;
    }
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

/// JSON of exactly `bytes` bytes, 8 at least.
fn payload(bytes: usize) -> Data {
    let text = format!("{{\"p\":\"{}\"}}", "x".repeat(bytes.saturating_sub(8)));
    Data::Json(serde_json::value::RawValue::from_string(text).expect("it is JSON"))
}

/// Microseconds of each acknowledged batch.
async fn writer(client: Client, batch: u32, payload: Data, deadline: Instant) -> Result<Vec<u64>, Failure> {
    // A key that no earlier run on this bus has used.
    let subject = format!("bench/{}", uuid::Uuid::now_v7());
    // Cheap ids: the load generator has the server's cores.
    let run = uuid::Uuid::now_v7();
    let mut latencies = Vec::new();
    let mut sequence = 0;
    while Instant::now() < deadline {
        let events = (0..u64::from(batch))
            .map(|i| {
                NewEvent::new(format!("{run}-{}", sequence + i), "Measured")
                    .subject(subject.as_str())
                    .sequence(Sequence(sequence + i))
                    .data(payload.clone())
            })
            .collect();
        let sent = Instant::now();
        client.publish(events).await?;
        latencies.push(sent.elapsed().as_micros() as u64);
        sequence += u64::from(batch);
    }
    Ok(latencies)
}
