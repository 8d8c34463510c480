//! `svc:after`: something to be done a while after an event, by bus time.
//!
//! # Promises
//! A timer is due when bus time reaches its event's `recordedtime` plus the
//! delay, whoever runs then. What it does has ids derived from the event, and
//! that it was done is an event too (`<service>.TimerFired`): so its effects
//! happen once, over restarts and with several hosts.
//!
//! # After a failure
//! A function that fails is tried again, later and later; the others go on.
//!
//! What is pending is kept as rows with the position they were read up to, so a
//! start reads only what came since. A host that is killed between
//! `TimerFired` and its commit finds both, and writes the function's rows
//! without its effects.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daybook_client::Item;
use daybook_model::wire::Start;
use daybook_model::{Data, Event, Filter, NewEvent, Position, Timestamp};
use mlua::{Function, Value};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::instance::timed;
use super::progress::Progress;
use super::{bus_error, publishing};
use crate::bindings::ctx;
use crate::machine::{CALL, Call, Kind, Machine, NAMESPACE, describe};
use crate::report;
use crate::state::{Tables, Write};

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

pub(crate) const PREFIX: &[u8] = b"timer/";
/// How far the rows are, and for which timers they are.
const POSITION: &[u8] = b"meta/timers";
/// Rows that are written together at most.
const BATCH: usize = 1_000;

/// Due time, then the mark that says it was done.
type Due = (i64, Uuid);

struct Pending {
    timer: usize,
    event: Arc<Event>,
    failures: u32,
}

/// What is due when, in memory and as rows.
struct Timers<'a> {
    tables: &'a Tables,
    service: String,
    /// Of the script's timers: others make other rows.
    shape: String,
    pending: BTreeMap<Due, Pending>,
    due: HashMap<Uuid, Due>,
    writes: Vec<Write>,
    position: Position,
}

impl<'a> Timers<'a> {
    /// The rows as they were left; none if the script's timers are others now.
    fn load(machine: &Machine, tables: &'a Tables) -> mlua::Result<Self> {
        let definitions = machine.shared.definitions.borrow();
        let shape = definitions.timers.iter().map(|timer| format!("{} {:?};", timer.kind, timer.delay));
        let shape: String = shape.collect();
        let mut timers = Self {
            tables,
            service: definitions.name.clone(),
            shape,
            pending: BTreeMap::new(),
            due: HashMap::new(),
            writes: Vec::new(),
            position: Position::ZERO,
        };
        let kept = tables.get(POSITION).map_err(mlua::Error::external)?;
        let kept = kept.and_then(|bytes| String::from_utf8(bytes).ok());
        match kept.as_deref().and_then(|text| text.split_once(' ')) {
            Some((position, shape)) if shape == timers.shape => {
                timers.position = position.parse().unwrap_or(Position::ZERO);
            }
            _ => {
                tables.wipe(PREFIX).map_err(mlua::Error::external)?;
                return Ok(timers);
            }
        }
        let rows = tables.scan(PREFIX).map_err(mlua::Error::external)?;
        for (_, value) in rows {
            let row: Row = serde_json::from_slice(&value).map_err(mlua::Error::external)?;
            let event: Event = serde_json::from_str(row.event.get()).map_err(mlua::Error::external)?;
            timers.keep(row.due, row.timer, Arc::new(event), 0);
        }
        Ok(timers)
    }

    fn mark(&self, event: &Event, timer: usize) -> Uuid {
        Uuid::new_v5(&NAMESPACE, format!("timer/{}/{}/{timer}", self.service, event.id).as_bytes())
    }

    fn keep(&mut self, due: i64, timer: usize, event: Arc<Event>, failures: u32) -> Due {
        let mark = self.mark(&event, timer);
        self.due.insert(mark, (due, mark));
        self.pending.insert((due, mark), Pending { timer, event, failures });
        (due, mark)
    }

    /// An event that starts timers: each is a row until it is done.
    fn start(&mut self, machine: &Machine, event: &Arc<Event>) -> mlua::Result<()> {
        for (timer, due) in due_of(machine, event) {
            let at = self.keep(due, timer, event.clone(), 0);
            let event = to_raw_value(event.as_ref()).map_err(mlua::Error::external)?;
            let row = serde_json::to_vec(&Row { timer, due, event }).map_err(mlua::Error::external)?;
            self.writes.push((key(at), Some(row)));
        }
        Ok(())
    }

    fn remove(&mut self, mark: &Uuid) -> Option<(Due, Pending)> {
        let due = self.due.remove(mark)?;
        Some((due, self.pending.remove(&due)?))
    }

    fn first(&self) -> Option<Due> {
        self.pending.first_key_value().map(|(due, _)| *due)
    }

    fn commit(&mut self) -> mlua::Result<()> {
        let mut writes = std::mem::take(&mut self.writes);
        writes.push((POSITION.to_vec(), Some(format!("{} {}", self.position, self.shape).into_bytes())));
        self.tables.commit_leader(&writes).map_err(mlua::Error::external)
    }

