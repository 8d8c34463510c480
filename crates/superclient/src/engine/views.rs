//! Views: tables that follow the log. One instance writes them, all read them.

use std::rc::Rc;

use daybook_client::{Item, ReadQuery};
use daybook_model::wire::{Edge, Start};
use daybook_model::{Event, Filter, Position};
use futures_util::FutureExt;
use mlua::{AnyUserData, Function};
use tokio::sync::watch;

use super::progress::Progress;
use super::setbacks::{self, Again, PARKED, Setbacks};
use super::{bus_error, entities};
use crate::bindings::chance::Scope;
use crate::bindings::ctx;
use crate::machine::{CALL, Call, Kind, Machine, Overlay, Pure, Shared};
use crate::state::{Tables, Write};

/// Key under which the position is kept, in the same commit as the tables.
const POSITION: &[u8] = b"meta/views";

/// Events whose rows are committed together at most: what one of them wrote, the
/// next reads from memory.
const COMMIT_EVENTS: usize = 65_536;
/// Bytes of rows that wait at most, looked at every so many events.
const COMMIT_BYTES: usize = 16 << 20;
const LOOK_EVENTS: usize = 1_024;

/// All types that any view wants; `None` if there are no views.
pub(crate) fn filter(shared: &Shared) -> Option<Filter> {
    let definitions = shared.definitions.borrow();
    let types: std::collections::BTreeSet<&str> =
        definitions.views.iter().flat_map(|view| view.types.iter().map(String::as_str)).collect();
    (!types.is_empty()).then(|| Filter::types(types))
}

/// How far the tables are, if they were ever filled.
pub(crate) fn position(tables: &Tables) -> mlua::Result<Option<Position>> {
    Ok(kept(tables)?.map(|(position, _)| position))
}

/// Position, and the script that the tables were made by.
fn kept(tables: &Tables) -> mlua::Result<Option<(Position, String)>> {
    let kept = tables.get(POSITION).map_err(mlua::Error::external)?;
    let kept = kept.and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(kept.and_then(|text| {
        let (position, script) = text.split_once(' ')?;
        Some((position.parse().ok()?, script.to_owned()))
    }))
}

/// Follows the log for ever, and tells how far the tables are.
pub(crate) async fn follow(
    machine: &Machine,
    tables: &Tables,
    reached: &watch::Sender<Position>,
    setbacks: &Setbacks,
) -> mlua::Result<()> {
    let mut refilling = false;
    loop {
        let ended = follow_on(machine, tables, reached, setbacks, &mut refilling).await;
        match ended.as_ref().err().and_then(Again::of) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return ended,
        }
    }
}

async fn follow_on(
    machine: &Machine,
    tables: &Tables,
    reached: &watch::Sender<Position>,
    setbacks: &Setbacks,
    refilling: &mut bool,
) -> mlua::Result<()> {
    let shared = &machine.shared;
    let Some(filter) = filter(shared) else { return std::future::pending().await };
    // A view that was changed is another view: it is filled from the beginning.
    let from = match kept(tables)? {
        Some((position, script)) if script == shared.script_hash => position,
        _ => {
            tables.wipe(b"view/").map_err(mlua::Error::external)?;
            tables.wipe(PARKED).map_err(mlua::Error::external)?;
            if !std::mem::replace(refilling, true) {
                call_back(machine, tables, true)?;
            }
            Position::ZERO
        }
    };
    reached.send_replace(from);
    let mut pending = Pending::new(machine, tables, setbacks.clone());
    let mut subscription =
        shared.client()?.subscribe(Start::Position(from), filter).await.map_err(bus_error)?;
    let mut live = false;
    loop {
        // What has come already is committed together.
        let item = match subscription.next().now_or_never() {
            Some(item) => item,
            None => {
                if live && let Some(position) = pending.commit()? {
                    reached.send_replace(position);
                }
                subscription.next().await
            }
        };
        match item {
            Some(Item::Event(event)) => {
                if let Some(position) = pending.add(&event)? {
                    reached.send_replace(position);
                }
            }
            Some(Item::CaughtUp(position)) => {
                live = true;
                pending.filling = false;
                pending.commit()?;
                if std::mem::take(refilling) {
                    call_back(machine, tables, false)?;
                }
                reached.send_if_modified(|known| {
                    let further = position > *known;
                    *known = position.max(*known);
                    further
                });
            }
            None => return Err(mlua::Error::runtime("the bus is gone")),
        }
    }
}

/// Fills `tables` up to the head of the log, and at least up to `until`.
pub(crate) async fn fill(
    machine: &Machine,
    tables: &Tables,
    until: Position,
    progress: &mut Progress,
) -> mlua::Result<()> {
    progress.phase("views");
    let setbacks = Setbacks::default();
    loop {
        let ended = fill_on(machine, tables, until, progress, &setbacks).await;
        match ended.as_ref().err().and_then(Again::of) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return ended,
        }
    }
}

