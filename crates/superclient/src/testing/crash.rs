//! Crashes in the middle of a handler, a command or a route.
//!
//! # Promises
//! A run without a crash writes down every step its last action passed. For each
//! of them the whole test is run again on a new bus: the action runs in a machine
//! of its own that stops for ever at that step and is thrown away; then it runs
//! again in another machine, as a delivery after a restart would. What is on the
//! bus and in `svc.kv` afterwards must be what one run made, and the rest of the
//! test must hold.
//!
//! # Not here
//! Crashes of the bus itself: that is the store's to survive.

use serde_json::Value as Json;

use super::stage::{Action, Stage};
use crate::machine::Machine;

/// A place where a test wants a crash.
#[derive(Clone, Debug)]
pub struct CrashPoint {
    /// Number of the action in its test, from 1.
    pub(super) action: u32,
    /// Step within the action, from 1.
    pub(super) step: usize,
    pub(super) what: &'static str,
    /// What one run without a crash made.
    pub(super) expected: Json,
}

impl std::fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a crash {} (step {})", self.what, self.step)
    }
}

/// Runs the action in machines that crash, until one gets to its end.
pub(super) async fn act(stage: &Stage, action: &Action, point: &CrashPoint) -> mlua::Result<Json> {
    let machine = another(stage)?;
    machine.shared.outlet.crash_at(point.step);
    let first = tokio::select! {
        outcome = stage.perform(&machine, action) => Some(outcome),
        () = machine.shared.outlet.crashed() => None,
    };
    match first {
        // It took another way than the run without a crash and never came there.
        Some(outcome) => outcome,
        None => {
            drop(machine);
            stage.perform(&another(stage)?, action).await
        }
    }
}

/// A new machine with what outlives a process: the bus, and the state on disk.
fn another(stage: &Stage) -> mlua::Result<Machine> {
    let machine = Machine::load(&stage.bundle, super::LIMITS).map_err(mlua::Error::external)?;
    let _ = machine.shared.client.set(stage.machine.shared.client()?.clone());
    let _ = machine.shared.state.set(stage.machine.shared.state()?.clone());
    let _ = machine.shared.stand_in.set(stage.others.clone());
    Ok(machine)
}

/// Times and ids are other ones in every run.
pub(super) fn masked(value: Json) -> Json {
    match value {
        Json::String(text) if text.parse::<uuid::Uuid>().is_ok() => "(an id)".into(),
        Json::String(text) if text.parse::<daybook_model::Timestamp>().is_ok() && text.contains('T') => {
            "(a time)".into()
        }
        Json::Array(items) => items.into_iter().map(masked).collect(),
        Json::Object(members) => members
            .into_iter()
            .map(|(name, member)| (name, masked(member)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other,
    }
}
