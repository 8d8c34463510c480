//! What is done to a running system, the same for all.

pub mod append;
pub mod contention;
pub mod delivery;
pub mod fill;
pub mod replay;
pub mod size;

use std::time::{Duration, Instant};

use crate::Result;
use crate::payload::Fresh;
use crate::peer::{Connection, Outcome, Peer, Tip};
use crate::results::Figures;
use crate::stats::percentile;

/// Not counted: connections warm up, files get their first blocks.
const WARM_UP: Duration = Duration::from_millis(500);

/// When it is counted.
#[derive(Clone, Copy)]
pub struct Window {
    pub begin: Instant,
    pub end: Instant,
}

impl Window {
    pub fn after_warm_up(seconds: f64) -> Self {
        let begin = Instant::now() + WARM_UP;
        Self { begin, end: begin + Duration::from_secs_f64(seconds) }
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    pub fn seconds(&self) -> f64 {
        (self.end - self.begin).as_secs_f64()
    }
}

/// Microseconds of what ended within the window.
pub struct Latencies {
    window: Window,
    micros: Vec<u32>,
}

impl Latencies {
    pub fn new(window: Window) -> Self {
        Self { window, micros: Vec::new() }
    }

    pub fn is_counting(&self) -> bool {
        (self.window.begin..self.window.end).contains(&Instant::now())
    }

    pub fn note(&mut self, sent: Instant) {
        if self.is_counting() {
            self.micros.push(sent.elapsed().as_micros().try_into().unwrap_or(u32::MAX));
        }
    }

    /// Several writers' together, each acknowledgement worth `events`.
    pub fn figures(all: impl IntoIterator<Item = Self>, window: Window, events: usize, cpu: Cpu) -> Figures {
        let mut micros: Vec<u32> = all.into_iter().flat_map(|one| one.micros).collect();
        micros.sort_unstable();
        let count = (micros.len() * events) as f64;
        let mut figures = Figures {
            events_per_s: Some(count / window.seconds()),
            p50_us: Some(f64::from(percentile(&micros, 0.5))),
            p99_us: Some(f64::from(percentile(&micros, 0.99))),
            ..Figures::default()
        };
        cpu.tell(count, &mut figures);
        figures
    }
}

/// Stores a batch of a key that nobody else writes. A refusal is tried again
/// for a while: a cluster may not know its own last answer yet.
pub async fn stored(connection: &mut impl Connection, tip: &mut Tip, events: &[Fresh]) -> Result<()> {
    for _ in 0..100 {
        connection.send(tip, events)?;
        match connection.receive().await? {
            Outcome::Stored { at } => {
                tip.advance(events.len(), at);
                return Ok(());
            }
            Outcome::Conflict => connection.refresh(tip).await?,
        }
    }
    Err(format!("{} has another writer", tip.key).into())
}

/// The time that a turn's processes spent.
#[derive(Clone, Copy)]
pub struct Cpu {
    pub servers: Duration,
    /// This process: the load generator has the same cores.
    pub load: Duration,
}

impl Cpu {
    pub fn spent<P: Peer>(peer: &P) -> Self {
        let servers = peer.processes().iter().map(|process| process.cpu()).sum();
        Self { servers, load: crate::process::own_cpu() }
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            servers: self.servers.saturating_sub(before.servers),
            load: self.load.saturating_sub(before.load),
        }
    }

    pub fn tell(self, events: f64, figures: &mut Figures) {
        let each = |spent: Duration| (events > 0.0).then(|| spent.as_secs_f64() * 1e6 / events);
        figures.cpu_us_per_event = each(self.servers);
        figures.load_us_per_event = each(self.load);
    }
}

/// What was spent within the window.
pub async fn cpu_within<P: Peer>(peer: &P, window: Window) -> Cpu {
    tokio::time::sleep_until(window.begin.into()).await;
    let before = Cpu::spent(peer);
    tokio::time::sleep_until(window.end.into()).await;
    Cpu::spent(peer).since(before)
}
