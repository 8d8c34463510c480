//! A whole system in one thread: the server, members, publishers and followers
//! on simulated hosts, in virtual time, with everything that goes wrong chosen
//! by a seed.
//!
//! # Promises
//! 1. Same seed and options, same trace; one process runs one seed.
//! 2. What comes back was checked: an empty list of violations is the claim that
//!    every promise held.

mod faults;
mod mistake;
mod net;
mod operator;
mod store;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::entropy::{self, Dice};
use crate::history::check::Violation;
use crate::history::{self, Counts, Memory, Record, Scribe, What};
use crate::workload::{self, Actor, GROUPS, Orders};
use faults::Faults;
use store::{Disk, SimStore};

pub use mistake::{Mistake, Planted};

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    /// Virtual seconds with faults; then everything heals and has to end.
    pub seconds: u64,
    pub planted: Option<Planted>,
}

pub struct Outcome {
    pub violations: Vec<Violation>,
    pub counts: Counts,
    /// How often each fault was done.
    pub faults: BTreeMap<String, u64>,
    pub events: u64,
    pub virtual_ms: u64,
    /// Equal for equal runs.
    pub trace: u64,
    pub records: Vec<Record>,
}

/// Virtual time to end everything in, once all is healed: the longest backoff
/// of a delivery is a minute.
const CALM_MAX: Duration = Duration::from_secs(240);
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Name, group, and how many events of one key it takes at once.
const MEMBERS: [(&str, usize, u64); 8] = [
    ("ledger-1", 0, 1),
    ("ledger-2", 0, 4),
    ("ledger-3", 0, 2),
    ("audit-1", 1, 1),
    ("audit-2", 1, 3),
    ("fragile-1", 2, 1),
    ("fragile-2", 2, 3),
    ("fragile-3", 2, 8),
];
const PUBLISHERS: [&str; 3] = ["publisher-1", "publisher-2", "publisher-3"];
const FOLLOWERS: [&str; 2] = ["follower-1", "follower-2"];
const REBUILDERS: [&str; 2] = ["rebuilder-1", "rebuilder-2"];

/// Everybody but the server and the operator.
fn clients() -> impl Iterator<Item = &'static str> {
    MEMBERS.iter().map(|(name, ..)| *name).chain(PUBLISHERS).chain(FOLLOWERS).chain(REBUILDERS)
}

/// Of these seeds only clocks go wrong: then nothing has a reason to come twice.
fn only_clocks(seed: u64) -> bool {
    seed % 10 == 7
}

/// What the hosts and whoever breaks them share.
struct Shared {
    disk: Disk,
    memory: Arc<Memory>,
    /// Virtual milliseconds, for notes made outside the hosts.
    now: AtomicU64,
    calm: Arc<AtomicBool>,
    /// Hosts that shall go in good order.
    leave: BTreeMap<&'static str, Arc<AtomicBool>>,
    restart_server: Notify,
    /// The operator found nothing left to do.
    settled: AtomicBool,
}

pub fn run(options: Options) -> Outcome {
    entropy::seed(options.seed);
    let mut dice = Dice::new(options.seed, "world");
    let mistake = match options.planted {
        Some(Planted::Store(mistake)) => Some(mistake),
        _ => None,
    };
    daybook_bus::plant(match options.planted {
        Some(Planted::Group(bug)) => Some(bug),
        _ => None,
    });
    daybook_server::planted::plant(match options.planted {
        Some(Planted::Server(bug)) => Some(bug),
        _ => None,
    });
    let tick = Duration::from_millis(*dice.pick(&[2, 5]));
    let mut sim = turmoil::Builder::new()
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(entropy::EPOCH_SECONDS))
        .simulation_duration(Duration::from_secs(options.seconds) + CALM_MAX * 2)
        .tick_duration(tick)
        .rng_seed(options.seed)
        .enable_random_order()
        .tcp_capacity(4_096)
        .max_message_latency(Duration::from_millis(*dice.pick(&[1, 10, 60])))
        .build();
    let shared = shared(options.seed, mistake);
    server(&mut sim, &shared);
    for (name, group, window) in MEMBERS {
        let serve = move |actor| workload::serve(actor, &GROUPS[group], window);
        actor(&mut sim, &shared, options.seed, name, serve);
    }
    for name in PUBLISHERS {
        actor(&mut sim, &shared, options.seed, name, workload::publish);
    }
    for name in FOLLOWERS {
        actor(&mut sim, &shared, options.seed, name, workload::follow);
    }
    for name in REBUILDERS {
        actor(&mut sim, &shared, options.seed, name, workload::rebuild);
    }
    operator::host(&mut sim, &shared);

    let mut faults = Faults::new(options.seed, shared.clone());
    let stopped = drive(&mut sim, &shared, &mut faults, Duration::from_secs(options.seconds));
    let virtual_ms = shared.now.load(Ordering::SeqCst);
    // Hosts that end note nothing that counts.
    let records = shared.memory.take();
    drop(sim);

    let log = shared.disk.logged();
    let settled = shared.settled.load(Ordering::SeqCst);
    let mut verdict = history::check(&records, &log, &GROUPS, settled);
    let twice = [("again", verdict.counts.again), ("fenced", verdict.counts.fenced)];
    let mut broken = |rule, detail| verdict.violations.push(Violation { rule, detail });
    match stopped {
        Err(error) => broken("the system runs", error),
        Ok(()) if !settled => broken("everything comes to an end", format!("not within {CALM_MAX:?}")),
        Ok(()) => {}
    }
    for (what, n) in twice.into_iter().filter(|(_, n)| only_clocks(options.seed) && *n > 0) {
        broken("a clock that jumps costs no claim", format!("{n} {what}"));
    }
    Outcome {
        violations: verdict.violations,
        counts: verdict.counts,
        faults: faults.done(),
        events: log.entries.len() as u64,
        virtual_ms,
        trace: trace::of(&records, &log),
        records,
    }
}

