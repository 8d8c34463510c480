//! Taking turns: in each round every peer is started on an empty directory,
//! measured and ended, the next round beginning with another one. So nobody
//! works in the background of somebody else's turn. For the replay all are
//! filled once and stay: reading leaves nothing to be done later.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tempfile::TempDir;

use crate::Result;
use crate::cells::{Cell, Workload};
use crate::payload::now;
use crate::peer::ceiling::Ceiling;
use crate::peer::daybook::Daybook;
use crate::peer::nats::Nats;
use crate::peer::postgres::Postgres;
use crate::peer::redis::Redis;
use crate::peer::umadb::UmaDb;
use crate::peer::{Durability, Kind, Peer, Tools};
use crate::results::{Figures, Round, Run};
use crate::workload::{append, contention, delivery, fill, replay, size};

/// Events of each batch that a log is filled with before it is replayed.
const FILLED_BY: u64 = 100;
/// One part of the events of a cell is enough to see that it works.
const QUICK_PART: u64 = 50;

/// One cell and how it is to be measured.
pub struct Plan<'a> {
    pub cell: &'a Cell,
    pub peers: Vec<Kind>,
    pub rounds: usize,
    pub seconds: f64,
    pub quick: bool,
    pub commit: Option<String>,
    pub tools: &'a Tools,
    pub dir: &'a Path,
}

/// Calls a generic function for the type of `$kind`.
macro_rules! for_kind {
    ($kind:expr, $call:ident($($argument:expr),*)) => {
        match $kind {
            Kind::Daybook => $call::<Daybook>($($argument),*).await,
            Kind::Redis => $call::<Redis>($($argument),*).await,
            Kind::Postgres => $call::<Postgres>($($argument),*).await,
            Kind::Umadb => $call::<UmaDb>($($argument),*).await,
            Kind::Nats => $call::<Nats<1>>($($argument),*).await,
            Kind::Nats3 => $call::<Nats<3>>($($argument),*).await,
            Kind::Ceiling => $call::<Ceiling>($($argument),*).await,
        }
    };
}

pub async fn run(plan: &Plan<'_>) -> Result<Run> {
    let mut run = Run {
        begun: now().as_secs(),
        seconds: plan.seconds,
        quick: plan.quick,
        commit: plan.commit.clone(),
        rounds: Vec::new(),
        absent: Default::default(),
    };
    let mut peers = plan.peers.clone();
    peers.retain(|&peer| match plan.cell.takes(peer) {
        Ok(()) => true,
        Err(reason) => {
            run.absent.insert(peer, reason.to_owned());
            false
        }
    });
    let mut filled = BTreeMap::new();
    if let Workload::Replay { events } = plan.cell.workload {
        for &peer in &peers {
            match for_kind!(peer, filled_with(plan, plan.part(events))) {
                Ok(full) => drop(filled.insert(peer, full)),
                Err(error) => run.fails(plan, peer, &*error)?,
            }
        }
    }
    for round in 0..plan.rounds {
        for turn in 0..peers.len() {
            let peer = peers[(round + turn) % peers.len()];
            if run.absent.contains_key(&peer) {
                continue;
            }
            let figures = match filled.get(&peer) {
                Some(filled) => filled.replay().await,
                None => for_kind!(peer, turn_of(plan)),
            };
            match figures {
                Ok(figures) => {
                    eprintln!("{} · round {} · {}: {figures}", plan.cell.name, round + 1, peer.title());
                    run.rounds.push(Round { peer, figures });
                }
                Err(error) => run.fails(plan, peer, &*error)?,
            }
        }
    }
    Ok(run)
}

impl Run {
    /// A peer that cannot do what a cell asks for does not take part in it; the
    /// others are measured on. Without Daybook there is nothing to compare.
    fn fails(&mut self, plan: &Plan<'_>, peer: Kind, error: &dyn std::error::Error) -> Result<()> {
        let what = format!("{} in {}: {error}", peer.title(), plan.cell.name);
        if peer == Kind::Daybook {
            return Err(what.into());
        }
        eprintln!("bench: {what}");
        self.rounds.retain(|round| round.peer != peer);
        self.absent.insert(peer, format!("failed: {error}"));
        Ok(())
    }
}

impl Plan<'_> {
    fn part(&self, events: u64) -> u64 {
        if self.quick { events / QUICK_PART } else { events }
    }
}

async fn turn_of<P: Peer>(plan: &Plan<'_>) -> Result<Figures> {
    let dir = tempfile::tempdir_in(plan.dir)?;
    match plan.cell.workload {
        Workload::Size { events } => return size::run::<P>(plan.tools, dir.path(), plan.part(events)).await,
        Workload::ReplayInProcess { events } => return in_process(plan, dir.path(), plan.part(events)),
        _ => {}
    }
    let peer = Arc::new(P::start(plan.tools, dir.path(), Durability::Always).await?);
    // What starting left to be written.
    tokio::time::sleep(Duration::from_millis(200)).await;
    match plan.cell.workload {
        Workload::Append { writers, batch } => append::run(peer.as_ref(), writers, batch, plan.seconds).await,
        Workload::Delivery => delivery::run(&peer, plan.seconds).await,
        Workload::Contenders => contention::contenders(peer.as_ref(), plan.seconds).await,
        Workload::Owner => contention::owner(peer.as_ref(), plan.seconds).await,
        Workload::Replay { .. } | Workload::ReplayInProcess { .. } | Workload::Size { .. } => {
            Err("has turns of its own".into())
        }
    }
}

/// The product measures that itself: a store in its own process, no socket.
fn in_process(plan: &Plan<'_>, dir: &Path, events: u64) -> Result<Figures> {
    #[derive(serde::Deserialize)]
    struct Store {
        replay_events_per_s: f64,
    }
    let mut command = std::process::Command::new(&plan.tools.daybook);
    command.args(["bench", "store", "--events", &events.to_string()]);
    command.args(["--keys", &(events / FILLED_BY).to_string()]).arg("--dir").arg(dir);
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let store: Store = serde_json::from_slice(&output.stdout)?;
    Ok(Figures { events_per_s: Some(store.replay_events_per_s), ..Figures::default() })
}

/// A system with events in it, whatever its type.
trait Filled {
    fn replay(&self) -> LocalBoxFuture<'_, Result<Figures>>;
}

struct Full<P> {
    peer: P,
    events: u64,
    _dir: TempDir,
}

impl<P: Peer> Filled for Full<P> {
    fn replay(&self) -> LocalBoxFuture<'_, Result<Figures>> {
        Box::pin(replay::run(&self.peer, self.events))
    }
}

async fn filled_with<P: Peer>(plan: &Plan<'_>, events: u64) -> Result<Box<dyn Filled>> {
    let dir = tempfile::tempdir_in(plan.dir)?;
    let peer = P::start(plan.tools, dir.path(), Durability::WhileFilling).await?;
    fill::run(&peer, events / FILLED_BY, FILLED_BY as usize).await?;
    Ok(Box::new(Full { peer, events, _dir: dir }))
}