async fn fill_on(
    machine: &Machine,
    tables: &Tables,
    until: Position,
    progress: &mut Progress,
    setbacks: &Setbacks,
) -> mlua::Result<()> {
    let shared = &machine.shared;
    let Some(filter) = filter(shared) else { return Ok(()) };
    let from = position(tables)?.unwrap_or(Position::ZERO);
    let mut pending = Pending::new(machine, tables, setbacks.clone());
    let mut subscription =
        shared.client()?.subscribe(Start::Position(from), filter).await.map_err(bus_error)?;
    let mut caught_up = from;
    loop {
        match subscription.next().await {
            Some(Item::Event(event)) => {
                pending.add(&event)?;
                progress.event(event.position);
                caught_up = caught_up.max(event.position.next());
            }
            Some(Item::CaughtUp(position)) => {
                caught_up = caught_up.max(position);
                if caught_up >= until {
                    pending.reached(caught_up);
                    pending.commit()?;
                    return Ok(());
                }
            }
            None => return Err(mlua::Error::runtime("the bus is gone")),
        }
    }
}

/// Rows that wait to be committed together.
struct Pending<'a> {
    machine: &'a Machine,
    tables: &'a Tables,
    setbacks: Setbacks,
    /// The past comes first: nobody reads these rows yet.
    filling: bool,
    overlay: Overlay,
    events: usize,
    position: Option<Position>,
}

impl<'a> Pending<'a> {
    fn new(machine: &'a Machine, tables: &'a Tables, setbacks: Setbacks) -> Self {
        Self { machine, tables, setbacks, filling: true, overlay: Overlay::new(), events: 0, position: None }
    }

    /// Position that is committed, if this was enough for a commit.
    ///
    /// What waits is lost when an event fails, and is made again; before an event that
    /// has failed once it is committed, so that nothing is lost with it.
    fn add(&mut self, event: &Event) -> mlua::Result<Option<Position>> {
        self.setbacks.not_in_a_spent(self.machine)?;
        if self.setbacks.concern(event) {
            self.commit()?;
            self.overlay = self.alone(event)?;
            self.setbacks.forget();
            self.position = Some(event.position.next());
            return self.commit();
        }
        let overlay = std::mem::take(&mut self.overlay);
        self.overlay = match run(self.machine, event, overlay, Some(self.tables)) {
            Ok(overlay) => overlay,
            Err(Failed { view, error }) => {
                self.setbacks.failed(self.machine, event, self.filling, vec![(view, error)])?;
                Overlay::new()
            }
        };
        self.position = Some(event.position.next());
        self.events += 1;
        let full = self.events >= COMMIT_EVENTS
            || (self.events.is_multiple_of(LOOK_EVENTS) && self.bytes() >= COMMIT_BYTES);
        if full { self.commit() } else { Ok(None) }
    }

    /// One more attempt, each view for itself: one that fails does not hold up the others for ever.
    fn alone(&self, event: &Event) -> mlua::Result<Overlay> {
        self.machine.budget.make_room(&self.machine.lua)?;
        let mut overlay = Overlay::new();
        let mut errors = Vec::new();
        for view in wanted(self.machine, event) {
            if setbacks::is_parked(self.tables, &view.view, event).map_err(mlua::Error::external)? {
                continue;
            }
            match run_these(self.machine, event, overlay.clone(), Some(self.tables), vec![view]) {
                Ok(rows) => overlay = rows,
                Err(Failed { view, error }) => errors.push((view, error)),
            }
            // Nothing runs in this machine any more: the others have their turn in the next.
            if self.machine.budget.exceeded() {
                break;
            }
        }
        if !errors.is_empty() {
            let parked = self.setbacks.failed(self.machine, event, self.filling, errors)?;
            self.tables.commit_leader(&parked).map_err(mlua::Error::external)?;
            self.setbacks.not_in_a_spent(self.machine)?;
        }
        Ok(overlay)
    }

    fn bytes(&self) -> usize {
        self.overlay.iter().map(|(key, row)| key.len() + row.as_ref().map_or(0, Vec::len)).sum()
    }

    fn reached(&mut self, position: Position) {
        self.position = self.position.max(Some(position));
    }

    fn commit(&mut self) -> mlua::Result<Option<Position>> {
        let Some(position) = self.position.take() else { return Ok(None) };
        self.events = 0;
        let mut writes: Vec<Write> = std::mem::take(&mut self.overlay).into_iter().collect();
        let script = &self.machine.shared.script_hash;
        writes.push((POSITION.to_vec(), Some(format!("{position} {script}").into_bytes())));
        self.tables.commit_leader(&writes).map_err(mlua::Error::external)?;
        Ok(Some(position))
    }
}

