//! One instance: a thread with a machine, a seat in the group, and a queue of
//! requests. If a script had to be stopped, the machine is made anew.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daybook_client::{Client, Delivery, Join, Membership, Settler};
use daybook_model::wire::NackAction;
use daybook_model::{Event, Filter, Position};
use mlua::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

use super::common::Common;
use super::keeper::{self, Keeping};
use super::{replay, snapshots};
use crate::bindings::results::Made;
use crate::bindings::{ctx, results};
use crate::bundle::Bundle;
use crate::config::Limits;
use crate::host::Directory;
use crate::http::{Answer, Incoming, routes};
use crate::machine::{CALL, Call, Kind, Machine, RouteKey, describe, is_out_of_memory};
use crate::report;
use crate::state::{self, State};

/// Unsettled deliveries of one instance: enough to keep it busy while others wait for the bus.
const CREDIT: u64 = 256;

/// An event that failed this often is parked, with all that come after it on its key.
pub(crate) const ATTEMPTS_MAX: u32 = 10;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// What runs in a machine that is thrown away fails at its next step; so long it may take to say so.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What an instance is asked to do.
pub(crate) enum Job {
    Route {
        route: RouteKey,
        request: Incoming,
        reply: oneshot::Sender<Answer>,
    },
    /// One event of a stream, through the script's function.
    Item {
        route: RouteKey,
        event: Arc<Event>,
        request: Incoming,
        reply: oneshot::Sender<Answer>,
    },
}

impl Job {
    fn route(&self) -> &RouteKey {
        match self {
            Self::Route { route, .. } | Self::Item { route, .. } => route,
        }
    }

    /// The script that had this route is gone.
    fn refuse(self) {
        let detail = format!("the script has no `{}` any more", self.route());
        let (Self::Route { reply, .. } | Self::Item { reply, .. }) = self;
        let _ = reply.send(Answer::problem(404, "not-found", &detail));
    }
}

/// All that a machine needs to be made again.
#[derive(Clone)]
pub(crate) struct Blueprint {
    pub name: String,
    /// The script; changes when its file did and the new one loads.
    pub text: watch::Receiver<Arc<Bundle>>,
    pub limits: Limits,
    pub client: Client,
    pub state: State,
    pub directory: Arc<Directory>,
    pub common: Arc<Common>,
    pub keeping: Keeping,
    /// The first instance keeps the tables.
    pub keeps: bool,
}

