//! Starting and stopping a host: check all scripts, start their instances, serve.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};

use daybook_client::Client;
use daybook_model::Position;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::engine::instance::{self, Blueprint, Job};
use crate::http::{self, Table};
use crate::reload::{self, Reload, Source, check};
use crate::state::State;
use crate::{Config, Script, StartError, StateLocation};

/// Requests that wait for an instance; beyond that 503.
const WAITING: usize = 1_024;

/// Which services run here, for routes and `svc:http`.
pub(crate) struct Directory {
    pub services: HashMap<String, Service>,
    /// Services of other hosts: name → base URL.
    pub elsewhere: HashMap<String, String>,
    /// Names in the order of the scripts.
    pub order: Vec<String>,
    pub reloads: mpsc::Sender<reload::Request>,
    table: RwLock<Arc<Table>>,
    pub token: Option<String>,
}

pub(crate) struct Service {
    pub client: Client,
    pub instances: Vec<mpsc::Sender<Job>>,
    pub next: std::sync::atomic::AtomicUsize,
}

impl Directory {
    pub fn table(&self) -> Arc<Table> {
        self.table.read().expect("no code panics while it holds this lock").clone()
    }

    pub fn replace_table(&self, table: Table) {
        *self.table.write().expect("no code panics while it holds this lock") = Arc::new(table);
    }
}

impl Service {
    /// Requests go round; any instance can answer any of them.
    pub fn pick(&self) -> &mpsc::Sender<Job> {
        let turn = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        &self.instances[turn % self.instances.len()]
    }
}

/// A running host.
pub struct Host {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    serving: JoinHandle<std::io::Result<()>>,
    reloading: JoinHandle<()>,
    clients: Vec<Client>,
}

/// Starts all services; returns once their routes are served.
pub async fn start(config: Config) -> Result<Host, StartError> {
    let mut sources = Vec::new();
    for script in &config.scripts {
        sources.push(match script {
            Script::Source { name, text } => Source::of_text(name, text),
            Script::File(path) => Source::read(path)?,
        });
    }
    // Every script is checked before the first one starts.
    let bundles: Vec<_> = sources.iter().map(|source| source.bundle.clone()).collect();
    let (names, table) = check(&bundles, config.limits)?;
    let order = names.clone();
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| StartError::Listen { address: config.listen, source })?;
    let address =
        listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;

    let mut services = HashMap::new();
    let mut pending = Vec::new();
    let mut clients = Vec::new();
    let mut texts = Vec::new();
    for (service, source) in names.into_iter().zip(&sources) {
        let (text, changes) = watch::channel(source.bundle.clone());
        texts.push(text);
        let name = &source.bundle.name;
        let state = open_state(&config.state, &service)?;
        let reached = watch::Sender::new(Position::ZERO);
        let mut instances = Vec::new();
        let mut first = None;
        for i in 0..config.instances.max(1) {
            let instance = format!("{}-{i}", config.instance_name);
            let client =
                Client::builder(&config.bus).service(service.as_str()).instance(instance).connect().await?;
            clients.push(client.clone());
            first.get_or_insert(client.clone());
            let (jobs, inbox) = mpsc::channel(WAITING);
            instances.push(jobs);
            pending.push((
                name.clone(),
                changes.clone(),
                client,
                state.clone(),
                reached.clone(),
                i == 0,
                inbox,
            ));
        }
        let client = first.expect("there is at least one instance");
        services.insert(service, Service { client, instances, next: 0.into() });
    }
    let (reloads, asked) = mpsc::channel(4);
    let directory = Arc::new(Directory {
        services,
        elsewhere: config.services.clone(),
        order,
        reloads,
        table: RwLock::new(Arc::new(table)),
        token: config.token.clone(),
    });
    let (stop, stopped) = watch::channel(false);
    let mut threads = Vec::new();
    for (name, text, client, state, reached, writes_views, inbox) in pending {
        let blueprint = Blueprint {
            name: name.clone(),
            text,
            limits: config.limits,
            client,
            state,
            directory: directory.clone(),
            reached,
            writes_views,
        };
        let stopped = stopped.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(instance::run(blueprint, inbox, stopped)),
                Err(error) => tracing::error!(%error, "an instance cannot start"),
            }
        });
        threads.push(thread.map_err(|error| StartError::Other(error.to_string()))?);
    }
    let reload =
        Reload { sources, texts, directory: directory.clone(), limits: config.limits, how: config.reload };
    let reloading = tokio::spawn(reload.run(asked));
    let app = http::router(directory);
    let mut ending = stopped;
    let serving = tokio::spawn(async move {
        axum::serve(listener, app)
            .with_graceful_shutdown(async move {
                let _ = ending.wait_for(|stop| *stop).await;
            })
            .await
    });
    Ok(Host { address, stop, threads, serving, reloading, clients })
}

fn open_state(location: &StateLocation, service: &str) -> Result<State, StartError> {
    let StateLocation::Dir(dir) = location;
    let fail = |reason: String| StartError::State { path: dir.clone(), reason };
    std::fs::create_dir_all(dir).map_err(|error| fail(error.to_string()))?;
    State::open(&dir.join(format!("{service}.redb"))).map_err(fail)
}

impl Host {
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Lets handlers finish, leaves the groups in good order, closes the connections.
    pub async fn shutdown(self) {
        let Self { stop, threads, mut serving, reloading, clients, .. } = self;
        reloading.abort();
        stop.send_replace(true);
        // A stream that never ends must not hold us.
        if tokio::time::timeout(std::time::Duration::from_secs(2), &mut serving).await.is_err() {
            serving.abort();
        }
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), joined).await;
        for client in clients {
            client.close().await;
        }
    }
}
