//! Stopping scripts that do not stop themselves.
//!
//! Luau calls the interrupt at every loop and call. Once the budget is used up
//! every interrupt raises, so that a `pcall` which catches the first one is
//! stopped by the next.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Function, Lua, VmState};

use crate::Limits;
use crate::report::{self, Invalid};

/// Budget of what runs now. Scripts of one machine run one at a time, so one
/// clock is enough: it is wound up whenever a script is entered.
#[derive(Clone)]
pub(crate) struct Budget {
    memory_bytes: usize,
    until: Rc<Cell<Option<Instant>>>,
    /// When the call that runs now began; what it has not computed since, it has waited.
    begun: Rc<Cell<Option<Instant>>>,
    compute: Duration,
    /// How long a call may take, waiting included.
    pub wall: Duration,
    exceeded: Rc<Cell<bool>>,
    /// Where the script was when its memory ran short or its time was over.
    seen: Rc<RefCell<String>>,
}

pub(crate) const EXCEEDED: &str = "the script used up its time";

/// What a call is told whose machine another one has spoiled.
const GIVEN_UP: &str = "stopped, because another call used up the time or the memory of its machine";

/// What an error says when there was no memory left.
pub(crate) const FULL: &str = "the script used up its memory";

impl Budget {
    pub fn install(lua: &Lua, limits: Limits) -> Self {
        let Limits { compute, wall, memory_bytes } = limits;
        let budget = Self {
            memory_bytes,
            until: Rc::default(),
            begun: Rc::default(),
            compute,
            wall,
            exceeded: Rc::default(),
            seen: Rc::default(),
        };
        let seen = budget.clone();
        // Reading the clock at every call would cost more than the script.
        let countdown = Cell::new(0u32);
        lua.set_interrupt(move |lua| {
            // Nobody can say where memory ended: an error of the allocator has no trace.
            if lua.used_memory() > memory_bytes / 2 {
                *seen.seen.borrow_mut() = place(lua);
            }
            let left = countdown.get();
            if left > 0 && !seen.exceeded.get() {
                countdown.set(left - 1);
                return Ok(VmState::Continue);
            }
            countdown.set(200);
            match seen.until.get() {
                Some(until) if Instant::now() >= until => {
                    seen.exceeded.set(true);
                    let place = place(lua);
                    seen.seen.borrow_mut().clone_from(&place);
                    let total = seen.begun.get().map_or(Duration::ZERO, |begun| begun.elapsed());
                    let waited = total.saturating_sub(compute).as_millis();
                    let compute = compute.as_millis();
                    Err(mlua::Error::runtime(format!(
                        "{place}{EXCEEDED}: {compute} ms of computing, {waited} ms of waiting"
                    )))
                }
                // A machine that is thrown away waits for nobody who is still in it.
                _ if seen.exceeded.get() => Err(mlua::Error::runtime(format!("{}{GIVEN_UP}", place(lua)))),
                _ => Ok(VmState::Continue),
            }
        });
        budget
    }

    /// Before the host puts anything into a machine that is nearly full: what the call
    /// before left behind must not be this one's undoing.
    pub fn make_room(&self, lua: &Lua) -> mlua::Result<()> {
        if lua.used_memory() > self.memory_bytes / 8 * 7 { lua.gc_collect() } else { Ok(()) }
    }

    /// Winds the clock up for what runs until the guard is dropped.
    pub fn enter(&self) -> Entered<'static> {
        let before = self.until.get();
        // What runs inside another script's time shares its budget.
        if before.is_none() {
            let now = Instant::now();
            self.until.set(Some(now + self.compute));
            self.begun.set(Some(now));
        }
        Entered { until: self.until.clone(), before, used: None }
    }

    /// The same for a part of a call that has `used` some of its time since it has `begun`,
    /// and adds to it what it uses now: a call that waits often has one budget too.
    pub fn enter_after<'a>(&self, begun: Instant, used: &'a mut Duration) -> Entered<'a> {
        let before = self.until.get();
        if before.is_none() {
            self.until.set(Some(Instant::now() + self.compute.saturating_sub(*used)));
            self.begun.set(Some(begun));
        }
        Entered { until: self.until.clone(), before, used: Some((Instant::now(), used)) }
    }

    /// An error that has no place of its own, like the allocator's, with the one
    /// that was last seen, or at least the line that the function begins in.
    pub fn placed(&self, error: mlua::Error, function: Option<&Function>) -> mlua::Error {
        let told = report::describe(&error);
        let mut place = self.seen.take();
        if report::file(&told).is_some() || Invalid::of(&error).is_some() {
            return error;
        }
        if place.is_empty()
            && let Some(info) = function.map(Function::info)
        {
            place =
                format!("{}:{}: ", info.short_src.unwrap_or_default(), info.line_defined.unwrap_or_default());
        }
        let told = match report::headline(&told) {
            "error in error handling" => "an error that cannot be shown: its __tostring fails",
            told => told,
        };
        mlua::Error::runtime(format!("{place}{told}"))
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

/// `points.lua:7: ` of what runs now, for an error that no function raised.
fn place(lua: &Lua) -> String {
    for level in 0..50 {
        let seen = lua.inspect_stack(level, |debug| {
            let source = debug.source().short_src.map(|name| name.into_owned()).unwrap_or_default();
            (source, debug.current_line().unwrap_or_default())
        });
        match seen {
            Some((source, line)) if source.ends_with(".lua") => return format!("{source}:{line}: "),
            Some(_) => {}
            None => break,
        }
    }
    String::new()
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
