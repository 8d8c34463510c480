//! `daybook backup`: the log and its groups on another disk.
//!
//! # Promises
//! 1. What arrived opens as a log, at any moment, whoever was killed.
//! 2. `--follow` tells how far behind the copy is: on stderr for people, as
//!    `backup.json` in the copy for machines, with `--output ndjson` on stdout.
//! 3. While following, what may pass (the server is away, the copy's disk is full
//!    or not mounted) is tried again and told; what cannot pass (another log's
//!    copy, another history, damage) ends it.
//!
//! # After a crash
//! Run again, it goes on where the copy ends.

mod status;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daybook_client::{Client, ReadQuery};
use daybook_model::Position;
use daybook_model::wire::Edge;
use daybook_store::local::{Backup, CopiedCheckpoints, Lock, OpenError, Restoring};

use super::Interrupts;
use crate::exit::{Failure, VERIFICATION};
use crate::output::Format;
use crate::progress::Progress;
use status::{Lag, State, Status};

/// Copy a log and its groups' checkpoints to another directory, disk or mount.
#[derive(clap::Args)]
pub struct Args {
    /// Where the copy is, or shall be; an older copy of the same log is gone on with.
    to: PathBuf,
    /// The log's directory; of a demo it is `log` in its data directory.
    #[arg(long, env = "DAYBOOK_DATA", default_value = "daybook-data")]
    data: PathBuf,
    /// The server that has the log open; needed to copy while it serves.
    #[arg(long)]
    bus: Option<String>,
    /// Go on until interrupted, and tell how far behind the copy is.
    #[arg(long, requires = "bus")]
    follow: bool,
    /// With `ndjson`, each telling of the lag is an object on stdout.
    #[arg(long, value_parser = Format::without_raw())]
    output: Option<Format>,
}

/// Make a log from a copy. The target must be empty.
#[derive(clap::Args)]
pub struct RestoreArgs {
    from: PathBuf,
    to: PathBuf,
}

/// How often `--follow` looks for more.
const LOOK: Duration = Duration::from_millis(200);
/// How often it writes down how far it is, …
const NOTE: Duration = Duration::from_secs(1);
/// … and says so.
const TELL: Duration = Duration::from_secs(5);
/// How long the server may take to say where its head is.
const ANSWER: Duration = Duration::from_secs(5);
/// Pause after a failure that may pass.
const RETRY: Duration = Duration::from_secs(1);

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    super::not_of_a_demo(&args.data)?;
    if !args.data.join("LOG").is_file() {
        return Err(Failure::failed(format!("{} holds no log", args.data.display())));
    }
    let Some(bus) = &args.bus else {
        let _lock = Lock::take_to_read(&args.data).map_err(|error| match error {
            OpenError::InUse { .. } => {
                Failure::failed(format!("{error}; to copy while it serves, name its address: --bus http://…"))
            }
            error => failure(error),
        })?;
        let next = copy(&args.data, &args.to)?;
        eprintln!("{next} events are in {}", args.to.display());
        return Ok(());
    };
    let client = Client::builder(bus).service("backup").connect().await?;
    served(&args, bus)?;
    let result = if args.follow {
        Follower::new(&args, &client).run(&mut interrupts).await
    } else {
        once(&args, &client).await
    };
    client.close().await;
    result
}

async fn once(args: &Args, client: &Client) -> Result<(), Failure> {
    let mut backup = Backup::open(&args.data, &args.to).map_err(failure)?;
    let checkpoints = backup.checkpoints().map_err(failure)?;
    let head = head(client).await?;
    ship_all(&mut backup, Some(head), &checkpoints)?;
    eprintln!("{} events are in {}", backup.next(), args.to.display());
    Ok(())
}

fn ship_all(
    backup: &mut Backup,
    durable: Option<u64>,
    checkpoints: &CopiedCheckpoints,
) -> Result<(), Failure> {
    let (mut progress, begin) = (Progress::new("backup"), backup.next());
    while backup.ship(durable, checkpoints).map_err(failure)?.more {
        let total = durable.map_or(0, |durable| durable.saturating_sub(begin));
        progress.at(backup.next() - begin, backup.next() - begin, total);
    }
    Ok(())
}

