//! Who keeps a service's tables: one host leads, and its first instance fills
//! them, follows the log, fires timers, and rebuilds when asked.
//!
//! # Promises
//! 1. Of several hosts on one Redis one leads; the others wait, and take over
//!    when it is silent. What a former leader still wants to write is refused.
//! 2. Handlers of a script that uses its own table run only on one that is filled.
//! 3. A rebuild fills the next generation while the present one is read and
//!    followed, then moves to it in one step.
//!
//! # After a failure
//! It begins again from what is committed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use daybook_model::Position;
use tokio::sync::{Mutex, mpsc, watch};

use super::progress::{Progress, Report};
use super::setbacks::Setbacks;
use super::{replay, timers, views};
use crate::machine::{Machine, describe};
use crate::state::{State, Tables};

/// How often one that does not lead looks.
const LOOK: Duration = Duration::from_millis(50);

/// A wish to rebuild, and where to tell how far it is.
pub(crate) type Wish = mpsc::Sender<Report>;

/// What outlives a machine.
#[derive(Clone)]
pub(crate) struct Keeping {
    /// How far the views are.
    pub reached: watch::Sender<Position>,
    /// Whether handlers that use the service's own table may run.
    pub filled: watch::Sender<bool>,
    pub wishes: Arc<Mutex<mpsc::Receiver<Wish>>>,
    /// What the views cannot take.
    pub setbacks: Setbacks,
}

/// Keeps the tables for ever.
pub(crate) async fn run(machine: Rc<Machine>, keeping: Keeping) {
    let mut wishes = keeping.wishes.lock().await;
    loop {
        if let Err(error) = keep(&machine, &keeping, &mut wishes).await {
            tracing::error!(error = describe(&error), "the tables are not kept up; tried again in 500 ms");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn keep(machine: &Machine, keeping: &Keeping, wishes: &mut mpsc::Receiver<Wish>) -> mlua::Result<()> {
    let state = machine.shared.state()?;
    if !state.lead(false).map_err(mlua::Error::external)? {
        return look_on(machine, keeping, state, wishes).await;
    }
    let tables = state.look_again().map_err(mlua::Error::external)?;
    if !tables.is_filled().map_err(mlua::Error::external)? {
        keeping.filled.send_replace(!machine.shared.own_table);
        let mut progress = Progress::new(None, Position::ZERO);
        tokio::select! {
            filled = replay::fill(machine, &tables, None, &mut progress) => filled?,
            lost = renew(state, false) => return lost,
        }
        tables.mark_filled().map_err(mlua::Error::external)?;
    }
    keeping.filled.send_replace(true);
    let wish = tokio::select! {
        ended = views::follow(machine, &tables, &keeping.reached, &keeping.setbacks) => return ended,
        ended = timers::follow(machine, &tables) => return ended,
        lost = renew(state, false) => return lost,
        wish = wishes.recv() => wish,
    };
    let Some(wish) = wish else { return std::future::pending().await };
    let head = head(machine).await?;
    let mut progress = Progress::new(Some(wish), head);
    let rebuilt = tokio::select! {
        rebuilt = rebuild(machine, keeping, state, &tables, &mut progress) => rebuilt,
        ended = views::follow(machine, &tables, &keeping.reached, &keeping.setbacks) => ended,
        lost = renew(state, machine.shared.own_table) => lost,
    };
    progress.end(rebuilt.as_ref().err().map(describe)).await;
    rebuilt
}

/// Until this host leads: how far the leader is.
async fn look_on(
    machine: &Machine,
    keeping: &Keeping,
    state: &State,
    wishes: &mut mpsc::Receiver<Wish>,
) -> mlua::Result<()> {
    let tables = state.look_again().map_err(mlua::Error::external)?;
    keeping
        .filled
        .send_replace(!machine.shared.own_table || tables.is_filled().map_err(mlua::Error::external)?);
    if let Some(position) = views::position(&tables)? {
        keeping.reached.send_replace(position);
    }
    if let Ok(wish) = wishes.try_recv() {
        let mut progress = Progress::new(Some(wish), Position::ZERO);
        let name = machine.shared.definitions.borrow().name.clone();
        let why = match state.leader().map_err(mlua::Error::external)? {
            Some(host) => {
                format!("another host leads this service: daybook rebuild {name} --host {host}")
            }
            None => "no host leads this service just now: ask again in a few seconds".into(),
        };
        progress.end(Some(why)).await;
    }
    tokio::time::sleep(LOOK).await;
    Ok(())
}

/// Ends when this host does not lead any more.
async fn renew(state: &State, filling: bool) -> mlua::Result<()> {
    loop {
        tokio::time::sleep(State::RENEW).await;
        if !state.lead(filling).map_err(mlua::Error::external)? {
            return Err(mlua::Error::runtime("another host leads this service now"));
        }
        // The tables may be another's, or gone.
        if state.is_shared() {
            let known = state.tables().map_err(mlua::Error::external)?.generation();
            if state.look_again().map_err(mlua::Error::external)?.generation() != known {
                return Err(mlua::Error::runtime("the state was lost; it is rebuilt from the log"));
            }
        }
    }
}

async fn head(machine: &Machine) -> mlua::Result<Position> {
    use daybook_client::ReadQuery;
    let query = ReadQuery { limit: Some(1), reverse: true, ..ReadQuery::default() };
    let page = machine.shared.client()?.read(query).await.map_err(super::bus_error)?;
    Ok(page.events.first().map_or(Position::ZERO, |event| event.position.next()))
}

async fn rebuild(
    machine: &Machine,
    keeping: &Keeping,
    state: &State,
    old: &Tables,
    progress: &mut Progress,
) -> mlua::Result<()> {
    let fresh = state.beside();
    keeping.filled.send_replace(!machine.shared.own_table);
    let filled = async {
        // From here on no handler commits into the old tables.
        state.lead(machine.shared.own_table).map_err(mlua::Error::external)?;
        views::call_back(machine, &fresh, true)?;
        views::fill(machine, &fresh, Position::ZERO, progress).await?;
        timers::fill(machine, &fresh, progress).await?;
        replay::fill(machine, &fresh, Some(old), progress).await?;
        // The first part took its time: nobody may see the tables go back.
        let reached = *keeping.reached.borrow();
        views::fill(machine, &fresh, reached, progress).await?;
        views::call_back(machine, &fresh, false)?;
        fresh.mark_filled().map_err(mlua::Error::external)?;
        state.advance(old, &fresh).map_err(mlua::Error::external)
    };
    let outcome = filled.await;
    if outcome.is_err() {
        let _ = state.discard(&fresh);
    }
    state.lead(false).map_err(mlua::Error::external)?;
    keeping.filled.send_replace(true);
    outcome.map(drop)
}
