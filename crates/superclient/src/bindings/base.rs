//! What differs from plain Luau: `print` goes to the log, `require` finds files
//! beside the script, coroutines may call the host and keep their trace, and only they yield.

use std::sync::Arc;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, Table, Value, Variadic};

use super::{args, ctx};
use crate::bundle::Bundle;
use crate::machine::{self, Shared};

/// A host call inside a script's own coroutine waits like one outside: its mark
/// is handed on to whoever resumed the coroutine, until the host takes it.
const COROUTINES: &str = r#"
local pending, traceback = ...
local running = coroutine.running
local create, resume, status, yield = coroutine.create, coroutine.resume, coroutine.status, coroutine.yield
local pack, unpack = table.pack, table.unpack

local function settle(co, ...)
  local got = pack(...)
  while got[1] and got[2] == pending and got.n == 2 and status(co) == "suspended" do
    got = pack(resume(co, yield(pending)))
  end
  return got
end

coroutine.resume = function(co, ...)
  local got = settle(co, resume(co, ...))
  return unpack(got, 1, got.n)
end

-- Those of the script itself; what the host runs in is none of them.
local own = setmetatable({}, { __mode = "k" })

local function made(f)
  local co = create(f)
  own[co] = true
  return co
end

coroutine.create = made

-- Nobody resumes what did not begin in a coroutine: it would come back at once, for ever.
-- A call of the host that waits is the exception.
coroutine.yield = function(...)
  if ... ~= pending and not own[running()] then error("coroutine.yield may be called in a coroutine of the script only", 2) end
  return yield(...)
end

coroutine.wrap = function(f)
  local co = made(f)
  return function(...)
    local got = settle(co, resume(co, ...))
    if got[1] then return unpack(got, 2, got.n) end
    if type(got[2]) == "string" and not string.find(got[2], "\nstack traceback:\n", 1, true) then
      error(got[2] .. "\nstack traceback:\n" .. traceback(co), 0)
    end
    error(got[2], 0)
  end
end
"#;

pub(super) fn install(lua: &Lua, shared: &Shared, bundle: &Arc<Bundle>) -> mlua::Result<()> {
    let globals = lua.globals();
    let print = lua.create_function(|lua, values: Variadic<Value>| {
        let tostring: Function = lua.globals().get("tostring")?;
        let words: Vec<String> =
            values.into_iter().map(|value| tostring.call::<String>(value)).collect::<mlua::Result<_>>()?;
        ctx::say(&words.join("\t"), machine::call().ok().as_deref());
        Ok(())
    })?;
    globals.set("print", print)?;
    let debug: Table = globals.get("debug")?;
    let coroutines = lua.load(COROUTINES).set_name("=coroutines");
    coroutines
        .call::<()>((Value::LightUserData(Lua::poll_pending()), debug.get::<Function>("traceback")?))?;
    let (shared, bundle) = (shared.clone(), bundle.clone());
    let loaded = lua.create_table()?;
    let require = lua.create_function(move |lua, asked: Value| {
        machine::loading(&shared, "require")?;
        let asked = args::text(&asked)
            .ok_or_else(|| mlua::Error::runtime("require(path): `path` must be a string"))?;
        let (name, text) = bundle.module(&asked).map_err(mlua::Error::runtime)?;
        match loaded.raw_get::<Value>(name.as_str())? {
            Value::Nil => {}
            Value::Boolean(false) => {
                return Err(mlua::Error::runtime(format!(
                    "require(\"{asked}\"): the files require each other in a circle"
                )));
            }
            value => return Ok(value),
        }
        loaded.raw_set(name.as_str(), false)?;
        let chunk = lua.load(text).set_name(format!("@{name}")).set_mode(ChunkMode::Text);
        let value: Value = chunk.call(())?;
        let value = if value.is_nil() { Value::Boolean(true) } else { value };
        loaded.raw_set(name.as_str(), &value)?;
        Ok(value)
    })?;
    globals.set("require", require)
}
