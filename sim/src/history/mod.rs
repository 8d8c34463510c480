//! What was done and seen, in an order that can be trusted.
//!
//! # Promises
//! 1. The beginning of a call is noted before anything of it is sent, its end
//!    after the answer is there: what ended before something else began, happened
//!    before it.
//! 2. A note that is missing (its writer was killed) makes the checks weaker,
//!    never wrong.

pub mod check;
mod log;
mod token;

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use daybook_model::Event;
use serde::{Deserialize, Serialize};

pub use check::{Counts, Verdict, check};
pub use log::{Entry, GroupSpec, Key, KeyOf, Logged};
pub use token::{Runs, Token};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Orders the records of all writers: a count in the simulation,
    /// nanoseconds of the monotonic clock between processes.
    pub at: u64,
    /// For people: milliseconds since the run began.
    pub ms: u64,
    pub who: String,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum What {
    /// A publish begins. `call` is unique together with `who`.
    Publish {
        call: u64,
        ids: Vec<String>,
        token: Option<String>,
    },
    Stored {
        call: u64,
        events: Vec<Told>,
    },
    Refused {
        call: u64,
        code: String,
    },
    /// No answer, or one that does not tell.
    Unknown {
        call: u64,
    },
    /// A follower of the log saw an event.
    Read {
        position: u64,
        id: String,
        content: u64,
    },
    /// A seat is asked for, with so many events of one key at once.
    Joining {
        group: String,
        window: u64,
    },
    /// Somebody begins to rebuild from what the group has settled.
    Rebuilding {
        group: String,
    },
    /// It is told that an event is settled, …
    Rebuilt {
        group: String,
        position: u64,
        id: String,
        content: u64,
    },
    /// … and that all is told which was settled when it began.
    RebuiltPast {
        group: String,
    },
    Delivered {
        group: String,
        token: String,
        attempt: u32,
        position: u64,
        id: String,
        content: u64,
    },
    /// A settling begins.
    Ack {
        group: String,
        token: String,
        position: u64,
    },
    /// The answer to an ack that asked for one, and settled.
    Acked {
        group: String,
        token: String,
        position: u64,
    },
    Skip {
        group: String,
        token: String,
        position: u64,
    },
    /// Given back, to come again later or when somebody says so.
    GivenBack {
        group: String,
        token: String,
        position: u64,
        how: String,
    },
    /// An operator let a parked key go on.
    Retried {
        group: String,
        subject: String,
        answered: bool,
    },
    /// The server began, and this is what its tokens begin with.
    Run {
        run: u64,
    },
    /// Something was done to the system.
    Fault {
        kind: String,
        target: String,
    },
}

impl std::fmt::Display for Record {
    /// For people who read a failure.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = serde_json::to_string(&self.what).map_err(|_| std::fmt::Error)?;
        write!(f, "{:>8} {:<14} {what}", self.ms, self.who)
    }
}

/// What a receipt says of one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    pub id: String,
    pub position: u64,
    pub sequence: Option<u64>,
    pub duplicate: bool,
}

/// Where records go.
pub trait Sink: Send + Sync {
    fn note(&self, who: &str, what: What);
}

/// One writer's pen.
#[derive(Clone)]
pub struct Scribe {
    who: Arc<str>,
    sink: Arc<dyn Sink>,
}

impl Scribe {
    pub fn new(who: &str, sink: Arc<dyn Sink>) -> Self {
        Self { who: who.into(), sink }
    }

    pub fn who(&self) -> &str {
        &self.who
    }

    pub fn note(&self, what: What) {
        self.sink.note(&self.who, what);
    }
}

/// All records of a run in one process, in the order in which they happened.
pub struct Memory {
    records: Mutex<Vec<Record>>,
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Memory {
    /// `clock` tells milliseconds since the run began.
    pub fn new(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { records: Mutex::default(), clock: Box::new(clock) })
    }

    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for Memory {
    fn note(&self, who: &str, what: What) {
        let ms = (self.clock)();
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let at = records.len() as u64;
        records.push(Record { at, ms, who: who.to_owned(), what });
    }
}

/// A process's own file; a line is with the kernel before the call returns, so
/// that it survives the process.
pub struct File(Mutex<std::fs::File>);

impl File {
    pub fn append_to(path: &Path) -> io::Result<Arc<Self>> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Arc::new(Self(Mutex::new(file))))
    }
}

impl Sink for File {
    fn note(&self, who: &str, what: What) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = monotonic_nanos();
        let record = Record { at, ms: at / 1_000_000, who: who.to_owned(), what };
        let mut line = serde_json::to_vec(&record).expect("records are plain data");
        line.push(b'\n');
        file.write_all(&line).expect("the disk takes the history");
    }
}

/// Reads a file back; the last line may have been cut by a kill.
pub fn read_file(path: &Path) -> io::Result<Vec<Record>> {
    let file = io::BufReader::new(std::fs::File::open(path)?);
    let mut records = Vec::new();
    for line in file.lines() {
        if let Ok(record) = serde_json::from_str(&line?) {
            records.push(record);
        }
    }
    Ok(records)
}

/// The same for every process of the machine.
pub fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place to write to, and this clock exists on every Linux.
    #[allow(unsafe_code)]
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
    }
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Equal for equal events, server's attributes included.
pub fn content(event: &Event) -> u64 {
    crate::entropy::digest(&serde_json::to_vec(event).expect("events are JSON"))
}
