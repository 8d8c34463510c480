//! What was measured, kept as JSON so that a run can be made in pieces and told
//! as one. A cell measured again replaces its old figures as a whole: only
//! figures of one run can be compared.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::peer::Kind;
use crate::stats::median;

/// One peer's figures of one round. Absent: not measured there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_event: Option<f64>,
    /// The load generator's own, which shares the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_us_per_event: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_per_accept: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes_per_event: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_clean_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_killed_ms: Option<f64>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// One cell, all its peers and rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Seconds since the epoch.
    pub begun: u64,
    pub seconds: f64,
    pub quick: bool,
    /// Of the Daybook that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// In the order measured.
    pub rounds: Vec<Round>,
    /// Peers that were asked for and could not, and why.
    #[serde(default)]
    pub absent: BTreeMap<Kind, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    pub peer: Kind,
    pub figures: Figures,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Results {
    pub machine: BTreeMap<String, String>,
    pub versions: BTreeMap<Kind, String>,
    pub cells: BTreeMap<String, Run>,
}

impl Results {
    pub fn load(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(path)?;
        Ok(serde_json::from_str(&text).map_err(|e| format!("{} is no result file: {e}", path.display()))?)
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(std::fs::write(path, text)?)
    }
}

/// A figure over all rounds of a peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Run {
    pub fn spread(&self, peer: Kind, figure: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
        let of_peer = self.rounds.iter().filter(|round| round.peer == peer);
        let values: Vec<f64> = of_peer.filter_map(|round| figure(&round.figures)).collect();
        Some(Spread {
            median: median(&values)?,
            least: values.iter().copied().reduce(f64::min)?,
            most: values.iter().copied().reduce(f64::max)?,
        })
    }

    /// Peers in the order they first came.
    pub fn peers(&self) -> Vec<Kind> {
        let mut peers: Vec<Kind> = self.rounds.iter().map(|round| round.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }
}