/// Runs until `stop` turns true.
pub(crate) async fn run(
    mut blueprint: Blueprint,
    mut jobs: mpsc::Receiver<Job>,
    mut stop: watch::Receiver<bool>,
) {
    // What a new script's route was asked of the old one.
    let mut held = None;
    loop {
        let bundle = blueprint.text.borrow_and_update().clone();
        let machine = match Machine::load(&bundle, blueprint.limits) {
            Ok(machine) => machine,
            // It loaded before; only memory can be short now.
            Err(error) => {
                tracing::error!(script = blueprint.name, %error, "cannot load the script again");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let _ = machine.shared.client.set(blueprint.client.clone());
        let _ = machine.shared.state.set(blueprint.state.clone());
        let _ = machine.shared.directory.set(blueprint.directory.clone());
        let _ = machine.shared.common.set(blueprint.common.clone());
        let machine = Rc::new(machine);
        let local = LocalSet::new();
        let end = local.run_until(serve(&blueprint, &machine, &mut jobs, &mut held, &mut stop)).await;
        snapshots::write(&machine.shared);
        match end {
            End::Stopped => break,
            End::Changed => tracing::debug!(script = blueprint.name, "the script was reloaded"),
            End::Spent => {
                tracing::warn!(target: "script", "{} was stopped; its machine is made anew", blueprint.name);
            }
        }
    }
    if blueprint.keeps {
        blueprint.state.release();
    }
    blueprint.client.close().await;
}

/// Why a machine is not used any more.
enum End {
    Stopped,
    Spent,
    Changed,
}

/// Events and requests that are being handled.
#[derive(Clone, Default)]
struct Busy(Rc<Cell<usize>>);

impl Busy {
    /// Counts from now until the future is done or dropped; one that has not begun counts too.
    fn count<T>(self, future: impl Future<Output = T>) -> impl Future<Output = T> {
        struct Done(Rc<Cell<usize>>);
        impl Drop for Done {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.0.set(self.0.get() + 1);
        let done = Done(self.0);
        async move {
            let _done = done;
            future.await
        }
    }

    /// Returns when nothing is being handled, or after a while: what is cut off
    /// then comes again.
    async fn end(&self) {
        for _ in 0..1_000 {
            if self.0.get() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn serve(
    blueprint: &Blueprint,
    machine: &Rc<Machine>,
    jobs: &mut mpsc::Receiver<Job>,
    held: &mut Option<Job>,
    stop: &mut watch::Receiver<bool>,
) -> End {
    let busy = Busy::default();
    let mut text = blueprint.text.clone();
    if blueprint.keeps {
        tokio::task::spawn_local(keeper::run(machine.clone(), blueprint.keeping.clone()));
    }
    let filled = blueprint.keeping.filled.subscribe();
    let handlers: Vec<String> = machine.shared.definitions.borrow().handlers.keys().cloned().collect();
    let service = machine.shared.definitions.borrow().name.clone();
    let mut membership = None;
    let mut spent = tokio::time::interval(Duration::from_millis(100));
    loop {
        if membership.is_none() && !handlers.is_empty() {
            let join = Join {
                filter: Some(Filter::types(&handlers)),
                max_attempts: Some(ATTEMPTS_MAX),
                ..Join::new(service.as_str(), CREDIT)
            };
            match blueprint.client.join(join).await {
                Ok(joined) => membership = Some(joined),
                Err(error) => {
                    tracing::error!(service, %error, "cannot join the group; tried again in 1 s");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        tokio::select! {
            job = async { match held.take() {
                Some(job) => Some(job),
                None => jobs.recv().await,
            } } => match job {
                // The swap was told before this was asked: it is the new script's to answer.
                Some(job) if matches!(text.has_changed(), Ok(true)) => {
                    *held = Some(job);
                    leave(&busy, membership).await;
                    return End::Changed;
                }
                Some(job) if !machine.knows(job.route()) => job.refuse(),
                Some(job) => {
                    let answer = answer(machine.clone(), blueprint.keeping.reached.subscribe(), job);
                    tokio::task::spawn_local(busy.clone().count(answer));
                }
                None => return End::Stopped,
            },
            delivery = async { match &mut membership {
                Some(membership) => membership.next().await,
                None => std::future::pending().await,
            } } => match (delivery, &membership) {
                (Some(delivery), Some(seat)) => {
                    let handled = handle(machine.clone(), filled.clone(), seat.settler(), delivery);
                    tokio::task::spawn_local(busy.clone().count(handled));
                }
                _ => membership = None,
            },
            _ = spent.tick() => if machine.budget.exceeded() {
                // Whoever is still being answered is told what stopped him.
                let _ = tokio::time::timeout(LAST_WORDS, busy.end()).await;
                return End::Spent;
            },
            // Between events: what is under way ends with the script it began with.
            changed = text.changed() => if changed.is_ok() {
                leave(&busy, membership).await;
                return End::Changed;
            },
            // What is under way ends and is acked; what was only delivered costs no attempt.
            _ = stop.wait_for(|stop| *stop) => {
                leave(&busy, membership).await;
                return End::Stopped;
            }
        }
    }
}

/// In good order: what is under way ends first.
async fn leave(busy: &Busy, membership: Option<Membership>) {
    busy.end().await;
    if let Some(membership) = membership {
        membership.leave().await;
    }
}

/// One delivery: run, commit, ack; or nack with what went wrong.
async fn handle(
    machine: Rc<Machine>,
    mut filled: watch::Receiver<bool>,
    settler: Settler,
    delivery: Delivery,
) {
    let event = delivery.event.clone();
    let mut failures = 0;
    let outcome = loop {
        // A table that is being filled knows nothing yet of what this event may rest on.
        if machine.shared.own_table && filled.wait_for(|filled| *filled).await.is_err() {
            return;
        }
        match once(&machine, &event, Some(delivery.token.clone())).await {
            // Not the event's fault, so it costs no attempt; its effects are not doubled.
            Err(error) if let Some(reason) = state_error(&error) => {
                if failures == 3 {
                    tracing::warn!(event = event.id, %reason, "a handler waits for the state");
                }
                failures += 1;
                tokio::time::sleep(wait_for(&reason, failures)).await;
                if let Some(state) = machine.shared.state.get() {
                    let _ = state.look_again();
                }
            }
            outcome => break outcome,
        }
    };
    match outcome {
        Ok(None) => settler.ack(&delivery.token).await,
        Ok(Some(why)) => settler.nack(&delivery.token, NackAction::Park, None, Some(why)).await,
        Err(error) => {
            let (next, delay) = what_next(delivery.attempt);
            let cause = report::caused_by(&event);
            tracing::error!(target: "script", "{}\n  while handling {cause}; {next}", machine.explain(&error));
            let reason = report::shortened(format!("{}\n  {next}", describe(&error)));
            let delay = Some(delay);
            settler.nack(&delivery.token, NackAction::Retry, delay, Some(reason)).await;
        }
    }
}

/// What becomes of an event after this many attempts failed, and when.
fn what_next(attempt: u32) -> (String, Duration) {
    if attempt >= ATTEMPTS_MAX {
        let told = format!("attempt {attempt} of {ATTEMPTS_MAX}: its key is parked (daybook group parked)");
        return (told, Duration::ZERO);
    }
    let delay = backoff(attempt);
    (format!("attempt {attempt} of {ATTEMPTS_MAX}, next in {delay:?}"), delay)
}

/// How long to wait after this many attempts failed.
pub(crate) fn backoff(attempt: u32) -> Duration {
    (BACKOFF_FIRST * 2u32.saturating_pow(attempt.saturating_sub(1))).min(BACKOFF_MAX)
}

/// What the state said, if that is why a script's call failed.
pub(crate) fn state_error(error: &mlua::Error) -> Option<state::Error> {
    error.chain().find_map(|cause| cause.downcast_ref::<state::Error>().cloned())
}

fn wait_for(reason: &state::Error, failures: u32) -> Duration {
    Duration::from_millis(match reason {
        state::Error::Moved => 1,
        // Others have their turn; the more often they had it, the longer we wait.
        state::Error::Conflict => u64::from(failures.min(50)),
        state::Error::Filling | state::Error::Lost | state::Error::NotLeader => 50,
        state::Error::Unavailable { .. } => 500,
    })
}

/// Runs the handler of an event, unless its rows are there already; `Some`
/// reason if the script parks it.
pub(crate) async fn once(
    machine: &Machine,
    event: &Arc<Event>,
    token: Option<String>,
) -> mlua::Result<Option<String>> {
    let tables = if machine.shared.own_table {
        let tables = machine.shared.state()?.tables().map_err(mlua::Error::external)?;
        if !tables.is_filled().map_err(mlua::Error::external)? {
            return Err(mlua::Error::external(state::Error::Filling));
        }
        if replay::is_seen(&tables, event).map_err(mlua::Error::external)? {
            return Ok(None);
        }
        Some(tables)
    } else {
        None
    };
    let call = Rc::new(Call {
        cause: Some(event.clone()),
        token,
        correlation: Some(event.correlationid.clone()),
        position: Some(event.position),
        tables,
        ..Call::new(Kind::Handler, event.id.clone(), event.recordedtime)
    });
    let parked = CALL.scope(call.clone(), run_handler(machine, &call, event)).await?;
    if parked.is_none() {
        machine.shared.outlet.step("before its state was committed").await;
        commit(machine, &call)?;
        machine.shared.outlet.step("after its state was committed, before the ack").await;
    }
    Ok(parked)
}

/// `Some` reason if the script asks to park.
pub(crate) async fn run_handler(
    machine: &Machine,
    call: &Rc<Call>,
    event: &Event,
) -> mlua::Result<Option<String>> {
    let handler = machine.shared.definitions.borrow().handlers.get(&event.kind).cloned();
    // A group may still hold types that an older script wanted.
    let Some(handler) = handler else { return Ok(None) };
    machine.budget.make_room(&machine.lua)?;
    let arguments = (ctx::event(&machine.lua, event)?, ctx::ctx(&machine.lua, call)?);
    let value = timed(machine, handler.call_async::<Value>(arguments)).await;
    let value = value.map_err(|error| machine.budget.placed(error, Some(&handler)))?;
    let what = format_args!("the handler of `{}`", event.kind);
    results::forgotten(call, &handler, what, &value, &[Made::Park])?;
    if let (Some("park"), Value::Table(table)) = (results::kind(&value).as_deref(), &value) {
        return Ok(Some(
            table.raw_get::<Option<String>>("why")?.unwrap_or_else(|| "the script parked it".into()),
        ));
    }
    Ok(None)
}

/// What the call wrote, at once. A handler's rows come with its event's sequence,
/// and only if nobody changed what it had read.
pub(crate) fn commit(machine: &Machine, call: &Call) -> mlua::Result<()> {
    let mut writes: Vec<_> = call.overlay.take().into_iter().collect();
    if writes.is_empty() || call.scratch {
        return Ok(());
    }
    let state = machine.shared.state()?;
    let committed = match (&call.tables, call.kind, &call.cause) {
        (Some(tables), Kind::Handler, Some(event)) => {
            writes.push(replay::seen(event));
            let reads: Vec<_> = call.reads.take().into_iter().collect();
            tables.commit_handler(&reads, &writes)
        }
        _ => match state.tables().and_then(|tables| tables.commit(&writes)) {
            Err(state::Error::Moved) => state.look_again().and_then(|tables| tables.commit(&writes)),
            outcome => outcome,
        },
    };
    committed.map_err(mlua::Error::external)
}

/// Polls a script's future with the budget wound up at every entry, so that
/// waiting costs nothing and computing does; all of it within the wall clock.
pub(crate) async fn timed<T>(
    machine: &Machine,
    future: impl Future<Output = mlua::Result<T>>,
) -> mlua::Result<T> {
    let mut future = std::pin::pin!(future);
    let (begun, mut used) = (Instant::now(), Duration::ZERO);
    let polled = std::future::poll_fn(|context| {
        let _entered = machine.budget.enter_after(begun, &mut used);
        future.as_mut().poll(context)
    });
    let wall = machine.budget.wall;
    let outcome = tokio::time::timeout(wall, polled).await.unwrap_or_else(|_| {
        Err(mlua::Error::runtime(format!("the call did not end within {wall:?}, waiting included")))
    });
    if outcome.as_ref().is_err_and(is_out_of_memory) {
        machine.budget.spend();
    }
    outcome
}

async fn answer(machine: Rc<Machine>, mut reached: watch::Receiver<Position>, job: Job) {
    let (route, request, event, reply) = match job {
        Job::Route { route, request, reply } => (route, request, None, reply),
        Job::Item { route, event, request, reply } => (route, request, Some(event), reply),
    };
    let answer = match routes::prepare(&machine, &mut reached, &request, event.as_deref()).await {
        Err(answer) => answer,
        Ok(call) => {
            let call = Rc::new(call);
            let run = routes::run(&machine, &call, &route, &request, event.as_deref());
            match CALL
                .scope(call.clone(), run)
                .await
                .and_then(|answer| commit(&machine, &call).map(|()| answer))
            {
                Ok(answer) => answer,
                Err(error) => {
                    let answer = routes::failed(&error);
                    if answer.status >= 500 {
                        let (method, path) = (&request.method, &request.path);
                        tracing::error!(target: "script", "{}\n  while answering {method} {path}", machine.explain(&error));
                    }
                    answer
                }
            }
        }
    };
    let _ = reply.send(answer);
}
