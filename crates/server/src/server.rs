//! Starting and stopping.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use axum::serve::{Listener, ListenerExt};
use daybook_store::local::LocalStore;
use daybook_store::{EventStore, Health};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::groups::Groups;
use crate::lanes::Lanes;
use crate::state::{Metrics, Shared};
use crate::{Config, http, lent, ws};

/// Why a server did not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("cannot listen on {address}: {source}{}", in_use_advice(source))]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot open the log in {}: {source}", data.display())]
    Store { data: PathBuf, source: daybook_store::local::OpenError },
    #[error("cannot restore the groups: {0}")]
    Groups(String),
    #[error("cannot start {threads} threads for sessions: {source}")]
    Threads { threads: usize, source: io::Error },
}

fn in_use_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (another process listens there; choose another with --listen, port 0 picks a free one)"
        }
        _ => "",
    }
}

/// A running server. Dropped, it goes down with nobody waiting for it;
/// [`Server::shutdown`] waits until everything is answered and on disk.
pub struct Server {
    address: SocketAddr,
    shutdown: watch::Sender<bool>,
    sessions: mpsc::Receiver<()>,
    accepting: JoinHandle<io::Result<()>>,
    pub(crate) shared: Arc<Shared>,
}

/// Opens the log of `config.data` and serves it.
pub async fn start(config: Config) -> Result<Server, StartError> {
    // The port first: a second server must not touch the directory at all.
    let listener = listen(config.listen).await?;
    let (data, options) = (config.data.clone(), config.store.clone());
    let open = if config.read_only { LocalStore::open_read_only } else { LocalStore::open };
    let opened = tokio::task::spawn_blocking(move || open(&data, options))
        .await
        .expect("opening a log does not panic");
    let store = opened.map_err(|source| StartError::Store { data: config.data.clone(), source })?;
    start_on(config, Arc::new(store), listener).await
}

/// Serves any store; `config.data` is not looked at.
pub async fn start_with(config: Config, store: Arc<dyn EventStore>) -> Result<Server, StartError> {
    let listener = listen(config.listen).await?;
    start_on(config, store, listener).await
}

async fn listen(address: SocketAddr) -> Result<impl Listener<Addr = SocketAddr>, StartError> {
    let tcp = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
    // Small frames must not wait for the peer's acknowledgement of the last one.
    Ok(tcp.tap_io(|tcp| {
        let _ = tcp.set_nodelay(true);
    }))
}

/// Serves any store to whoever the listener lets in: a socket that was handed
/// over, or a network that is simulated. Neither `config.data` nor
/// `config.listen` is looked at.
pub async fn start_on(
    config: Config,
    store: Arc<dyn EventStore>,
    listener: impl Listener<Addr = SocketAddr>,
) -> Result<Server, StartError> {
    let address =
        listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
    let groups = Groups::open(store.clone(), &config).await.map_err(|e| StartError::Groups(e.to_string()))?;
    let threads = config.session_threads;
    let lanes = Lanes::start(threads).map_err(|source| StartError::Threads { threads, source })?;
    let (shutdown, on_shutdown) = watch::channel(false);
    let (alive, sessions) = mpsc::channel(1);
    let shared = Arc::new(Shared {
        store,
        groups,
        lanes,
        config,
        node: uuid::Uuid::now_v7().to_string(),
        metrics: Metrics::default(),
        shutdown: on_shutdown.clone(),
        alive,
    });
    lent::lend(&*shared.store, &shared.lanes);
    let app: Router =
        Router::new().route("/v1/ws", get(ws::upgrade)).merge(http::router()).with_state(shared.clone());
    let mut stop = on_shutdown;
    let accepting = tokio::spawn(async move {
        axum::serve(listener, app)
            .with_graceful_shutdown(async move {
                let _ = stop.wait_for(|down| *down).await;
            })
            .await
    });
    Ok(Server { address, shutdown, sessions, accepting, shared })
}

impl Server {
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What the delivery tokens of this process begin with, and of no other.
    pub fn run(&self) -> u64 {
        self.shared.groups.run()
    }

    /// Waits until the store cannot go on; tells why.
    pub async fn wait(&self) -> String {
        let mut health = self.shared.store.health();
        match health.wait_for(|h| matches!(h, Health::Poisoned(_))).await {
            Ok(health) => match &*health {
                Health::Poisoned(reason) => reason.clone(),
                other => format!("{other:?}"),
            },
            Err(_) => "the store is gone".into(),
        }
    }

    /// Tells every client to reconnect elsewhere, answers what is durable,
    /// writes the groups' cursors and closes the log.
    pub async fn shutdown(self) {
        let Self { shutdown, mut sessions, mut accepting, shared, .. } = self;
        shared.groups.drain();
        shutdown.send_replace(true);
        let timeout = shared.config.drain_timeout;
        let (store, groups) = (shared.store.clone(), shared.groups.clone());
        let left = Arc::downgrade(&shared);
        drop(shared);
        if tokio::time::timeout(timeout, &mut accepting).await.is_err() {
            accepting.abort();
        }
        // `recv` ends when the last session has dropped its sender.
        if tokio::time::timeout(timeout, sessions.recv()).await.is_err() {
            tracing::warn!("some sessions did not take their last answers in time");
        }
        groups.close().await;
        store.close().await;
        if let Some(shared) = left.upgrade() {
            shared.lanes.stop();
        }
    }
}
