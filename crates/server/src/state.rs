//! What every handler and session shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use daybook_store::EventStore;
use tokio::sync::{mpsc, watch};

use crate::Config;
use crate::groups::Groups;
use crate::lanes::Lanes;

pub(crate) struct Shared {
    pub store: Arc<dyn EventStore>,
    pub groups: Groups,
    pub lanes: Lanes,
    pub config: Config,
    /// Names this process in `welcome`.
    pub node: String,
    pub metrics: Metrics,
    /// Turns true once, when the server goes down.
    pub shutdown: watch::Receiver<bool>,
    /// Held by every session; shutdown waits until all are gone.
    pub alive: mpsc::Sender<()>,
}

/// Counters of the shell; those of the store come from the store.
#[derive(Default)]
pub(crate) struct Metrics {
    pub connections_total: AtomicU64,
    pub connections_open: AtomicU64,
    pub publishes_refused_total: AtomicU64,
}

impl Metrics {
    /// Counts a connection for as long as the guard lives.
    pub fn connection(self: &Metrics) {
        self.connections_total.fetch_add(1, Ordering::Relaxed);
        self.connections_open.fetch_add(1, Ordering::Relaxed);
    }

    pub fn connection_closed(&self) {
        self.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}
