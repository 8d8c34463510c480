//! What a system under test must be able to do, and the list of them.
//!
//! # Promises
//! 1. The same events for everybody: id, type, key, place in the key, 256 bytes
//!    of JSON; stored only if the writer knows the key's newest event.
//! 2. An outcome is told after it is on disk.
//! 3. Each connection is a socket of its own, as each writer of Daybook has one.
//!
//! # Not here
//! What is measured: `workload`.

pub mod ceiling;
pub mod daybook;
mod lines;
pub mod nats;
pub mod postgres;
pub mod redis;
pub mod umadb;
mod websocket;

use std::future::Future;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::Result;
use crate::payload::Fresh;
use crate::process::Process;

/// A key's newest event, as one writer knows it.
#[derive(Clone)]
pub struct Tip {
    pub key: String,
    /// Place of the key's next event, from 0.
    pub next: u64,
    /// Where the system keeps the key's newest event, in its own numbers; 0 for none.
    pub at: u64,
}

impl Tip {
    pub fn new(key: String) -> Self {
        Self { key, next: 0, at: 0 }
    }

    /// After this writer's own `events` were stored, the last of them `at`.
    pub fn advance(&mut self, events: usize, at: u64) {
        self.next += events as u64;
        self.at = at;
    }
}

/// What became of a batch.
pub enum Outcome {
    /// On disk; `at` as in [`Tip`].
    Stored { at: u64 },
    /// Somebody else was first; nothing is stored.
    Conflict,
}

/// Where a reader begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum From {
    Start,
    /// With what comes next.
    End,
}

/// Whether a receipt may come before the disk has it: only to fill a system
/// that is read afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Always,
    WhileFilling,
}

/// A running system.
pub trait Peer: Sized + Send + Sync + 'static {
    type Connection: Connection;
    /// Asks it to stop in good order.
    const STOP: Signal = Signal::TERM;

    /// Starts it on an empty directory, or again on one it has used.
    fn start(tools: &Tools, dir: &Path, durability: Durability) -> impl Future<Output = Result<Self>>;

    fn connect(&self) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Hands the data of every event over, in order, until told to stop.
    fn stream(
        &self,
        from: From,
        each: impl FnMut(&[u8]) -> Result<ControlFlow<()>> + Send,
    ) -> impl Future<Output = Result<()>> + Send;

    fn processes(&self) -> &[Process];
}

/// One writer's socket.
pub trait Connection: Sized + Send + 'static {
    /// Queues one atomic batch for `tip`; [`Connection::receive`] sends what is queued.
    fn send(&mut self, tip: &Tip, events: &[Fresh]) -> Result<()>;

    /// The outcome of the oldest batch that has none yet.
    fn receive(&mut self) -> impl Future<Output = Result<Outcome>> + Send;

    /// Before a contest for `tip`: what helps to see the others' events.
    fn watch(&mut self, _tip: &Tip) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Before an attempt that follows no conflict: what has come of others' events
    /// already. Does not wait.
    fn glance(&mut self, _tip: &mut Tip) -> Result<()> {
        Ok(())
    }

    /// After a conflict: learns the key's newest event.
    fn refresh(&mut self, tip: &mut Tip) -> impl Future<Output = Result<()>> + Send;
}

/// Where the programs are.
#[derive(Clone, Debug, clap::Args)]
pub struct Tools {
    /// The release binary of Daybook.
    #[arg(long, default_value = "daybook", env = "BENCH_DAYBOOK")]
    pub daybook: PathBuf,
    #[arg(long, default_value = "redis-server", env = "BENCH_REDIS")]
    pub redis: PathBuf,
    /// The directory of `initdb` and `postgres`.
    #[arg(long, default_value = "/usr/lib/postgresql/15/bin", env = "BENCH_POSTGRES")]
    pub postgres: PathBuf,
    #[arg(long, default_value = "umadb", env = "BENCH_UMADB")]
    pub umadb: PathBuf,
    #[arg(long, default_value = "nats-server", env = "BENCH_NATS")]
    pub nats: PathBuf,
}

#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Daybook,
    Redis,
    Postgres,
    Umadb,
    Nats,
    Nats3,
    Ceiling,
}

impl Kind {
    pub const ALL: &[Self] =
        &[Self::Daybook, Self::Redis, Self::Postgres, Self::Umadb, Self::Nats, Self::Nats3, Self::Ceiling];

    pub const fn title(self) -> &'static str {
        match self {
            Self::Daybook => "Daybook",
            Self::Redis => "Redis streams",
            Self::Postgres => "PostgreSQL",
            Self::Umadb => "UmaDB",
            Self::Nats => "NATS JetStream",
            Self::Nats3 => "NATS JetStream, three nodes",
            Self::Ceiling => "ceiling",
        }
    }
}