/// A log that nobody has open is not the one that this bus serves: how far it is
/// durable would be a guess.
fn served(args: &Args, bus: &str) -> Result<(), Failure> {
    if !Lock::is_held(&args.data) {
        return Err(Failure::failed(format!(
            "no server has {} open, so {bus} serves another log; leave --bus away to copy this one",
            args.data.display()
        )));
    }
    Ok(())
}

struct Follower<'a> {
    args: &'a Args,
    client: &'a Client,
    status: Status,
    ndjson: bool,
    backup: Option<Backup>,
    /// The copy was there once: when it is gone it must not be begun anew in
    /// what may be an empty mount point.
    begun: bool,
    noted: Option<Instant>,
    told: Option<Instant>,
    progress: Progress,
}

impl<'a> Follower<'a> {
    fn new(args: &'a Args, client: &'a Client) -> Self {
        Self {
            args,
            client,
            status: Status::new(&args.data),
            ndjson: matches!(args.output, Some(Format::Ndjson | Format::Json)),
            backup: None,
            begun: args.to.join("LOG").is_file(),
            noted: None,
            told: None,
            progress: Progress::new("backup"),
        }
    }

    async fn run(&mut self, interrupts: &mut Interrupts) -> Result<(), Failure> {
        loop {
            let round = tokio::select! {
                round = self.round() => round,
                () = interrupts.next() => break,
            };
            let pause = match round {
                Ok(()) => {
                    self.note(State::Following)?;
                    LOOK
                }
                Err(error) if error.passes() => {
                    // The copy may be ahead of what was noted: look at it again.
                    self.backup = None;
                    self.look().await;
                    let state = State::Retrying(error.to_string());
                    self.note(state)?;
                    RETRY
                }
                Err(error) => {
                    self.status.write(&self.args.to, State::Failed(error.to_string()));
                    return Err(error.into());
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = interrupts.next() => break,
            }
        }
        self.progress.pause();
        self.status.write(&self.args.to, State::Stopped);
        let copied = self.status.lag.copied;
        eprintln!("{copied} events are in {}; run it again to go on", self.args.to.display());
        Ok(())
    }

    /// Copies what is durable now.
    async fn round(&mut self) -> Result<(), RoundError> {
        if self.backup.is_none() {
            if self.begun && !self.args.to.join("LOG").is_file() {
                return Err(RoundError::Gone(self.args.to.clone()));
            }
            self.backup = Some(Backup::open(&self.args.data, &self.args.to).map_err(RoundError::Log)?);
            self.begun = true;
        }
        let Some(backup) = &self.backup else { return Ok(()) };
        self.status.lag.copied = backup.next();
        let checkpoints = backup.checkpoints().map_err(RoundError::Log)?;
        let durable = head(self.client).await.map_err(RoundError::Bus)?;
        loop {
            let Some(backup) = &mut self.backup else { return Ok(()) };
            let before = backup.next();
            let shipped = backup.ship(Some(durable), &checkpoints).map_err(RoundError::Log)?;
            self.status.lag.copied = backup.next();
            self.status.copied(backup.next() - before, shipped.bytes);
            if !shipped.more {
                break;
            }
            self.look().await;
            self.note(State::Following).map_err(RoundError::Told)?;
        }
        self.look().await;
        Ok(())
    }

    /// How far behind the copy is now, as far as the server says.
    async fn look(&mut self) {
        let (copied, size) = (self.status.lag.copied, self.status.bytes_per_event());
        if let Ok(lag) = lag(self.client, copied, size).await {
            self.status.lag = lag;
        }
    }

    /// Tells how it goes; what is new at once, the rest now and then.
    fn note(&mut self, state: State) -> Result<(), Failure> {
        let due = |last: Option<Instant>, every| last.is_none_or(|last: Instant| last.elapsed() >= every);
        let is_new = self.status.is_other(&state);
        if !is_new && !due(self.noted, NOTE) {
            return Ok(());
        }
        self.noted = Some(Instant::now());
        self.status.write(&self.args.to, state);
        if self.ndjson {
            use std::io::Write;
            writeln!(std::io::stdout(), "{}", self.status.json())?;
        }
        if is_new || due(self.told, TELL) {
            self.told = Some(Instant::now());
            eprintln!("{}", self.status);
        }
        Ok(())
    }
}

/// Why a round of following failed.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("{0}")]
    Log(OpenError),
    #[error("{} is gone; put it back, or mount its disk again", .0.display())]
    Gone(PathBuf),
    #[error("the server does not answer{}", but(.0))]
    Bus(daybook_client::ReadError),
    /// Whoever listened to us is gone.
    #[error("{}", .0.message)]
    Told(Failure),
}

