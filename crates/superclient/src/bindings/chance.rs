//! `math.random`: chance that a repeat sees again.
//!
//! # Promises
//! 1. What a handler, a `decide`, an `evolve` or a view draws depends on its event or
//!    command alone, so a retry and a rebuild draw the same numbers.
//! 2. An `evolve` or a view draws what it draws wherever it is called from; two views of
//!    one event know nothing of each other.
//! 3. A route draws other numbers for each request; a script that is being loaded the
//!    same ones each time.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use super::args::Args;
use crate::machine::{self, Call, NAMESPACE};

/// What a call has drawn so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chance {
    /// What the numbers depend on; `None`: the call's own seed.
    of: Option<String>,
    draws: u64,
    /// Of `math.random`, once it was asked.
    state: Option<u64>,
}

/// Until this is dropped, what is drawn depends on something of its own.
pub(crate) struct Scope {
    call: Rc<Call>,
    before: Chance,
}

impl Scope {
    pub fn enter(call: &Rc<Call>, of: impl Into<String>) -> Self {
        let fresh = Chance { of: Some(of.into()), ..Chance::default() };
        Self { call: call.clone(), before: call.chance.replace(fresh) }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.call.chance.replace(std::mem::take(&mut self.before));
    }
}

/// The next uuid of a kind.
pub(super) fn draw(what: &str) -> mlua::Result<uuid::Uuid> {
    let call = machine::call()?;
    let mut chance = call.chance.borrow_mut();
    chance.draws += 1;
    let draw = format!("{what}/{}", chance.draws);
    Ok(match &chance.of {
        Some(of) => named(&format!("{of}/{draw}")),
        None => call.derived(&draw),
    })
}

fn named(name: &str) -> uuid::Uuid {
    uuid::Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

fn seed(id: uuid::Uuid) -> u64 {
    id.as_u64_pair().0
}

/// The next number: SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 53 bits: what a Lua number holds.
pub(super) fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

const RANDOM: &str = "math.random(m, n)";

pub(super) fn install(lua: &Lua, script_hash: &str) -> mlua::Result<()> {
    let math: Table = lua.globals().get("math")?;
    // While the script is loaded there is no call.
    let loading = Rc::new(Cell::new(seed(named(script_hash))));
    let of_loading = loading.clone();
    let random = lua.create_function(move |_, args: MultiValue| {
        let bits = match machine::call() {
            Ok(call) => drawn(&call),
            Err(_) => {
                let mut state = of_loading.get();
                let bits = next(&mut state);
                of_loading.set(state);
                bits
            }
        };
        number(bits, Args::new(RANDOM, args))
    })?;
    math.raw_set("random", random)?;
    let randomseed = lua.create_function(move |_, args: MultiValue| {
        let mut args = Args::new("math.randomseed(seed)", args);
        let value = args.value();
        let seed = match value {
            Value::Integer(n) => n as f64,
            Value::Number(n) => n,
            other => return Err(args.wrong("seed", "a number", &other)),
        };
        let seed = seed.to_bits();
        match machine::call() {
            Ok(call) => call.chance.borrow_mut().state = Some(seed),
            Err(_) => loading.set(seed),
        }
        Ok(())
    })?;
    math.raw_set("randomseed", randomseed)
}

fn drawn(call: &Call) -> u64 {
    let mut chance = call.chance.borrow_mut();
    let mut state = match (chance.state, &chance.of) {
        (Some(state), _) => state,
        (None, Some(of)) => seed(named(&format!("{of}/math.random"))),
        (None, None) => seed(call.derived("math.random")),
    };
    let bits = next(&mut state);
    chance.state = Some(state);
    bits
}

/// As Luau does: a fraction, a number up to `m`, or one from `m` to `n`.
fn number(bits: u64, mut args: Args) -> mlua::Result<f64> {
    let mut whole = |name: &str| -> mlua::Result<Option<i64>> {
        match args.value() {
            Value::Nil => Ok(None),
            Value::Integer(n) => Ok(Some(n)),
            Value::Number(n) if n.abs() < 9_007_199_254_740_992.0 => Ok(Some(n as i64)),
            other => Err(args.wrong(name, "a whole number", &other)),
        }
    };
    let (low, high) = match (whole("m")?, whole("n")?) {
        (None, _) => return Ok(fraction(bits)),
        (Some(high), None) => (1, high),
        (Some(low), Some(high)) => (low, high),
    };
    if low > high {
        return Err(mlua::Error::runtime(format!("{RANDOM}: there is no number from {low} to {high}")));
    }
    let span = (i128::from(high) - i128::from(low) + 1) as u128;
    let above = (u128::from(bits) * span) >> 64;
    Ok((i128::from(low) + above as i128) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn_while_loading(script: &str) -> mlua::Result<String> {
        let lua = Lua::new();
        install(&lua, "hash")?;
        lua.load(script).eval::<Value>().and_then(|value| value.to_string())
    }

    #[test]
    fn a_script_that_is_loaded_twice_draws_the_same() {
        let script = "return math.random() .. ' ' .. math.random(1000000)";
        assert_eq!(drawn_while_loading(script).unwrap(), drawn_while_loading(script).unwrap());
        let seeded = "math.randomseed(7) return math.random(1000000)";
        assert_eq!(drawn_while_loading(seeded).unwrap(), drawn_while_loading(seeded).unwrap());
    }

    #[test]
    fn numbers_lie_where_they_were_asked_for_and_reach_both_ends() {
        let script = "
            local low, high, sum = 0, 0, 0
            for i = 1, 1000 do
              local n, f = math.random(3, 6), math.random()
              assert(n >= 3 and n <= 6 and n == math.floor(n) and f >= 0 and f < 1)
              if n == 3 then low += 1 elseif n == 6 then high += 1 end
              sum += f
            end
            assert(math.random(1) == 1 and math.random(-2, -2) == -2)
            assert(low > 150 and high > 150 and sum > 400 and sum < 600)
            return 'well'";
        assert_eq!(drawn_while_loading(script).unwrap(), "well");
        for wrong in ["math.random(0)", "math.random(5, 4)", "math.random('x')", "math.randomseed()"] {
            assert!(drawn_while_loading(wrong).is_err(), "{wrong}");
        }
    }
}
