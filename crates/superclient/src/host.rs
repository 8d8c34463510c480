//! Starting and stopping a host: check all scripts, start their instances, serve.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};

use daybook_client::Client;
use daybook_model::Position;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::bundle::Bundle;
use crate::engine::common::Common;
use crate::engine::instance::{self, Blueprint, Job};
use crate::engine::keeper::{Keeping, Wish};
use crate::engine::setbacks::Setbacks;
use crate::http::{self, Table};
use crate::reload::{self, Reload, Source, check};
use crate::state::State;
use crate::{Config, Script, StartError};

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
    /// The first instance's.
    pub client: Client,
    pub instances: Vec<mpsc::Sender<Job>>,
    pub next: std::sync::atomic::AtomicUsize,
    pub state: State,
    /// Asks the first instance for a rebuild.
    pub wishes: mpsc::Sender<Wish>,
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

    let (stop, stopped) = watch::channel(false);
    let mut services = HashMap::new();
    let mut seats = Vec::new();
    let mut texts = Vec::new();
    for (service, source) in names.into_iter().zip(&sources) {
        let (text, changes) = watch::channel(source.bundle.clone());
        texts.push(text);
        let state = State::open_at(&config.state, &service, &format!("http://{address}"))?;
        let (wishes, wished) = mpsc::channel(1);
        let keeping = Keeping {
            reached: watch::Sender::new(Position::ZERO),
            filled: watch::Sender::new(false),
            wishes: Arc::new(tokio::sync::Mutex::new(wished)),
            setbacks: Setbacks::default(),
        };
        let common = Arc::<Common>::default();
        let mut instances = Vec::new();
        let mut first = None;
        for i in 0..config.instances.max(1) {
            let instance = format!("{}-{i}", config.instance_name);
            let builder = Client::builder(&config.bus).service(service.as_str()).instance(instance);
            let (jobs, inbox) = mpsc::channel(WAITING);
            instances.push(jobs);
            let seat = Seat::take(&source.bundle.name, builder).await?;
            first.get_or_insert(seat.client.clone());
            let blueprint = Plan {
                name: source.bundle.name.clone(),
                text: changes.clone(),
                state: state.clone(),
                common: common.clone(),
                keeping: keeping.clone(),
                keeps: i == 0,
                inbox,
            };
            seats.push((seat, blueprint));
        }
        let client = first.expect("there is at least one instance");
        services.insert(service, Service { client, instances, next: 0.into(), state, wishes });
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
    let mut threads = Vec::new();
    for (seat, plan) in seats {
        let Seat { client, go, thread } = seat;
        let blueprint = Blueprint {
            name: plan.name,
            text: plan.text,
            limits: config.limits,
            client,
            state: plan.state,
            directory: directory.clone(),
            common: plan.common,
            keeping: plan.keeping,
            keeps: plan.keeps,
        };
        // A thread that is gone has said why.
        let _ = go.send((blueprint, plan.inbox, stopped.clone()));
        threads.push(thread);
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
    Ok(Host { address, stop, threads, serving, reloading })
}

/// What an instance will be, once everybody is known.
struct Plan {
    name: String,
    text: watch::Receiver<Arc<Bundle>>,
    state: State,
    common: Arc<Common>,
    keeping: Keeping,
    keeps: bool,
    inbox: mpsc::Receiver<Job>,
}

type Go = (Blueprint, mpsc::Receiver<Job>, watch::Receiver<bool>);

/// An instance's thread with its connection: what comes over it is handled where
/// it arrives, without waking anybody else.
struct Seat {
    client: Client,
    go: oneshot::Sender<Go>,
    thread: std::thread::JoinHandle<()>,
}

impl Seat {
    async fn take(name: &str, builder: daybook_client::Builder) -> Result<Self, StartError> {
        let (go, gone) = oneshot::channel::<Go>();
        let (connected, connection) = oneshot::channel();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = connected.send(Err(StartError::Other(error.to_string())));
                    return;
                }
            };
            runtime.block_on(async {
                let client = builder.connect().await.map_err(StartError::from);
                let failed = client.is_err();
                let _ = connected.send(client);
                if !failed && let Ok((blueprint, inbox, stopped)) = gone.await {
                    instance::run(blueprint, inbox, stopped).await;
                }
            });
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = thread.map_err(|error| StartError::Other(error.to_string()))?;
        let client =
            connection.await.map_err(|_| StartError::Other("an instance's thread ended".into()))??;
        Ok(Self { client, go, thread })
    }
}

impl Host {
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Lets handlers finish, leaves the groups in good order, closes the connections.
    pub async fn shutdown(self) {
        let Self { stop, threads, mut serving, reloading, .. } = self;
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
        let _ = tokio::time::timeout(std::time::Duration::from_secs(15), joined).await;
    }
}