    /// One event of the log.
    async fn take(&mut self, machine: &Machine, event: &Arc<Event>) -> mlua::Result<()> {
        self.position = event.position.next();
        if event.kind != fired(&self.service) {
            self.start(machine, event)?;
        } else if let Some((due, pending)) = event.id.parse().ok().and_then(|mark| self.remove(&mark)) {
            // It was done, by another or before these tables were: only its rows are missing.
            self.commit()?;
            if let Err(error) = act(machine, self.tables, due, &pending, true).await {
                tracing::warn!(
                    event = pending.event.id,
                    error = describe(&error),
                    "a timer failed in a replay"
                );
                self.writes.push((key(due), None));
            }
        }
        if self.writes.len() >= BATCH { self.commit() } else { Ok(()) }
    }
}

/// A timer as it is stored.
#[derive(Serialize, Deserialize)]
struct Row {
    timer: usize,
    due: i64,
    event: Box<RawValue>,
}

/// In order of time.
fn key((due, mark): Due) -> Vec<u8> {
    [PREFIX, &(due as u64 ^ (1 << 63)).to_be_bytes(), mark.as_bytes()].concat()
}

fn fired(service: &str) -> String {
    format!("{service}.TimerFired")
}

/// What timers must hear of; `None` if there are none.
fn filter(machine: &Machine) -> Option<Filter> {
    let definitions = machine.shared.definitions.borrow();
    let fired = fired(&definitions.name);
    let kinds = definitions.timers.iter().map(|timer| timer.kind.as_str());
    (!definitions.timers.is_empty()).then(|| Filter::types(kinds.chain([fired.as_str()])))
}

/// Follows the log for ever and fires what is due.
pub(crate) async fn follow(machine: &Machine, tables: &Tables) -> mlua::Result<()> {
    let Some(filter) = filter(machine) else { return std::future::pending().await };
    let mut timers = Timers::load(machine, tables)?;
    let from = Start::Position(timers.position);
    let mut subscription = machine.shared.client()?.subscribe(from, filter).await.map_err(bus_error)?;
    let mut caught_up = false;
    loop {
        let wait = match timers.first() {
            Some((due, _)) if caught_up => until(due),
            _ => Duration::MAX,
        };
        tokio::select! {
            item = subscription.next() => match item {
                Some(Item::Event(event)) => {
                    timers.take(machine, &event).await?;
                    if caught_up {
                        timers.commit()?;
                    }
                }
                Some(Item::CaughtUp(position)) => {
                    caught_up = true;
                    timers.position = timers.position.max(position);
                    timers.commit()?;
                }
                None => return Err(mlua::Error::runtime("the bus is gone")),
            },
            () = tokio::time::sleep(wait.min(Duration::from_secs(3_600))), if wait != Duration::MAX => {
                let Some(first) = timers.first().filter(|(due, _)| until(*due).is_zero()) else { continue };
                let Some((_, mut pending)) = timers.remove(&first.1) else { continue };
                if let Err(error) = fire(machine, &timers, first, &pending).await {
                    let pause = (RETRY_FIRST * 2u32.saturating_pow(pending.failures)).min(RETRY_MAX);
                    let (cause, attempt) = (report::caused_by(&pending.event), pending.failures + 1);
                    tracing::error!(
                        target: "script",
                        "{}\n  while a timer was due for {cause}; attempt {attempt}, next in {pause:?}",
                        machine.explain(&error)
                    );
                    pending.failures = (pending.failures + 1).min(10);
                    let again = first.0.max(now()) + pause.as_micros() as i64;
                    let at = timers.keep(again, pending.timer, pending.event, pending.failures);
                    move_row(tables, first, at)?;
                }
            }
        }
    }
}

/// A timer that is tried again is found under its new time.
fn move_row(tables: &Tables, from: Due, to: Due) -> mlua::Result<()> {
    let Some(row) = tables.get(&key(from)).map_err(mlua::Error::external)? else { return Ok(()) };
    let mut row: Row = serde_json::from_slice(&row).map_err(mlua::Error::external)?;
    row.due = to.0;
    let row = serde_json::to_vec(&row).map_err(mlua::Error::external)?;
    tables.commit_leader(&[(key(from), None), (key(to), Some(row))]).map_err(mlua::Error::external)
}

/// Fills `tables` with what is pending, and fires nothing.
pub(crate) async fn fill(machine: &Machine, tables: &Tables, progress: &mut Progress) -> mlua::Result<()> {
    let Some(filter) = filter(machine) else { return Ok(()) };
    progress.phase("timers");
    let mut timers = Timers::load(machine, tables)?;
    let from = Start::Position(timers.position);
    let mut subscription = machine.shared.client()?.subscribe(from, filter).await.map_err(bus_error)?;
    loop {
        match subscription.next().await {
            Some(Item::Event(event)) => {
                timers.take(machine, &event).await?;
                progress.event(event.position);
            }
            Some(Item::CaughtUp(position)) => {
                timers.position = timers.position.max(position);
                return timers.commit();
            }
            None => return Err(mlua::Error::runtime("the bus is gone")),
        }
    }
}