fn shared(seed: u64, mistake: Option<Mistake>) -> Arc<Shared> {
    Arc::new_cyclic(|weak: &std::sync::Weak<Shared>| {
        let weak = weak.clone();
        let outside = move || weak.upgrade().map_or(0, |shared| shared.now.load(Ordering::SeqCst));
        Shared {
            disk: Disk::new(seed, mistake),
            memory: Memory::new(move || {
                turmoil::sim_elapsed().map_or_else(&outside, |elapsed| elapsed.as_millis() as u64)
            }),
            now: AtomicU64::new(0),
            calm: Arc::default(),
            leave: clients().map(|name| (name, Arc::default())).collect(),
            restart_server: Notify::new(),
            settled: AtomicBool::new(false),
        }
    })
}

/// Faults first, then peace until the operator is content.
fn drive(
    sim: &mut turmoil::Sim<'_>,
    shared: &Shared,
    faults: &mut Faults,
    duration: Duration,
) -> Result<(), String> {
    let step = |sim: &mut turmoil::Sim<'_>| {
        sim.step().map_err(|error| error.to_string())?;
        shared.now.store(sim.elapsed().as_millis() as u64, Ordering::SeqCst);
        entropy::set_time(sim.elapsed());
        Ok::<_, String>(())
    };
    while sim.elapsed() < duration {
        step(sim)?;
        faults.step(sim);
    }
    faults.heal_all(sim);
    shared.calm.store(true, Ordering::SeqCst);
    let end = sim.elapsed() + CALM_MAX;
    while sim.elapsed() < end && !shared.settled.load(Ordering::SeqCst) {
        step(sim)?;
        faults.keep_server_up(sim);
    }
    Ok(())
}

fn server(sim: &mut turmoil::Sim<'_>, shared: &Arc<Shared>) {
    let shared = shared.clone();
    sim.host(net::SERVER, move || {
        let shared = shared.clone();
        async move {
            entropy::of_host(net::SERVER);
            loop {
                let store = SimStore::open(&shared.disk);
                let listener = listen().await;
                let config = daybook_server::Config {
                    heartbeat: HEARTBEAT,
                    drain_timeout: Duration::from_secs(1),
                    ..daybook_server::Config::new("")
                };
                let server = daybook_server::start_on(config, store, listener).await?;
                shared.memory_note(What::Run { run: server.run() });
                tokio::select! {
                    // As the real one: a disk that failed ends the process.
                    _ = server.wait() => return Ok(()),
                    () = shared.restart_server.notified() => {}
                }
                server.shutdown().await;
            }
        }
    });
}

/// The listener of the process before may be a moment from its end.
async fn listen() -> net::Listener {
    loop {
        match net::Listener::bind().await {
            Ok(listener) => return listener,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// A host that does `work` again and again; each time counts as a new process.
fn actor<W, F>(sim: &mut turmoil::Sim<'_>, shared: &Arc<Shared>, seed: u64, name: &'static str, work: W)
where
    W: Fn(Actor) -> F + Clone + 'static,
    F: Future<Output = ()>,
{
    let shared = shared.clone();
    let boots = Arc::new(AtomicU64::new(0));
    sim.host(name, move || {
        let (shared, boots, work) = (shared.clone(), boots.clone(), work.clone());
        async move {
            entropy::of_host(name);
            loop {
                let boot = boots.fetch_add(1, Ordering::SeqCst) + 1;
                let who = format!("{name}#{boot}");
                let leave = shared.leave[name].clone();
                leave.store(false, Ordering::SeqCst);
                let actor = Actor {
                    dice: Dice::new(seed, &who),
                    scribe: Scribe::new(&who, shared.memory.clone()),
                    dial: Arc::new(net::dial),
                    orders: Orders { calm: shared.calm.clone(), leave },
                    calls: Arc::default(),
                    keys: 6,
                    pause_ms: 400,
                    faultless: only_clocks(seed),
                };
                work(actor).await;
                sleep(Duration::from_millis(100)).await;
            }
        }
    });
}

fn note_fault(shared: &Shared, kind: &str, target: &str) {
    shared.memory_note(What::Fault { kind: kind.to_owned(), target: target.to_owned() });
}

impl Shared {
    fn memory_note(&self, what: What) {
        use crate::history::Sink;
        self.memory.note("faults", what);
    }
}
