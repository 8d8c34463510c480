//! `daybook import`: publish what `daybook export` (or anybody else) wrote as
//! NDJSON.
//!
//! # Promises
//! 1. The events come into the log in the order of the file, a batch of the old
//!    log as a batch. Into an empty log, a whole export takes its old positions.
//! 2. Ids, times, causes, sequences and data are what the file says; who
//!    published them and when they were accepted is this log's to say.
//! 3. Importing a file again publishes nothing twice: ids are unique for ever.
//! 4. A refused line is named by its number, and the rest goes on.
//!
//! # After an interruption
//! What was sent is answered first; then it tells where to go on.

mod units;

use std::collections::VecDeque;
use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use daybook_client::{Client, PublishError, Receipt};
use daybook_model::{Code, Position};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Bus, Interrupts};
use crate::exit::{self, Failure, PARTLY};
use crate::output::Format;
use crate::progress::Progress;
use units::{Read, Unit};

/// Publish events from a file of NDJSON, such as `daybook export` writes.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    bus: Bus,
    /// The file to read; `-` is stdin.
    file: PathBuf,
    /// Go on at this line; those before were imported earlier.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
    /// Service name to publish as.
    #[arg(long, default_value = "import")]
    service: String,
    /// Lines under way at once.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    inflight: u32,
    #[arg(long, value_parser = Format::without_raw())]
    output: Option<Format>,
}

/// Bytes under way at once: so many share a frame at most.
const INFLIGHT_BYTES: usize = 2 << 20;
/// Refused lines that are named; the rest are counted.
const NAMED: u64 = 20;

type Outcome = Pin<Box<dyn Future<Output = Result<Receipt, PublishError>> + Send>>;

#[derive(Default)]
struct Tally {
    stored: u64,
    known: u64,
    refused: u64,
    first_failure: Option<u8>,
    /// Stored at another position than in the file.
    moved: u64,
    last: Option<Position>,
    /// Stored before something that stands earlier in the file.
    disordered: u64,
}

impl Tally {
    fn refuse(&mut self, line: u64, events: u64, code: u8, reason: &str, progress: &mut Progress) {
        if self.refused < NAMED {
            progress.pause();
            eprintln!("daybook: line {line}: {reason}");
        } else if self.refused - NAMED < events {
            eprintln!("daybook: more lines are refused; from here on they are only counted");
        }
        self.refused += events;
        self.first_failure.get_or_insert(code);
    }

    fn receipt(&mut self, unit: &Unit, receipt: &Receipt) {
        let count = receipt.events.len() as u64;
        if receipt.is_duplicate() {
            self.known += count;
            return;
        }
        self.stored += count;
        for (event, was) in receipt.events.iter().zip(&unit.positions) {
            self.moved += u64::from(was.is_some_and(|was| was != event.position));
            self.disordered += u64::from(self.last.is_some_and(|last| event.position < last));
            self.last = self.last.max(Some(event.position));
        }
    }
}

/// Why it ended before the end of the file.
enum Stop {
    Interrupted,
    Failed { line: u64, error: PublishError },
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    let (mut units, total) = open(&args)?;
    let client = args.bus.connect(&args.service).await?;
    let mut progress = Progress::new("import");
    let mut tally = Tally::default();
    let mut waiting: VecDeque<(Unit, Outcome)> = VecDeque::new();
    let mut bytes = 0;
    // The line behind everything that is settled.
    let mut next_line = args.from_line;
    let mut reading = true;
    let mut stop = None;
    while reading || !waiting.is_empty() {
        let full = waiting.len() >= args.inflight as usize || (bytes > INFLIGHT_BYTES && !waiting.is_empty());
        tokio::select! {
            read = units.recv(), if reading && !full => match read {
                None => reading = false,
                Some(Read::Failed(error)) => {
                    return Err(Failure::failed(format!("cannot read {}: {error}", args.file.display())));
                }
                Some(Read::Refused { line, events, reason }) => {
                    tally.refuse(line, events, exit::USAGE, &reason, &mut progress);
                }
                Some(Read::Unit(unit)) => {
                    bytes += unit.weight;
                    let outcome = start(&client, &unit).await?;
                    waiting.push_back((unit, outcome));
                }
            },
            outcome = async { match waiting.front_mut() {
                Some((_, outcome)) => outcome.await,
                None => std::future::pending().await,
            } } => {
                let Some((unit, _)) = waiting.pop_front() else { continue };
                match outcome {
                    Ok(receipt) => tally.receipt(&unit, &receipt),
                    Err(error) if error.code() == Code::Overloaded => {
                        // What was sent behind it may have been stored: send all of it
                        // again, which finds that out and keeps the order of the rest.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        waiting = again(&client, unit, waiting).await?;
                        continue;
                    }
                    Err(error) if matches!(error.code(), Code::Unavailable | Code::UnknownOutcome) => {
                        stop = Some(Stop::Failed { line: unit.first_line, error });
                        break;
                    }
                    Err(error) => {
                        let events = unit.events.len() as u64;
                        let code = exit::of(error.code());
                        tally.refuse(unit.first_line, events, code, &error.to_string(), &mut progress);
                    }
                }
                bytes -= unit.weight;
                next_line = unit.last_line + 1;
                progress.at(tally.stored + tally.known, unit.end, total);
            }
            () = interrupts.next() => {
                // The second time nobody wants to wait for answers.
                if stop.replace(Stop::Interrupted).is_some() {
                    break;
                }
                reading = false;
            }
        }
    }
    // Nobody waits for these; their fate is found out when the file is imported again.
    drop(waiting);
    drop(progress);
    client.close().await;
    told(&args, &tally, next_line, stop)
}

