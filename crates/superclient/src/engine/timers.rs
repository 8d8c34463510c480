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
//! # Not here
//! A shortcut: starting reads all events of the types that have timers.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daybook_client::Item;
use daybook_model::wire::Start;
use daybook_model::{Data, Event, Filter, NewEvent, Timestamp};
use mlua::Value;
use uuid::Uuid;

use super::bus_error;
use super::instance::{commit, timed};
use crate::bindings::ctx;
use crate::machine::{CALL, Call, Kind, Machine, NAMESPACE, describe};

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Due time, then the mark that says it was done.
type Due = (i64, Uuid);

struct Pending {
    timer: usize,
    event: Arc<Event>,
    failures: u32,
}

#[derive(Default)]
struct Timers {
    pending: BTreeMap<Due, Pending>,
    due: HashMap<Uuid, Due>,
}

impl Timers {
    fn add(&mut self, due: i64, mark: Uuid, pending: Pending) {
        self.due.insert(mark, (due, mark));
        self.pending.insert((due, mark), pending);
    }

    fn remove(&mut self, mark: &Uuid) -> Option<Pending> {
        self.pending.remove(&self.due.remove(mark)?)
    }

    fn first(&self) -> Option<Due> {
        self.pending.first_key_value().map(|(due, _)| *due)
    }
}

/// Follows the log for ever and fires what is due.
pub(crate) async fn follow(machine: &Machine) -> mlua::Result<()> {
    let (service, kinds) = {
        let definitions = machine.shared.definitions.borrow();
        (
            definitions.name.clone(),
            definitions.timers.iter().map(|timer| timer.kind.clone()).collect::<Vec<_>>(),
        )
    };
    if kinds.is_empty() {
        return std::future::pending().await;
    }
    let fired = format!("{service}.TimerFired");
    let filter = Filter::types(kinds.iter().map(String::as_str).chain([fired.as_str()]));
    let mut subscription =
        machine.shared.client()?.subscribe(Start::START, filter).await.map_err(bus_error)?;
    let mut timers = Timers::default();
    let mut caught_up = false;
    loop {
        let wait = match timers.first() {
            Some((due, _)) if caught_up => until(due),
            _ => Duration::MAX,
        };
        tokio::select! {
            item = subscription.next() => match item {
                Some(Item::Event(event)) if event.kind == fired => {
                    if let Ok(mark) = event.id.parse() {
                        timers.remove(&mark);
                    }
                }
                Some(Item::Event(event)) => {
                    for (timer, due) in due_of(machine, &event) {
                        let mark = mark(&service, &event.id, timer);
                        timers.add(due, mark, Pending { timer, event: event.clone(), failures: 0 });
                    }
                }
                Some(Item::CaughtUp(_)) => caught_up = true,
                None => return Err(mlua::Error::runtime("the bus is gone")),
            },
            () = tokio::time::sleep(wait.min(Duration::from_secs(3_600))), if wait != Duration::MAX => {
                let Some((due, mark)) = timers.first().filter(|(due, _)| until(*due).is_zero()) else { continue };
                let Some(mut pending) = timers.remove(&mark) else { continue };
                if let Err(error) = fire(machine, &fired, mark, &pending).await {
                    let pause = (RETRY_FIRST * 2u32.saturating_pow(pending.failures)).min(RETRY_MAX);
                    tracing::error!(
                        event = pending.event.id,
                        error = describe(&error),
                        "a timer failed; it is tried again in {pause:?}"
                    );
                    pending.failures = (pending.failures + 1).min(10);
                    timers.add(due.max(now()) + pause.as_micros() as i64, mark, pending);
                }
            }
        }
    }
}

/// Which timers the event starts, and when each is due.
fn due_of(machine: &Machine, event: &Event) -> Vec<(usize, i64)> {
    let definitions = machine.shared.definitions.borrow();
    let mine = definitions.timers.iter().enumerate().filter(|(_, timer)| timer.kind == event.kind);
    mine.map(|(i, timer)| (i, event.recordedtime.0.saturating_add(timer.delay.as_micros() as i64))).collect()
}

/// Fires what the event started, as if its time had come: for tests.
pub(crate) async fn fire_all(machine: &Machine, event: &Arc<Event>) -> mlua::Result<usize> {
    let service = machine.shared.definitions.borrow().name.clone();
    let due = due_of(machine, event);
    for (timer, _) in &due {
        let pending = Pending { timer: *timer, event: event.clone(), failures: 0 };
        fire(machine, &format!("{service}.TimerFired"), mark(&service, &event.id, *timer), &pending).await?;
    }
    Ok(due.len())
}

fn mark(service: &str, event: &str, timer: usize) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("timer/{service}/{event}/{timer}").as_bytes())
}

async fn fire(machine: &Machine, fired: &str, mark: Uuid, pending: &Pending) -> mlua::Result<()> {
    let event = &pending.event;
    let (function, due) = {
        let definitions = machine.shared.definitions.borrow();
        let timer = &definitions.timers[pending.timer];
        (timer.function.clone(), event.recordedtime.0.saturating_add(timer.delay.as_micros() as i64))
    };
    let call = Rc::new(Call {
        cause: Some(event.clone()),
        correlation: Some(event.correlationid.clone()),
        position: Some(event.position),
        // The time it was due: a repeat sees the same.
        ..Call::new(Kind::Handler, mark.to_string(), Timestamp(due))
    });
    let run = async {
        let arguments = (ctx::event(&machine.lua, event)?, ctx::ctx(&machine.lua, &call)?);
        let outcome = timed(machine, function.call_async::<Value>(arguments)).await;
        outcome.map_err(|error| machine.budget.placed(error, Some(&function)))?;
        commit(machine, &call)
    };
    CALL.scope(call.clone(), run).await?;
    let data = Data::json(&serde_json::json!({ "event": event.id, "type": event.kind }));
    let done = NewEvent {
        correlationid: Some(event.correlationid.clone()),
        causationid: Some(event.id.clone()),
        data: Some(data.map_err(mlua::Error::external)?),
        ..NewEvent::new(mark.to_string(), fired)
    };
    machine.shared.publish(vec![done], None).await?.map_err(bus_error)?;
    Ok(())
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
