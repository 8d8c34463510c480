//! `daybook publish`: CloudEvents from stdin, receipts to stdout.
//!
//! Lines are sent as they come, many at a time; receipts stand in the order of
//! the lines. A line that is refused is named by its number, and the rest goes on.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{BufWriter, Write};
use std::pin::Pin;

use daybook_client::{PublishError, Receipt};
use daybook_model::{Code, NewEvent, wire};
use tokio::sync::mpsc;

use super::{Bus, Interrupts};
use crate::exit::{self, Failure, PARTLY};

/// Publish events, one JSON object a line (an array is an atomic batch).
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    bus: Bus,
    /// Service name to publish as.
    #[arg(long, default_value = "cli")]
    service: String,
    /// Lines under way at once.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    inflight: u32,
}

type Outcome = Pin<Box<dyn Future<Output = Result<Receipt, PublishError>> + Send>>;

#[derive(Default)]
struct Tally {
    stored: u64,
    duplicates: u64,
    failed: u64,
    first_failure: Option<u8>,
}

impl Tally {
    fn failure(&mut self, line: u64, code: u8, reason: &str) {
        eprintln!("daybook: line {line}: {reason}");
        self.failed += 1;
        self.first_failure.get_or_insert(code);
    }

    fn settle(
        &mut self,
        line: u64,
        outcome: Result<Receipt, PublishError>,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        match outcome {
            Ok(receipt) => {
                self.stored += 1;
                self.duplicates += u64::from(receipt.is_duplicate());
                for event in &receipt.events {
                    serde_json::to_writer(&mut *out, event).map_err(std::io::Error::from)?;
                    out.write_all(b"\n")?;
                }
            }
            Err(error) => self.failure(line, exit::of(error.code()), &error.to_string()),
        }
        Ok(())
    }
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    let client = args.bus.connect(&args.service).await?;
    let mut lines = stdin_lines();
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut waiting: VecDeque<(u64, Outcome)> = VecDeque::new();
    let mut tally = Tally::default();
    let mut number = 0;
    let mut stopped = false;
    loop {
        let full = waiting.len() >= args.inflight as usize;
        tokio::select! {
            line = lines.recv(), if !full && !stopped => {
                let Some(line) = line else { break };
                number += 1;
                if line.trim().is_empty() {
                    continue;
                }
                match parse(&line) {
                    Err(reason) => tally.failure(number, exit::USAGE, &reason),
                    Ok(events) => {
                        // Overloaded here means our own queue: wait for room.
                        let outcome = loop {
                            match client.start_publish(events.clone(), None) {
                                Ok(outcome) => break outcome,
                                Err(error) if error.code() == Code::Overloaded => tokio::task::yield_now().await,
                                Err(error) => return Err(error.into()),
                            }
                        };
                        waiting.push_back((number, Box::pin(outcome)));
                    }
                }
            }
            outcome = async { match waiting.front_mut() {
                Some((_, outcome)) => outcome.await,
                None => std::future::pending().await,
            } } => {
                if let Some((line, _)) = waiting.pop_front() {
                    tally.settle(line, outcome, &mut out)?;
                }
                if waiting.is_empty() {
                    out.flush()?;
                }
            }
            () = interrupts.next(), if !stopped => {
                stopped = true;
                eprintln!("daybook: stopped after line {number}; publish the same input again to go on, stored events are recognised by their ids");
                break;
            }
        }
    }
    for (line, outcome) in waiting {
        tally.settle(line, outcome.await, &mut out)?;
    }
    out.flush()?;
    client.close().await;
    let Tally { stored, duplicates, failed, first_failure } = tally;
    if failed == 0 {
        return if stopped { Err(Failure::new(PARTLY, "")) } else { Ok(()) };
    }
    let code = if stored == 0 { first_failure.unwrap_or(exit::FAILED) } else { PARTLY };
    Err(Failure::new(code, format!("{stored} stored ({duplicates} were known), {failed} refused")))
}

fn parse(line: &str) -> Result<Vec<NewEvent>, String> {
    let parsed = if line.trim_start().starts_with('[') {
        wire::read(line)
    } else {
        wire::read(line).map(|event| vec![event])
    };
    parsed.map_err(|invalid| format!("no CloudEvent: {invalid}"))
}

/// Lines of stdin, read on a thread of their own: stdin cannot be read without blocking.
fn stdin_lines() -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(1_024);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { break };
            if send.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}
