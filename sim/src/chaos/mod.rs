//! Real processes on a real disk: the server's own binary, members, publishers
//! and followers, killed, stopped and started again all the time.
//!
//! # Promises
//! 1. Every history is written line by line to the kernel before what it speaks
//!    of goes on, so a kill loses nothing but what had not begun.
//! 2. It ends only processes that it started, all of them, whatever happens.
//!
//! # Not here
//! The same run twice: the scheduler of the machine has its say. The seed only
//! chooses what is done.

mod actor;
mod processes;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daybook_client::{Client, ReadQuery};
use tokio::time::sleep;

use crate::entropy::Dice;
use crate::history::check::{Verdict, Violation};
use crate::history::{self, Entry, File, Logged, Scribe, What};
use crate::workload::{GROUPS, QUIET_ROUNDS, mend};
use processes::{Processes, Signal};

pub use actor::{Role, act};

pub struct Options {
    pub seed: u64,
    /// Time with faults; then everything has to come to an end.
    pub seconds: u64,
    /// The server's binary.
    pub binary: PathBuf,
    /// A new directory for log and histories.
    pub folder: PathBuf,
}

pub struct Outcome {
    pub verdict: Verdict,
    pub faults: BTreeMap<&'static str, u64>,
    pub events: u64,
}

const SERVER: &str = "server";
pub const SERVER_KILLED: &str = "server killed";
/// Kills of the server in a run.
pub const SERVER_KILLS: u64 = 20;
/// Time between two faults.
const EVERY: Duration = Duration::from_millis(200);
/// How long everything may take to end once it is calm.
const CALM_MAX: Duration = Duration::from_secs(240);
const MEMBERS_PER_GROUP: usize = 4;

pub async fn run(options: &Options) -> io::Result<Outcome> {
    let mut run = Run::start(options).await?;
    run.strike_until(Duration::from_secs(options.seconds)).await?;
    let settled = run.calm_down().await?;
    let log = run.read_log().await?;
    run.processes.end_all();

    let mut records = Vec::new();
    for file in std::fs::read_dir(&options.folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == "history") {
            records.extend(history::read_file(&path)?);
        }
    }
    records.sort_by_key(|record| record.at);
    let mut verdict = history::check(&records, &log, &GROUPS, settled);
    if !settled {
        let detail = format!("not within {CALM_MAX:?}");
        verdict.violations.push(Violation { rule: "everything comes to an end", detail });
    }
    Ok(Outcome { verdict, faults: run.faults, events: log.entries.len() as u64 })
}

struct Run {
    dice: Dice,
    scribe: Scribe,
    bus: SocketAddr,
    folder: PathBuf,
    processes: Processes,
    started: Instant,
    /// When the server is killed, the next one last.
    kills: Vec<Duration>,
    /// Processes to start again or to let go on, and when.
    later: Vec<(Duration, String, Later)>,
    faults: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Later {
    Start,
    Continue,
}

impl Run {
    async fn start(options: &Options) -> io::Result<Self> {
        let bus = free_address()?;
        let mut dice = Dice::new(options.seed, "chaos");
        // A quarter without kills: only then can a member that was stopped outlive its deadline.
        let millis = options.seconds * 1_000;
        let mut kills: Vec<_> = (0..SERVER_KILLS)
            .map(|_| match dice.between(millis / 30, millis * 7 / 10) {
                at if at < millis / 3 => Duration::from_millis(at),
                at => Duration::from_millis(at + millis / 4),
            })
            .collect();
        kills.sort_unstable_by(|a, b| b.cmp(a));
        let mut processes = Processes::new(&options.folder, options.seed, bus);
        processes.add_server(SERVER, &options.binary);
        for (index, group) in GROUPS.iter().enumerate() {
            for n in 1..=MEMBERS_PER_GROUP {
                processes.add_actor(&format!("{}-{n}", group.name), Role::Member(index));
            }
        }
        for n in 1..=3 {
            processes.add_actor(&format!("publisher-{n}"), Role::Publisher);
        }
        for n in 1..=2 {
            processes.add_actor(&format!("rebuilder-{n}"), Role::Rebuilder);
            processes.add_actor(&format!("follower-{n}"), Role::Follower);
        }
        let sink = File::append_to(&options.folder.join("chaos.history"))?;
        let scribe = Scribe::new("faults", sink);
        for name in processes.names() {
            processes.start(&name)?;
        }
        let (started, faults) = (Instant::now(), BTreeMap::new());
        let folder = options.folder.clone();
        Ok(Self { dice, scribe, bus, folder, processes, started, kills, later: Vec::new(), faults })
    }

