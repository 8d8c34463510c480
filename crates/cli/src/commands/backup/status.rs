//! How a backup goes: for people a line, for machines `backup.json` in the copy.

use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use daybook_model::Timestamp;
use serde_json::{Value, json};

/// Beside the copy's files; nothing reads it but monitors.
const FILE: &str = "backup.json";

/// How far the copy is behind the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    /// Position that the copy's next event gets.
    pub copied: u64,
    pub head: u64,
    pub events: u64,
    /// About so many: what is not read yet has no known size.
    pub bytes: u64,
    /// Age of the oldest event that is not copied.
    pub seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Following,
    /// Something failed that may pass.
    Retrying(String),
    /// Something failed that somebody has to decide about.
    Failed(String),
    Stopped,
}

pub struct Status {
    source: String,
    state: Option<State>,
    pub lag: Lag,
    events: u64,
    bytes: u64,
    updated: Timestamp,
}

impl Status {
    pub fn new(source: &Path) -> Self {
        let source = source.canonicalize().unwrap_or_else(|_| source.to_owned()).display().to_string();
        Self { source, state: None, lag: Lag::default(), events: 0, bytes: 0, updated: now() }
    }

    pub fn copied(&mut self, events: u64, bytes: u64) {
        self.events += events;
        self.bytes += bytes;
    }

    /// Of what this process has copied.
    pub fn bytes_per_event(&self) -> f64 {
        const UNKNOWN: f64 = 400.0;
        if self.events == 0 { UNKNOWN } else { self.bytes as f64 / self.events as f64 }
    }

    pub fn is_other(&self, state: &State) -> bool {
        self.state.as_ref() != Some(state)
    }

    /// As well as it can be: a full disk must not end the backup that waits for room.
    pub fn write(&mut self, copy: &Path, state: State) {
        self.state = Some(state);
        self.updated = now();
        // Beside what is no copy it would be a foreign file.
        if !copy.join("LOG").is_file() {
            return;
        }
        let fresh = copy.join(format!("{FILE}.new"));
        if std::fs::write(&fresh, format!("{}\n", self.json())).is_ok() {
            let _ = std::fs::rename(&fresh, copy.join(FILE));
        }
    }

    pub fn json(&self) -> Value {
        let (state, reason) = match &self.state {
            None => ("starting", None),
            Some(State::Following) => ("following", None),
            Some(State::Retrying(reason)) => ("retrying", Some(reason)),
            Some(State::Failed(reason)) => ("failed", Some(reason)),
            Some(State::Stopped) => ("stopped", None),
        };
        let Lag { copied, head, events, bytes, seconds } = self.lag;
        json!({
            "state": state, "reason": reason, "source": self.source,
            "copied": copied.to_string(), "head": head.to_string(),
            "lag_events": events.to_string(), "lag_bytes": bytes, "lag_seconds": (seconds * 1e3).round() / 1e3,
            "updated": self.updated.to_string(),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(State::Retrying(reason)) = &self.state {
            write!(f, "cannot copy now, trying again: {reason}; ")?;
        }
        let Lag { copied, events, bytes, seconds, .. } = self.lag;
        write!(f, "{copied} events copied, {events} behind")?;
        match events {
            0 => Ok(()),
            _ => write!(f, " (about {} KiB, {seconds:.1} s)", bytes.div_ceil(1024)),
        }
    }
}

pub fn seconds_since(time: Timestamp) -> f64 {
    (now().0 - time.0).max(0) as f64 / 1e6
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
