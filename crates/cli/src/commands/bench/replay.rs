//! One reader reads everything there is, over WebSocket, every event parsed.

use std::path::PathBuf;
use std::time::Instant;

use daybook_model::wire::{self, Count, Pushed, ServerMessage, Start};
use daybook_model::{Data, NewEvent};
use serde::Serialize;

use super::lean::Lean;
use super::payload;
use super::server::Measured;
use crate::exit::Failure;
use crate::output::Format;

/// A full replay by one subscriber, parsed.
#[derive(clap::Args)]
pub struct Args {
    /// Published first, in batches of 1,000.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Bytes of JSON data per event.
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// Read so many times; the median is told.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    #[arg(long, value_enum)]
    output: Option<Format>,
    /// Measure this bus instead of a server of our own; what it holds is read too.
    #[arg(long)]
    bus: Option<String>,
    /// Where the server of our own keeps its log; default the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figures {
    events: u64,
    payload: usize,
    rounds: u32,
    events_per_s: u64,
    slowest_events_per_s: u64,
    fastest_events_per_s: u64,
}

const BATCH: u64 = 1_000;
/// Events the server may be ahead of the reader.
const WINDOW: u64 = 8_192;

pub async fn run(args: Args) -> Result<(), Failure> {
    let measured = Measured::start(args.bus.clone(), args.dir.clone()).await?;
    let events = fill(&measured.bus, &args).await?;
    let mut speeds = Vec::new();
    for _ in 0..args.rounds {
        let begun = Instant::now();
        replay(&measured.bus, events).await?;
        speeds.push((events as f64 / begun.elapsed().as_secs_f64()) as u64);
    }
    measured.stop().await;
    speeds.sort_unstable();
    let figures = Figures {
        events,
        payload: args.payload,
        rounds: args.rounds,
        events_per_s: speeds[speeds.len() / 2],
        slowest_events_per_s: speeds[0],
        fastest_events_per_s: speeds[speeds.len() - 1],
    };
    match Format::or_default(args.output) {
        Format::Table => println!(
            "{} events of {} bytes read and parsed: {} events/s ({} to {})",
            figures.events,
            figures.payload,
            figures.events_per_s,
            figures.slowest_events_per_s,
            figures.fastest_events_per_s
        ),
        _ => println!("{}", serde_json::to_string(&figures).map_err(std::io::Error::from)?),
    }
    Ok(())
}

/// Publishes what is asked for; returns how many events the log holds then.
async fn fill(bus: &str, args: &Args) -> Result<u64, Failure> {
    let mut lean = Lean::connect(bus, "fill").await?;
    let (run, data, mut next, mut last) = (uuid::Uuid::now_v7(), payload(args.payload), 0, 0);
    while next < args.events {
        let until = (next + BATCH).min(args.events);
        let events: Vec<_> = (next..until).map(|i| numbered(&run, i, &data)).collect();
        let publish = wire::Publish { id: next + 2, events: events.into(), delivery: None };
        match lean.call(frame(publish)).await? {
            ServerMessage::Receipt(receipt) => last = receipt.events.last().map_or(last, |e| e.position.0),
            other => return Err(Failure::failed(format!("the bus answered `publish` with {other:?}"))),
        }
        next = until;
    }
    Ok(last + 1)
}

fn numbered(run: &uuid::Uuid, i: u64, data: &Data) -> NewEvent {
    NewEvent::new(format!("{run}-{i}"), "Measured")
        .subject(format!("account/{}", i % 1_000))
        .data(data.clone())
}

async fn replay(bus: &str, events: u64) -> Result<(), Failure> {
    let mut lean = Lean::connect(bus, "replay").await?;
    let from = Start::START;
    // Without credit at first: no events come in the frame of the answer.
    let subscribe = wire::Subscribe { id: 2, from, filter: None, credit: Count(0) };
    let ServerMessage::Subscribed(wire::Subscribed { subscription, .. }) =
        lean.call(frame(subscribe)).await?
    else {
        return Err(Failure::failed("the bus did not answer `subscribe` with `subscribed`"));
    };
    lean.send(frame(wire::Credit { subscription, events: Count(WINDOW) })).await?;
    let (mut read, mut credit) = (0, 0);
    while read < events {
        let mut wrong = None;
        let text = lean.frame().await?;
        wire::messages::<Pushed<'_>>(&text, |message| match message {
            Ok(Pushed::Events(m)) => {
                let positions = m.events.iter().map(|event| event.position.0);
                let in_order = positions.eq(read..read + m.events.len() as u64);
                read += m.events.len() as u64;
                credit += m.events.len() as u64;
                if !in_order || m.events.iter().any(|event| event.data.is_none()) {
                    wrong = Some(format!("a gap or an event without data before position {read}"));
                }
            }
            Ok(Pushed::Other(ServerMessage::Error(error))) => wrong = Some(error.problem.to_string()),
            Ok(Pushed::Receipt(_) | Pushed::Other(_)) => {}
            Err(malformed) => wrong = Some(malformed.invalid.to_string()),
        });
        if let Some(wrong) = wrong {
            return Err(Failure::failed(wrong));
        }
        if credit >= WINDOW / 4 {
            lean.send(frame(wire::Credit { subscription, events: Count(credit) })).await?;
            credit = 0;
        }
    }
    Ok(())
}

fn frame(message: impl Into<wire::ClientMessage>) -> String {
    let mut frame = Vec::with_capacity(512);
    wire::write_frame(&[message.into()], &mut frame);
    String::from_utf8(frame).expect("JSON is UTF-8")
}