fn open(args: &Args) -> Result<(mpsc::Receiver<Read>, u64), Failure> {
    let path = &args.file;
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot read {}: {error}", path.display()));
    if path.as_os_str() == "-" {
        return Ok((units::read(Box::new(std::io::stdin()), args.from_line), 0));
    }
    let file = std::fs::File::open(path).map_err(cannot)?;
    let found = file.metadata().map_err(cannot)?;
    if found.is_dir() {
        return Err(Failure::usage(format!("{} is a directory", path.display())));
    }
    Ok((units::read(Box::new(file), args.from_line), found.len()))
}

async fn start(client: &Client, unit: &Unit) -> Result<Outcome, Failure> {
    loop {
        match client.start_publish(unit.events.clone(), None) {
            Ok(outcome) => return Ok(Box::pin(outcome)),
            // Our own queue: wait for room.
            Err(error) if error.code() == Code::Overloaded => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for what is under way, then sends `first` and all behind it again.
async fn again(
    client: &Client,
    first: Unit,
    waiting: VecDeque<(Unit, Outcome)>,
) -> Result<VecDeque<(Unit, Outcome)>, Failure> {
    let mut units = vec![first];
    for (unit, outcome) in waiting {
        let _ = outcome.await;
        units.push(unit);
    }
    let mut waiting = VecDeque::with_capacity(units.len());
    for unit in units {
        let outcome = start(client, &unit).await?;
        waiting.push_back((unit, outcome));
    }
    Ok(waiting)
}

fn told(args: &Args, tally: &Tally, next_line: u64, stop: Option<Stop>) -> Result<(), Failure> {
    let Tally { stored, known, refused, moved, disordered, .. } = tally;
    let mut text = format!("{stored} events stored, {known} were there already, {refused} refused");
    if *moved > 0 {
        text += &format!("; {moved} have another position than in the file");
    }
    if *disordered > 0 {
        text += &format!("; {disordered} stand in another order than in the file");
    }
    match Format::or_default(args.output) {
        Format::Table => eprintln!("{text}"),
        _ => {
            let count = |n: &u64| n.to_string();
            let summary = json!({
                "stored": count(stored), "known": count(known), "refused": count(refused),
                "moved": count(moved), "disordered": count(disordered), "next_line": next_line,
            });
            writeln!(std::io::stdout(), "{summary}")?;
        }
    }
    let resume = format!("go on with: daybook import {} --from-line {next_line}", args.file.display());
    match stop {
        Some(Stop::Interrupted) => Err(Failure::new(PARTLY, format!("interrupted; {resume}"))),
        Some(Stop::Failed { line, error }) => {
            let code = if stored + known == 0 { exit::of(error.code()) } else { PARTLY };
            Err(Failure::new(code, format!("stopped at line {line}: {error}; {resume}")))
        }
        None if *refused == 0 => Ok(()),
        None if stored + known == 0 => Err(Failure::new(tally.first_failure.unwrap_or(exit::FAILED), text)),
        None => Err(Failure::new(PARTLY, text)),
    }
}
