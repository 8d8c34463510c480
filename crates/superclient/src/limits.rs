//! Stopping scripts that do not stop themselves.
//!
//! Luau calls the interrupt at every loop and call. Once the budget is used up
//! every interrupt raises, so that a `pcall` which catches the first one is
//! stopped by the next.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Lua, VmState};

use crate::Limits;

/// Budget of what runs now. Scripts of one machine run one at a time, so one
/// clock is enough: it is wound up whenever a script is entered.
#[derive(Clone)]
pub(crate) struct Budget {
    until: Rc<Cell<Option<Instant>>>,
    compute: Duration,
    /// How long a call may take, waiting included.
    pub wall: Duration,
    exceeded: Rc<Cell<bool>>,
}

pub(crate) const EXCEEDED: &str = "the script used up its time";

impl Budget {
    pub fn install(lua: &Lua, limits: Limits) -> Self {
        let Limits { compute, wall, .. } = limits;
        let budget = Self { until: Rc::default(), compute, wall, exceeded: Rc::default() };
        let seen = budget.clone();
        // Reading the clock at every call would cost more than the script.
        let countdown = Cell::new(0u32);
        lua.set_interrupt(move |_| {
            let left = countdown.get();
            if left > 0 && !seen.exceeded.get() {
                countdown.set(left - 1);
                return Ok(VmState::Continue);
            }
            countdown.set(200);
            match seen.until.get() {
                Some(until) if Instant::now() >= until => {
                    seen.exceeded.set(true);
                    Err(mlua::Error::runtime(EXCEEDED))
                }
                _ => Ok(VmState::Continue),
            }
        });
        budget
    }

    /// Winds the clock up for what runs until the guard is dropped.
    pub fn enter(&self) -> Entered<'static> {
        let before = self.until.get();
        // What runs inside another script's time shares its budget.
        if before.is_none() {
            self.until.set(Some(Instant::now() + self.compute));
        }
        Entered { until: self.until.clone(), before, used: None }
    }

    /// The same for a part of a call that has `used` some of its time before, and
    /// adds to it what it uses now: a call that waits often has one budget too.
    pub fn enter_after<'a>(&self, used: &'a mut Duration) -> Entered<'a> {
        let before = self.until.get();
        if before.is_none() {
            self.until.set(Some(Instant::now() + self.compute.saturating_sub(*used)));
        }
        Entered { until: self.until.clone(), before, used: Some((Instant::now(), used)) }
    }

    /// The machine is full: what its scripts left behind may never be let go.
    pub fn spend(&self) {
        self.exceeded.set(true);
    }

    /// Whether some script was stopped: its machine is not to be trusted any more.
    pub fn exceeded(&self) -> bool {
        self.exceeded.get()
    }
}

pub(crate) struct Entered<'a> {
    until: Rc<Cell<Option<Instant>>>,
    before: Option<Instant>,
    used: Option<(Instant, &'a mut Duration)>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.until.set(self.before);
        if let Some((begun, used)) = &mut self.used {
            **used += begun.elapsed();
        }
    }
}
