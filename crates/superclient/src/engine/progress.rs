//! How far a rebuild is: events, rate, time that is left.

use std::time::{Duration, Instant};

use daybook_model::Position;
use serde::Serialize;
use tokio::sync::mpsc;

const EVERY: Duration = Duration::from_millis(200);

/// One line of what is told.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub phase: &'static str,
    pub events: u64,
    pub events_per_s: u64,
    pub position: Position,
    pub head: Position,
    /// Absent when nothing can be said yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Counts events and tells now and then.
pub(crate) struct Progress {
    to: Option<mpsc::Sender<Report>>,
    head: Position,
    phase: &'static str,
    events: u64,
    position: Position,
    begun: Instant,
    /// Of the present phase.
    phase_begun: Instant,
    phase_events: u64,
    told: Instant,
}

impl Progress {
    pub fn new(to: Option<mpsc::Sender<Report>>, head: Position) -> Self {
        let now = Instant::now();
        Self {
            to,
            head,
            phase: "start",
            events: 0,
            position: Position::ZERO,
            begun: now,
            phase_begun: now,
            phase_events: 0,
            told: now,
        }
    }

    pub fn phase(&mut self, phase: &'static str) {
        self.phase = phase;
        self.position = Position::ZERO;
        self.phase_begun = Instant::now();
        self.phase_events = 0;
        self.tell();
    }

    pub fn event(&mut self, position: Position) {
        self.events += 1;
        self.phase_events += 1;
        self.position = position;
        if self.events.is_multiple_of(256) && self.told.elapsed() >= EVERY {
            self.tell();
        }
    }

    /// The last word, which whoever listens must get.
    pub async fn end(&mut self, error: Option<String>) {
        self.phase = if error.is_some() { "failed" } else { "done" };
        let report = self.report(error);
        if let Some(to) = &self.to {
            let _ = tokio::time::timeout(Duration::from_secs(1), to.send(report)).await;
        }
    }

    fn tell(&mut self) {
        self.told = Instant::now();
        let report = self.report(None);
        if let Some(to) = &self.to {
            // Whoever does not listen misses a line, not the rebuild.
            let _ = to.try_send(report);
        }
    }

    fn report(&self, error: Option<String>) -> Report {
        let seconds = self.phase_begun.elapsed().as_secs_f64();
        let left = self.head.0.saturating_sub(self.position.0) as f64;
        let seconds_left =
            (self.position.0 > 0 && seconds > 0.0).then(|| (left * seconds / self.position.0 as f64) as u64);
        Report {
            phase: self.phase,
            events: self.events,
            events_per_s: (self.events as f64 / self.begun.elapsed().as_secs_f64().max(0.001)) as u64,
            position: self.position,
            head: self.head,
            seconds_left,
            error,
        }
    }
}