/// `svc:rebuild`'s functions: they may write the service's own table.
pub(crate) fn call_back(machine: &Machine, tables: &Tables, before: bool) -> mlua::Result<()> {
    let callbacks = machine.shared.definitions.borrow().rebuild.clone();
    let Some(function) = (if before { callbacks.before } else { callbacks.after }) else { return Ok(()) };
    let call = Rc::new(Call {
        tables: Some(tables.clone()),
        replaying: true,
        ..Call::new(Kind::Handler, "rebuild".into(), daybook_model::Timestamp(0))
    });
    CALL.sync_scope(call.clone(), || {
        let _entered = machine.budget.enter();
        function.call::<()>(ctx::ctx(&machine.lua, &call)?)
    })?;
    let writes: Vec<Write> = call.overlay.take().into_iter().collect();
    tables.commit_leader(&writes).map_err(mlua::Error::external)
}

/// A view's function, and the table that it fills.
struct Wanted {
    view: String,
    kv: AnyUserData,
    function: Function,
}

/// What a view could not take, and why.
pub(crate) struct Failed {
    view: String,
    pub error: mlua::Error,
}

fn wanted(machine: &Machine, event: &Event) -> Vec<Wanted> {
    let definitions = machine.shared.definitions.borrow();
    let views = definitions.views.iter().filter(|view| view.types.contains(&event.kind));
    let wanted = views.map(|view| Wanted {
        view: view.name.clone(),
        kv: view.kv.clone(),
        function: view.function.clone(),
    });
    wanted.collect()
}

/// Runs every view that wants `event`, on top of `overlay`; without tables there is nothing below it.
pub(crate) fn run(
    machine: &Machine,
    event: &Event,
    overlay: Overlay,
    tables: Option<&Tables>,
) -> Result<Overlay, Failed> {
    run_these(machine, event, overlay, tables, wanted(machine, event))
}

fn run_these(
    machine: &Machine,
    event: &Event,
    overlay: Overlay,
    tables: Option<&Tables>,
    views: Vec<Wanted>,
) -> Result<Overlay, Failed> {
    let call = Rc::new(Call {
        overlay: overlay.into(),
        scratch: tables.is_none(),
        tables: tables.cloned(),
        correlation: Some(event.correlationid.clone()),
        position: Some(event.position),
        ..Call::new(Kind::View, event.id.clone(), event.recordedtime)
    });
    CALL.sync_scope(call.clone(), || {
        let _entered = machine.budget.enter();
        // One event is one table, however many views look at it.
        let table = ctx::event(&machine.lua, event);
        for Wanted { view, kv, function } in views {
            let of = format!("{}/{view}", event.id);
            let run = || {
                let _pure = Pure::enter()?;
                let _chance = Scope::enter(&call, of);
                let context = ctx::ctx(&machine.lua, &call)?;
                function.call::<()>((kv, table.clone()?, context))
            };
            let failed = |error| Failed { view, error: machine.budget.placed(error, Some(&function)) };
            run().map_err(failed)?;
        }
        Ok(())
    })?;
    Ok(call.overlay.take())
}

/// All tables as they were before `at`, made from nothing in memory.
pub(crate) async fn as_of(machine: &Machine, at: &str) -> mlua::Result<Overlay> {
    let Some(filter) = filter(&machine.shared) else { return Ok(Overlay::new()) };
    let until = entities::edge(at)?;
    let mut overlay = Overlay::new();
    let query = ReadQuery { until: Some(until), filter, ..ReadQuery::default() };
    let mut failed = None;
    let each = |event: std::sync::Arc<Event>| {
        let cut = matches!((until, event.batch), (Edge::Position(until), Some((first, size))) if first.0 + u64::from(size) > until.0);
        if !cut && failed.is_none() {
            match run(machine, &event, std::mem::take(&mut overlay), None) {
                Ok(changed) => overlay = changed,
                Err(Failed { error, .. }) => failed = Some(error),
            }
        }
        Ok::<_, daybook_client::ReadError>(())
    };
    machine.shared.client()?.read_all(query, each).await.map_err(bus_error)?;
    match failed {
        Some(error) => Err(error),
        None => Ok(overlay),
    }
}

/// Waits until the tables hold everything up to and including `after`.
pub(crate) async fn wait(
    shared: &Shared,
    reached: &mut watch::Receiver<Position>,
    after: Position,
) -> mlua::Result<()> {
    let Some(filter) = filter(shared) else { return Ok(()) };
    if *reached.borrow() > after {
        return Ok(());
    }
    // The tables hear of their own types only: which of those came last?
    let until = Some(Edge::Position(after.next()));
    let query = ReadQuery { until, filter, limit: Some(1), reverse: true, ..ReadQuery::default() };
    let page = shared.client()?.read(query).await.map_err(bus_error)?;
    let Some(last) = page.events.first() else { return Ok(()) };
    let last = last.position;
    reached.wait_for(|reached| *reached > last).await.map_err(mlua::Error::external)?;
    Ok(())
}
