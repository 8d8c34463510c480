//! What a view cannot take: attempts, backoff, and at last the event is parked.
//!
//! # Promises
//! 1. The rule is the handlers': an event that a view fails on is tried again, later
//!    and later, and every failure is told in terms of the file with what comes next.
//! 2. After the last attempt it is parked for the views that failed: they go on without
//!    its rows, other views keep theirs, and a row of the table `parked` says so.
//! 3. A state that does not answer is nobody's fault and costs no attempt.
//!
//! # After a failure
//! Attempts are counted beside the machine, which may be thrown away. Tables that are
//! filled again, by another script or a rebuild, try what was parked once more.
//!
//! # Not here
//! Which rows are kept when an event fails: `views`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use daybook_model::{Event, Position};

use super::instance::{ATTEMPTS_MAX, backoff, state_error};
use crate::machine::{Machine, describe};
use crate::report;
use crate::state::{Error, Tables, Write};

/// Rows that name what a view was filled without.
pub(crate) const PARKED: &[u8] = b"parked/";

/// While tables are filled nobody is helped by waiting a minute for each event.
const ATTEMPTS_FILLING: u32 = 3;

/// The event that a service's views have failed on, if they have. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Setbacks {
    known: Arc<Mutex<Option<Setback>>>,
    /// The first failure is the last: for tests of a script.
    strict: bool,
}

#[derive(Clone, Copy)]
struct Setback {
    position: Position,
    /// Attempts that have failed.
    failed: u32,
    /// Attempts that it has: of the first time, since the next ones begin with its past.
    max: u32,
}

/// The views wait so long before they try again.
#[derive(Debug, thiserror::Error)]
#[error("a view failed; it is tried again in {0:?}")]
pub(crate) struct Again(pub Duration);

impl Again {
    pub fn of(error: &mlua::Error) -> Option<Duration> {
        error.chain().find_map(|cause| cause.downcast_ref::<Self>()).map(|again| again.0)
    }
}

impl Setbacks {
    pub fn strict() -> Self {
        Self { strict: true, ..Self::default() }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Option<Setback>) -> T) -> T {
        f(&mut self.known.lock().expect("no code panics while it holds this lock"))
    }

    /// Whoever runs in a machine that is thrown away fails, and it is not his fault.
    pub fn not_in_a_spent(&self, machine: &Machine) -> mlua::Result<()> {
        match machine.budget.exceeded() && !self.strict {
            true => Err(mlua::Error::external(Again(Duration::from_secs(1)))),
            false => Ok(()),
        }
    }

    /// Whether this event has failed before.
    pub fn concern(&self, event: &Event) -> bool {
        self.with(|known| known.is_some_and(|known| known.position == event.position))
    }

    /// One more attempt has failed.
    fn count(&self, event: &Event, filling: bool) -> Setback {
        let max = if filling { ATTEMPTS_FILLING } else { ATTEMPTS_MAX };
        self.with(|known| {
            let first = Setback { position: event.position, failed: 0, max };
            let before = known.filter(|known| known.position == event.position).unwrap_or(first);
            *known.insert(Setback { failed: before.failed + 1, ..before })
        })
    }

    pub fn forget(&self) {
        self.with(|known| *known = None);
    }

    /// One attempt is over, with these views' errors: to be made again, or the rows that
    /// say what is parked.
    pub fn failed(
        &self,
        machine: &Machine,
        event: &Event,
        filling: bool,
        errors: Vec<(String, mlua::Error)>,
    ) -> mlua::Result<Vec<Write>> {
        let excused = |error: &mlua::Error| self.strict || state_error(error).is_some();
        if let Some(at) = errors.iter().position(|(_, error)| excused(error)) {
            return errors.into_iter().nth(at).map_or(Ok(Vec::new()), |(_, error)| Err(error));
        }
        let Setback { failed: attempt, max, .. } = self.count(event, filling);
        let delay = (attempt < max).then(|| backoff(attempt));
        let cause = report::caused_by(event);
        let service = machine.shared.definitions.borrow().name.clone();
        let mut rows = Vec::new();
        for (view, error) in errors {
            let next = match delay {
                Some(delay) => format!("attempt {attempt} of {max}, next in {delay:?}"),
                None => format!(
                    "attempt {attempt} of {max}: it goes on without this event (daybook state {service} parked)"
                ),
            };
            tracing::error!(
                target: "script",
                "{}\n  while the view `{view}` took {cause}; {next}",
                machine.explain(&error)
            );
            let reason = report::shortened(describe(&error));
            rows.push((key(&view, event), Some(row(&view, event, &reason))));
        }
        match delay {
            Some(delay) => Err(mlua::Error::external(Again(delay))),
            None => Ok(rows),
        }
    }
}

/// Whether the view goes on without this event.
pub(crate) fn is_parked(tables: &Tables, view: &str, event: &Event) -> Result<bool, Error> {
    tables.get(&key(view, event)).map(|row| row.is_some())
}

/// In order of views and positions.
fn key(view: &str, event: &Event) -> Vec<u8> {
    [PARKED, view.as_bytes(), format!("\0{:020}", event.position.0).as_bytes()].concat()
}

/// The same whenever it is made, so that a rebuild gives what was there.
fn row(view: &str, event: &Event, reason: &str) -> Vec<u8> {
    let row = serde_json::json!({
        "view": view, "event": event.id, "type": event.kind, "subject": event.subject,
        "position": event.position, "reason": reason,
    });
    row.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use daybook_model::{NewEvent, Timestamp};

    use super::*;
    use crate::Limits;
    use crate::bundle::Bundle;
    use crate::engine::imagined;
    use crate::machine::{Call, Kind};
    use crate::state;

    fn machine() -> Machine {
        Machine::load(&Arc::new(Bundle::of_text("v.lua", "service('v', {})")), Limits::default()).unwrap()
    }

    fn event() -> Event {
        imagined(&NewEvent::new("1", "Named"), None, &Call::new(Kind::View, String::new(), Timestamp(0)))
    }

    fn wrong() -> Vec<(String, mlua::Error)> {
        vec![("names".into(), mlua::Error::runtime("v.lua:1: wrong"))]
    }

    #[test]
    fn a_live_view_has_the_attempts_of_a_handler_later_and_later_and_then_the_event_is_parked() {
        let (machine, event, setbacks) = (machine(), event(), Setbacks::default());
        let mut delays = Vec::new();
        for _ in 1..ATTEMPTS_MAX {
            assert_eq!(setbacks.concern(&event), !delays.is_empty());
            // From the second one on it is among what the subscription begins with.
            let again = setbacks.failed(&machine, &event, !delays.is_empty(), wrong()).unwrap_err();
            delays.push(Again::of(&again).unwrap());
        }
        assert!(delays.is_sorted() && delays[0] < delays[8], "{delays:?}");
        let rows = setbacks.failed(&machine, &event, false, wrong()).unwrap();
        assert_eq!(rows.len(), 1);
        let told = String::from_utf8(rows[0].1.clone().unwrap()).unwrap();
        assert!(told.contains("v.lua:1: wrong") && told.contains("names"), "{told}");
        setbacks.forget();
        assert!(!setbacks.concern(&event));
    }

    #[test]
    fn a_state_that_does_not_answer_costs_no_attempt() {
        let (machine, event, setbacks) = (machine(), event(), Setbacks::default());
        let lost = vec![("names".into(), mlua::Error::external(state::Error::Lost))];
        let error = setbacks.failed(&machine, &event, false, lost).unwrap_err();
        assert!(Again::of(&error).is_none() && state_error(&error).is_some());
        assert!(!setbacks.concern(&event));
    }
}