    fn did(&mut self, kind: &'static str, target: &str) {
        *self.faults.entry(kind).or_default() += 1;
        self.scribe.note(What::Fault { kind: kind.to_owned(), target: target.to_owned() });
    }

    async fn strike_until(&mut self, end: Duration) -> io::Result<()> {
        while self.started.elapsed() < end {
            let now = self.started.elapsed();
            while self.kills.pop_if(|at| *at <= now).is_some() {
                self.did(SERVER_KILLED, SERVER);
                self.processes.signal(SERVER, Signal::Kill);
                sleep(Duration::from_millis(self.dice.below(300))).await;
                self.processes.start(SERVER)?;
            }
            self.resume(self.started.elapsed())?;
            self.strike(self.started.elapsed());
            sleep(EVERY).await;
        }
        Ok(())
    }

    /// Starts again and lets go on what has been away long enough.
    fn resume(&mut self, now: Duration) -> io::Result<()> {
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, ..)| *at <= now);
        self.later = later;
        let due: Vec<(Duration, String, Later)> = due;
        for (_, name, what) in due {
            match what {
                Later::Start => self.processes.start(&name)?,
                Later::Continue => self.processes.signal(&name, Signal::Continue),
            }
        }
        Ok(())
    }

    fn strike(&mut self, now: Duration) {
        let names = self.processes.names();
        let name = self.dice.pick(&names).clone();
        if name == SERVER || self.later.iter().any(|(_, away, _)| *away == name) {
            return;
        }
        let (kind, signal, length, later) = match self.dice.below(100) {
            0..50 => ("process killed", Signal::Kill, self.dice.below(2_500), Later::Start),
            50..85 => ("process stopped", Signal::Stop, self.dice.between(200, 10_000), Later::Continue),
            _ => ("process asked to go", Signal::Terminate, self.dice.between(500, 2_500), Later::Start),
        };
        self.did(kind, &name);
        self.processes.signal(&name, signal);
        self.later.push((now + Duration::from_millis(length), name, later));
    }

    /// No more faults and nothing new. True: all that was open has ended.
    async fn calm_down(&mut self) -> io::Result<bool> {
        self.resume(Duration::MAX)?;
        std::fs::write(self.folder.join(actor::CALM), "")?;
        let (end, mut quiet) = (Instant::now() + CALM_MAX, 0);
        let bus = self.bus;
        while Instant::now() < end {
            sleep(Duration::from_millis(500)).await;
            // Who was asked to go late has gone by now.
            self.processes.start_ended()?;
            let nothing = mend(&self.scribe, async |method, path| http(bus, method, &path)).await;
            quiet = if nothing.unwrap_or(false) { quiet + 1 } else { 0 };
            if quiet >= QUIET_ROUNDS {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn read_log(&self) -> io::Result<Logged> {
        let client =
            Client::builder(&format!("http://{}", self.bus)).connect().await.map_err(io::Error::other)?;
        let mut entries = Vec::new();
        let read = client.read_all(ReadQuery::default(), |event| {
            entries.push(Entry::of(&event));
            Ok::<_, daybook_client::ReadError>(())
        });
        read.await.map_err(io::Error::other)?;
        Ok(Logged::new(entries))
    }
}

/// One HTTP request; the body of a good answer.
fn http(bus: SocketAddr, method: &str, path: &str) -> io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(bus)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: bus\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 2") => Ok(body.to_owned()),
        _ => Err(io::Error::other(answer)),
    }
}

/// Free at this moment; the server comes back to it after each kill.
fn free_address() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// The last lines of what the server said, for a failure.
pub fn server_said(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("server.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
