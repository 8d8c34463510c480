//! Where what a script does leaves its machine: publishing and committing.
//!
//! # Promises
//! In a running service nothing is in the way. A shadow's events are written
//! down instead of published, and it reads the bus as it was before a position.
//! A test may stop a machine for ever before or after any step, as a crash would.
//!
//! # Not here
//! What is compared afterwards: `reload/shadow.rs`, `testing`.

use std::cell::{Cell, RefCell};

use daybook_client::{PublishError, Receipt};
use daybook_model::{NewEvent, Position};
use tokio::sync::Notify;

use crate::machine::Shared;

#[derive(Default)]
pub(crate) struct Outlet {
    /// `Some`: events are kept here and not published.
    recorded: RefCell<Option<Vec<NewEvent>>>,
    /// Entities are read as they were before this position.
    until: Cell<Option<Position>>,
    steps: Steps,
}

/// The places of one call where a crash makes a difference.
#[derive(Default)]
struct Steps {
    /// What was passed, in words.
    passed: RefCell<Vec<&'static str>>,
    /// The step that is never passed, from 1; 0 is none.
    last: Cell<usize>,
    crashed: Notify,
}

impl Outlet {
    pub fn record(&self) {
        *self.recorded.borrow_mut() = Some(Vec::new());
    }

    /// What was recorded since the last time.
    pub fn take_recorded(&self) -> Vec<NewEvent> {
        self.recorded.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether nothing may leave the machine; then this is written down instead.
    pub fn records(&self, what: impl FnOnce() -> NewEvent) -> bool {
        match &mut *self.recorded.borrow_mut() {
            Some(recorded) => {
                recorded.push(what());
                true
            }
            None => false,
        }
    }

    pub fn read_until(&self, until: Position) {
        self.until.set(Some(until));
    }

    pub fn until(&self) -> Option<Position> {
        self.until.get()
    }

    /// From now on the machine stops at this step.
    pub fn crash_at(&self, step: usize) {
        self.steps.last.set(step);
    }

    /// Returns once the machine has stopped.
    pub async fn crashed(&self) {
        self.steps.crashed.notified().await;
    }

    /// What was passed since the last time.
    pub fn take_steps(&self) -> Vec<&'static str> {
        self.steps.passed.take()
    }

    /// Passes a step, or never returns.
    pub async fn step(&self, what: &'static str) {
        let passed = {
            let mut passed = self.steps.passed.borrow_mut();
            passed.push(what);
            passed.len()
        };
        if passed == self.steps.last.get() {
            self.steps.crashed.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

impl Shared {
    /// Publishes, unless what this machine does is only written down.
    pub async fn publish(
        &self,
        batch: Vec<NewEvent>,
        token: Option<&str>,
    ) -> mlua::Result<Result<Receipt, PublishError>> {
        if let Some(recorded) = &mut *self.outlet.recorded.borrow_mut() {
            recorded.extend(batch);
            return Ok(Ok(Receipt { events: Vec::new() }));
        }
        self.outlet.step("before an event was published").await;
        let outcome = self.client()?.publish_with(batch, token).await;
        self.outlet.step("after an event was published, before its receipt came").await;
        Ok(outcome)
    }
}