/// What is known beside that no answer came.
fn but(error: &daybook_client::ReadError) -> String {
    match error {
        daybook_client::ReadError::TimedOut => String::new(),
        error => format!(" ({error})"),
    }
}

impl RoundError {
    /// Whether the same may succeed later without anybody deciding anything.
    fn passes(&self) -> bool {
        matches!(self, Self::Log(OpenError::Io { .. }) | Self::Gone(_) | Self::Bus(_))
    }
}

impl From<RoundError> for Failure {
    fn from(error: RoundError) -> Self {
        match error {
            RoundError::Log(error) => failure(error),
            RoundError::Gone(_) => Self::failed(error.to_string()),
            RoundError::Bus(error) => error.into(),
            RoundError::Told(failure) => failure,
        }
    }
}

pub fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let is_empty = std::fs::read_dir(&args.to).map(|mut entries| entries.next().is_none()).unwrap_or(true);
    if !is_empty {
        return Err(Failure::failed(format!(
            "{} is not empty: a log is restored into an empty or new directory",
            args.to.display()
        )));
    }
    if !args.from.join("LOG").is_file() {
        return Err(Failure::failed(format!("{} holds no copy of a log", args.from.display())));
    }
    let _lock = Lock::take_to_read(&args.from).map_err(failure)?;
    let restoring = Restoring::begin(&args.to).map_err(failure)?;
    let next = copy(&args.from, &args.to)?;
    restoring.end().map_err(failure)?;
    let to = args.to.display();
    eprintln!("{next} events are in {to}; `daybook serve --data {to}` serves them");
    Ok(())
}

/// Everything, from a log that nobody writes to.
fn copy(from: &Path, to: &Path) -> Result<u64, Failure> {
    let mut backup = Backup::open(from, to).map_err(failure)?;
    let checkpoints = backup.checkpoints().map_err(failure)?;
    ship_all(&mut backup, None, &checkpoints)?;
    Ok(backup.next())
}

/// Position after the newest durable event.
async fn head(client: &Client) -> Result<u64, daybook_client::ReadError> {
    let query = ReadQuery { limit: Some(1), reverse: true, ..ReadQuery::default() };
    let page = tokio::time::timeout(ANSWER, client.read(query)).await;
    let page = page.unwrap_or(Err(daybook_client::ReadError::TimedOut))?;
    Ok(page.events.first().map_or(0, |event| event.position.0 + 1))
}

/// How far `copied` is behind `head`: what is not copied would be lost with the disk.
async fn lag(client: &Client, copied: u64, bytes_per_event: f64) -> Result<Lag, daybook_client::ReadError> {
    let head = head(client).await?;
    let events = head.saturating_sub(copied);
    let mut lag = Lag { copied, head, events, bytes: (events as f64 * bytes_per_event) as u64, seconds: 0.0 };
    if events > 0 {
        let from = Some(Edge::Position(Position(copied)));
        let query = ReadQuery { from, limit: Some(1), ..ReadQuery::default() };
        let page = client.read(query).await?;
        if let Some(oldest) = page.events.first() {
            lag.seconds = status::seconds_since(oldest.recordedtime);
        }
    }
    Ok(lag)
}

fn failure(error: OpenError) -> Failure {
    match error {
        OpenError::Damaged { .. } => Failure::new(VERIFICATION, error.to_string()),
        error => Failure::failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use daybook_client::ReadError;

    use super::*;

    #[test]
    fn a_server_that_does_not_answer_is_told_once() {
        assert_eq!(RoundError::Bus(ReadError::TimedOut).to_string(), "the server does not answer");
        let closed = RoundError::Bus(ReadError::Closed).to_string();
        assert_eq!(closed, "the server does not answer (the client was closed)");
    }
}
