//! `daybook publish`: CloudEvents from stdin, receipts to stdout.
//!
//! Lines are sent as they come, many at a time; receipts stand in the order of
//! the lines. A line that is refused is named by its number, and the rest goes on.
//! When the bus gives no answer, or after an interrupt, it says from which line on.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{BufWriter, Write};
use std::pin::Pin;

use daybook_client::{Client, PublishError, Receipt};
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
    let interrupts = Interrupts::listen()?;
    let client = args.bus.connect(&args.service).await?;
    let out = BufWriter::new(std::io::stdout().lock());
    publish(client, stdin_lines(), args.inflight as usize, out, interrupts).await
}

async fn publish(
    client: Client,
    mut lines: mpsc::Receiver<String>,
    inflight: usize,
    mut out: impl Write,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    let mut waiting: VecDeque<(u64, Outcome)> = VecDeque::new();
    let mut tally = Tally::default();
    let mut number = 0;
    let mut reading = true;
    let mut stop = None;
    while reading || !waiting.is_empty() {
        let full = waiting.len() >= inflight;
        tokio::select! {
            line = lines.recv(), if reading && !full => {
                let Some(line) = line else {
                    reading = false;
                    continue;
                };
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
                // The bus is gone or stuck. To wait as long for each line behind it tells nothing new.
                if let Err(PublishError::UnknownOutcome) = outcome {
                    stop = Some(Stop::NoAnswer);
                    break;
                }
                if let Some((line, _)) = waiting.pop_front() {
                    tally.settle(line, outcome, &mut out)?;
                }
                if waiting.is_empty() {
                    out.flush()?;
                }
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
    out.flush()?;
    let unanswered = waiting.len();
    let next = waiting.front().map_or(number + 1, |(line, _)| *line);
    drop(waiting);
    client.close().await;
    let Tally { stored, duplicates, failed, first_failure } = tally;
    let counts = format!("{stored} stored ({duplicates} were known), {failed} refused");
    let why = match stop {
        None if failed == 0 => return Ok(()),
        None => {
            let code = if stored == 0 { first_failure.unwrap_or(exit::FAILED) } else { PARTLY };
            return Err(Failure::new(code, counts));
        }
        Some(Stop::Interrupted) => "interrupted",
        Some(Stop::NoAnswer) => "the bus gives no answer",
    };
    let code = match stop {
        Some(Stop::NoAnswer) if stored == 0 => exit::of(Code::UnknownOutcome),
        _ => PARTLY,
    };
    Err(Failure::new(
        code,
        format!(
            "{why} at line {next}: {counts}, {unanswered} without an answer; publish the same input again to go on, \
             stored events are recognised by their ids"
        ),
    ))
}

/// Why it ended before the end of its input.
#[derive(Clone, Copy)]
enum Stop {
    Interrupted,
    NoAnswer,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use daybook_client::Builder;
    use daybook_model::Position;
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

    use super::*;

    /// Longer than every patience of client and command, in time that only a test has.
    const FOR_EVER: Duration = Duration::from_secs(600);

    /// Where the other ends of all connections go.
    fn client() -> (Builder, mpsc::Receiver<DuplexStream>) {
        let (accepted, pipes) = mpsc::channel(64);
        let builder = Client::builder("http://bus:1").connector(move |_| {
            let accepted = accepted.clone();
            async move {
                let (ours, theirs) = duplex(1 << 16);
                accepted.send(theirs).await.map_err(std::io::Error::other)?;
                Ok(ours)
            }
        });
        (builder, pipes)
    }

    /// Says `welcome` on a connection, reads on, and answers nothing ever after.
    #[allow(clippy::result_large_err)]
    async fn welcome_and_no_more(pipe: DuplexStream) {
        let protocol = |_: &Request, mut response: Response| {
            response.headers_mut().insert("sec-websocket-protocol", wire::SUBPROTOCOL.parse().unwrap());
            Ok(response)
        };
        let mut frames = tokio_tungstenite::accept_hdr_async(pipe, protocol).await.unwrap();
        let hello = frames.next().await.unwrap().unwrap();
        let mut id = 0;
        wire::messages(hello.to_text().unwrap(), |message| {
            if let Ok(wire::ClientMessage::Hello(hello)) = message {
                id = hello.id;
            }
        });
        let welcome = wire::Welcome {
            id,
            session: "s/i/1".into(),
            node: "n".into(),
            head: Position(0),
            limits: Default::default(),
            heartbeat_ms: 10_000,
        };
        let mut text = Vec::new();
        wire::write_frame(&[wire::ServerMessage::Welcome(Box::new(welcome))], &mut text);
        frames.send(Message::Text(String::from_utf8(text).unwrap().into())).await.unwrap();
        while let Some(Ok(_)) = frames.next().await {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_bus_that_answers_no_publish_ends_it_with_the_line_to_go_on_from() {
        let (builder, mut pipes) = client();
        let bus = tokio::spawn(async move {
            while let Some(pipe) = pipes.recv().await {
                tokio::spawn(welcome_and_no_more(pipe));
            }
        });
        let client = builder.connect().await.unwrap();
        let (input, lines) = mpsc::channel(8);
        for id in ["a", "b", "c"] {
            input.send(format!(r#"{{"specversion":"1.0","id":"{id}","type":"T"}}"#)).await.unwrap();
        }
        // Its input stays open, as that of `tail -f | daybook publish` does.
        let publish = publish(client, lines, 1_000, Vec::new(), Interrupts::listen().unwrap());
        let ended = tokio::time::timeout(FOR_EVER, publish).await.expect("it waits for ever");
        let failure = ended.unwrap_err();
        assert_eq!(failure.code, exit::FAILED);
        for said in ["the bus gives no answer at line 1", "0 stored", "3 without an answer", "again"] {
            assert!(failure.message.contains(said), "{said}: {}", failure.message);
        }
        drop(input);
        bus.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_bus_that_accepts_a_connection_and_says_nothing_is_unreachable() {
        let (builder, mut pipes) = client();
        let bus = tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Some(pipe) = pipes.recv().await {
                silent.push(pipe);
            }
        });
        let connected = tokio::time::timeout(FOR_EVER, builder.connect()).await.expect("it waits for ever");
        let failure = Failure::from(connected.err().expect("nobody said welcome"));
        assert_eq!(failure.code, exit::UNREACHABLE);
        for said in ["http://bus:1", "did not answer in time", "is `daybook serve`"] {
            assert!(failure.message.contains(said), "{said}: {}", failure.message);
        }
        bus.abort();
    }
}
