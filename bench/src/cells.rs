//! The list of what is measured, cell by cell, and what Daybook wants to reach.

use crate::peer::Kind;
use crate::results::Figures;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    Append { writers: usize, batch: usize },
    Replay { events: u64 },
    ReplayInProcess { events: u64 },
    Delivery,
    Contenders,
    Owner,
    Size { events: u64 },
}

pub struct Cell {
    pub name: &'static str,
    pub title: &'static str,
    pub workload: Workload,
    pub rounds: usize,
    pub seconds: f64,
    /// How many times the best durable peer Daybook wants to be.
    pub goal: Option<f64>,
    /// Figures of its own that Daybook wants to keep.
    pub limits: &'static [Limit],
}

/// One measured figure.
pub struct Measure {
    pub title: &'static str,
    pub of: fn(&Figures) -> Option<f64>,
    pub more_is_better: bool,
}

pub const RATE: Measure = Measure { title: "events/s", of: |f| f.events_per_s, more_is_better: true };
pub const P50: Measure = Measure { title: "p50 µs", of: |f| f.p50_us, more_is_better: false };
pub const P99: Measure = Measure { title: "p99 µs", of: |f| f.p99_us, more_is_better: false };
pub const ATTEMPTS: Measure =
    Measure { title: "attempts per accept", of: |f| f.attempts_per_accept, more_is_better: false };
pub const CPU: Measure =
    Measure { title: "server CPU µs/event", of: |f| f.cpu_us_per_event, more_is_better: false };
pub const LOAD: Measure =
    Measure { title: "load CPU µs/event", of: |f| f.load_us_per_event, more_is_better: false };
pub const DISK: Measure =
    Measure { title: "disk B/event", of: |f| f.disk_bytes_per_event, more_is_better: false };
pub const RSS: Measure = Measure { title: "RSS MiB", of: |f| f.rss_mib, more_is_better: false };
pub const OPEN_CLEAN: Measure =
    Measure { title: "open ms, clean", of: |f| f.open_clean_ms, more_is_better: false };
pub const OPEN_KILLED: Measure =
    Measure { title: "open ms, killed", of: |f| f.open_killed_ms, more_is_better: false };

pub struct Limit {
    pub measure: Measure,
    pub at: f64,
}

const fn append(name: &'static str, title: &'static str, writers: usize, batch: usize) -> Cell {
    Cell { workload: Workload::Append { writers, batch }, ..cell(name, title, Workload::Delivery) }
}

const fn cell(name: &'static str, title: &'static str, workload: Workload) -> Cell {
    Cell { name, title, workload, rounds: 3, seconds: 3.0, goal: None, limits: &[] }
}

pub const CELLS: &[Cell] = &[
    Cell { goal: Some(1.0), ..append("w1-1", "W1: single events, 1 writer", 1, 1) },
    append("w1-16", "W1: single events, 16 writers", 16, 1),
    Cell {
        goal: Some(1.5),
        limits: &[Limit { measure: CPU, at: 25.0 }],
        ..append("w1-64", "W1: single events, 64 writers", 64, 1)
    },
    Cell {
        goal: Some(1.5),
        limits: &[Limit { measure: CPU, at: 18.0 }],
        ..append("w1-256", "W1: single events, 256 writers", 256, 1)
    },
    Cell { goal: Some(1.5), ..append("w2", "W2: batches of 100, 8 writers", 8, 100) },
    Cell {
        goal: Some(1.5),
        ..cell("w3", "W3: replay by one reader, parsed", Workload::Replay { events: 1_000_000 })
    },
    Cell {
        limits: &[Limit { measure: RATE, at: 2_000_000.0 }],
        ..cell(
            "w3-inprocess",
            "W3 in process (`daybook bench store`)",
            Workload::ReplayInProcess { events: 1_000_000 },
        )
    },
    Cell {
        goal: Some(1.0),
        rounds: 5,
        seconds: 4.0,
        ..cell("w4", "W4: publish to delivery at 1,000/s", Workload::Delivery)
    },
    Cell { goal: Some(1.2), ..cell("w5", "W5: 16 writers contend for one key", Workload::Contenders) },
    cell("w5-owner", "W5: one owner pipelines on one key, 64 under way", Workload::Owner),
    Cell {
        rounds: 1,
        limits: &[Limit { measure: DISK, at: 480.0 }],
        ..cell("size-1m", "1,000,000 events over 100,000 keys", Workload::Size { events: 1_000_000 })
    },
    Cell {
        rounds: 1,
        limits: &[
            Limit { measure: DISK, at: 480.0 },
            Limit { measure: RSS, at: 256.0 },
            Limit { measure: OPEN_CLEAN, at: 1_000.0 },
            Limit { measure: OPEN_KILLED, at: 1_000.0 },
        ],
        ..cell("size-10m", "10,000,000 events over 1,000,000 keys", Workload::Size { events: 10_000_000 })
    },
];

impl Cell {
    /// Whether `peer` is measured here; if not, why.
    pub fn takes(&self, peer: Kind) -> Result<(), &'static str> {
        match (self.workload, peer) {
            (Workload::ReplayInProcess { .. }, peer) if peer != Kind::Daybook => {
                Err("a server has no such thing")
            }
            (Workload::Replay { .. }, Kind::Nats3) => Err("reads from one node, as with one node"),
            (Workload::Contenders, Kind::Ceiling) => Err("checks nothing, so nobody is refused"),
            (Workload::Owner, Kind::Umadb) => Err("its client keeps no order among requests under way"),
            (Workload::Owner, Kind::Nats3) => {
                Err("refuses a key's next message while the last is on its way")
            }
            (Workload::Size { .. }, Kind::Ceiling) => Err("cannot open a log again"),
            (Workload::Size { .. }, Kind::Nats3) => Err("three times what one node needs"),
            (Workload::Size { events: 10_000_000 }, peer) if peer != Kind::Daybook => {
                Err("filling it takes too long for one run")
            }
            _ => Ok(()),
        }
    }

    /// What decides who is ahead.
    pub fn decisive(&self) -> &'static [Measure] {
        match self.workload {
            Workload::Delivery => &[P50, P99],
            Workload::Size { .. } => &[DISK, RSS, OPEN_CLEAN, OPEN_KILLED],
            _ => &[RATE],
        }
    }
}
