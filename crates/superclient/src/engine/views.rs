//! Views: tables that follow the log. One instance writes them, all read them.

use std::rc::Rc;

use daybook_client::{Item, ReadQuery};
use daybook_model::wire::{Edge, Start};
use daybook_model::{Event, Filter, Position};
use tokio::sync::watch;

use super::{bus_error, entities};
use crate::bindings::{ctx, kv::Kv};
use crate::machine::{CALL, Call, Kind, Machine, Overlay, Pure, Shared};

/// Key under which the position is kept, in the same commit as the tables.
const POSITION: &[u8] = b"meta/views";

/// All types that any view wants; `None` if there are no views.
pub(crate) fn filter(shared: &Shared) -> Option<Filter> {
    let definitions = shared.definitions.borrow();
    let types: std::collections::BTreeSet<&str> =
        definitions.views.iter().flat_map(|view| view.types.iter().map(String::as_str)).collect();
    (!types.is_empty()).then(|| Filter::types(types))
}

/// Follows the log for ever; `reached` tells how far the tables are.
pub(crate) async fn follow(machine: &Machine, reached: &watch::Sender<Position>) -> mlua::Result<()> {
    let shared = &machine.shared;
    let Some(filter) = filter(shared) else { return std::future::pending().await };
    let callbacks = shared.definitions.borrow().rebuild.clone();
    let mut refilling = false;
    // A view that was changed is another view: it is filled from the beginning.
    let generation = shared.script_hash.clone();
    let kept = shared.state()?.get(POSITION).map_err(mlua::Error::external)?;
    let kept = kept.and_then(|bytes| String::from_utf8(bytes).ok());
    let from = match kept.as_deref().and_then(|text| text.split_once(' ')) {
        Some((position, known)) if known == generation => position.parse().unwrap_or(Position::ZERO),
        _ => {
            let old = shared.state()?.scan(b"view/").map_err(mlua::Error::external)?;
            let wipe = old.into_iter().map(|(key, _)| (key, None)).collect();
            shared.state()?.commit(wipe).map_err(mlua::Error::external)?;
            refilling = true;
            call_back(machine, callbacks.before.as_ref())?;
            Position::ZERO
        }
    };
    reached.send_replace(from);
    let mut subscription =
        shared.client()?.subscribe(Start::Position(from), filter).await.map_err(bus_error)?;
    loop {
        match subscription.next().await {
            Some(Item::Event(event)) => {
                let overlay = apply(machine, &event, Overlay::new())?;
                let next = event.position.next();
                let mut writes: Vec<_> = overlay.into_iter().collect();
                writes.push((POSITION.to_vec(), Some(format!("{next} {generation}").into_bytes())));
                shared.state()?.commit(writes).map_err(mlua::Error::external)?;
                reached.send_replace(next);
            }
            Some(Item::CaughtUp(position)) => {
                if std::mem::take(&mut refilling) {
                    call_back(machine, callbacks.after.as_ref())?;
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

/// `svc:rebuild`'s functions: they may write the service's own table.
fn call_back(machine: &Machine, function: Option<&mlua::Function>) -> mlua::Result<()> {
    let Some(function) = function else { return Ok(()) };
    let call = Rc::new(Call::new(Kind::Handler, "rebuild".into(), daybook_model::Timestamp(0)));
    CALL.sync_scope(call.clone(), || {
        let _entered = machine.budget.enter();
        function.call::<()>(ctx::ctx(&machine.lua, &call)?)
    })?;
    let writes: Vec<_> = call.overlay.take().into_iter().collect();
    machine.shared.state()?.commit(writes).map_err(mlua::Error::external)
}

/// Runs every view that wants `event`, on top of `overlay`.
fn apply(machine: &Machine, event: &Event, overlay: Overlay) -> mlua::Result<Overlay> {
    run(machine, event, overlay, false)
}

pub(crate) fn run(
    machine: &Machine,
    event: &Event,
    overlay: Overlay,
    scratch: bool,
) -> mlua::Result<Overlay> {
    let call = Rc::new(Call {
        overlay: overlay.into(),
        scratch,
        correlation: Some(event.correlationid.clone()),
        position: Some(event.position),
        ..Call::new(Kind::View, event.id.clone(), event.recordedtime)
    });
    let functions: Vec<_> = {
        let definitions = machine.shared.definitions.borrow();
        let wanted = definitions.views.iter().filter(|view| view.types.contains(&event.kind));
        wanted.map(|view| (view.name.clone(), view.function.clone())).collect()
    };
    CALL.sync_scope(call.clone(), || {
        let _pure = Pure::enter()?;
        let _entered = machine.budget.enter();
        let table = ctx::event(&machine.lua, event)?;
        for (name, function) in functions {
            let kv = Kv::view(&machine.shared, &name, true);
            function.call::<()>((kv, table.clone(), ctx::ctx(&machine.lua, &call)?))?;
        }
        Ok::<_, mlua::Error>(())
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
            match run(machine, &event, std::mem::take(&mut overlay), true) {
                Ok(changed) => overlay = changed,
                Err(error) => failed = Some(error),
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