/// Which timers the event starts, and when each is due.
pub(crate) fn due_of(machine: &Machine, event: &Event) -> Vec<(usize, i64)> {
    let definitions = machine.shared.definitions.borrow();
    let mine = definitions.timers.iter().enumerate().filter(|(_, timer)| timer.kind == event.kind);
    mine.map(|(i, timer)| (i, event.recordedtime.0.saturating_add(timer.delay.as_micros() as i64))).collect()
}

/// Fires what the event started, as if its time had come: for tests.
pub(crate) async fn fire_all(machine: &Machine, event: &Arc<Event>) -> mlua::Result<usize> {
    let tables = machine.shared.state()?.tables().map_err(mlua::Error::external)?;
    let timers = Timers::load(machine, &tables)?;
    let due = due_of(machine, event);
    for (timer, due) in &due {
        let pending = Pending { timer: *timer, event: event.clone(), failures: 0 };
        fire(machine, &timers, (*due, timers.mark(event, *timer)), &pending).await?;
    }
    Ok(due.len())
}

/// Runs the function, says in the log that it was done, and commits its rows.
async fn fire(machine: &Machine, timers: &Timers<'_>, due: Due, pending: &Pending) -> mlua::Result<()> {
    act(machine, timers.tables, due, pending, false).await
}

/// The function itself, within its budget.
pub(crate) async fn run(
    machine: &Machine,
    call: &Rc<Call>,
    function: &Function,
    event: &Event,
) -> mlua::Result<()> {
    let arguments = (ctx::event(&machine.lua, event)?, ctx::ctx(&machine.lua, call)?);
    let outcome = timed(machine, function.call_async::<Value>(arguments)).await;
    outcome.map(drop).map_err(|error| machine.budget.placed(error, Some(function)))
}

async fn act(
    machine: &Machine,
    tables: &Tables,
    (at, mark): Due,
    pending: &Pending,
    replaying: bool,
) -> mlua::Result<()> {
    let event = &pending.event;
    let (function, due, fired) = {
        let definitions = machine.shared.definitions.borrow();
        let timer = &definitions.timers[pending.timer];
        let due = event.recordedtime.0.saturating_add(timer.delay.as_micros() as i64);
        (timer.function.clone(), due, fired(&definitions.name))
    };
    let call = Rc::new(Call {
        cause: Some(event.clone()),
        correlation: Some(event.correlationid.clone()),
        position: Some(event.position),
        tables: Some(tables.clone()),
        replaying,
        // The time it was due: a repeat sees the same.
        ..Call::new(Kind::Handler, mark.to_string(), Timestamp(due))
    });
    CALL.scope(call.clone(), run(machine, &call, &function, event)).await?;
    if !replaying {
        let data = Data::json(&serde_json::json!({ "event": event.id, "type": event.kind }));
        let done = NewEvent {
            correlationid: Some(event.correlationid.clone()),
            causationid: Some(event.id.clone()),
            data: Some(data.map_err(mlua::Error::external)?),
            ..NewEvent::new(mark.to_string(), fired)
        };
        publishing::publish(&machine.shared, &call, &[done]).await?.map_err(bus_error)?;
    }
    // Cut off before this: its `TimerFired` is in the log, and the row is found with it.
    let reads: Vec<_> = call.reads.take().into_iter().collect();
    let mut writes: Vec<Write> = call.overlay.take().into_iter().collect();
    writes.push((key((at, mark)), None));
    tables.commit_timer(&reads, &writes).map_err(mlua::Error::external)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn until(due: i64) -> Duration {
    Duration::from_micros(u64::try_from(due.saturating_sub(now())).unwrap_or(0))
}

/// `"15m"`, `"1h30m"`, `"500ms"`, or a number of seconds.
pub(crate) fn delay(value: &Value) -> mlua::Result<Duration> {
    let wrong = || {
        mlua::Error::runtime("svc:after: the delay is a text like \"15m\", \"1h30m\", \"500ms\", or seconds")
    };
    match value {
        Value::Integer(seconds) => u64::try_from(*seconds).map(Duration::from_secs).map_err(|_| wrong()),
        Value::Number(seconds) => Duration::try_from_secs_f64(*seconds).map_err(|_| wrong()),
        Value::String(text) => {
            let text = text.to_str().map_err(|_| wrong())?;
            parse(&text).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text.trim(), Duration::ZERO);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let amount: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            "d" => Duration::from_secs(86_400),
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(unit.checked_mul(amount)?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_read_as_people_write_them() {
        for (text, millis) in
            [("15m", 900_000), ("1h30m", 5_400_000), ("500ms", 500), ("2d", 172_800_000), ("0s", 0)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "15", "m", "15 m", "-1s", "1w", "1.5h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
