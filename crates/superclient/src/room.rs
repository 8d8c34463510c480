//! Room: putting a value into a machine without asking for memory at every step.
//!
//! With a limit on its memory a machine takes every text and every member from
//! outside in a protected call of its own, which costs more than the member. While
//! there is surely room for all of it, the host lifts the limit for that long.
//!
//! # Promises
//! 1. A machine never holds more than its limit: the limit is lifted only for what
//!    is known to fit below it, and is back before any of the script runs.
//! 2. What may not fit is put in step by step, and can end in `not enough memory`.

use mlua::Lua;

/// What a byte of JSON can become at most: an empty list in a list of them takes
/// a table, its place in the list, and the place it had before the list grew.
const PER_BYTE: usize = 64;
/// An event's or a context's own table with its texts, and what the calls need.
const FIXED: usize = 16 << 10;

/// The limit is lifted until this is dropped.
pub(crate) struct Room<'a> {
    lua: &'a Lua,
    limit: usize,
}

impl<'a> Room<'a> {
    /// For a value that is written in so many bytes; `None` if it may not fit, or if
    /// there is no limit now.
    pub fn take(lua: &'a Lua, bytes: usize) -> Option<Self> {
        let limit = lua.set_memory_limit(0).ok().filter(|limit| *limit > 0)?;
        let room = Self { lua, limit };
        let wanted = bytes.saturating_mul(PER_BYTE).saturating_add(FIXED);
        (lua.used_memory().saturating_add(wanted) <= limit).then_some(room)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        // It fails only on machines that cannot have a limit.
        let _ = self.lua.set_memory_limit(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    const LIMIT: usize = 4 << 20;

    fn machine() -> Lua {
        let lua = Lua::new();
        lua.set_memory_limit(LIMIT).unwrap();
        lua
    }

    /// What the value is alive for, the garbage of making it included.
    fn grown(lua: &Lua, text: &str) -> usize {
        lua.gc_collect().unwrap();
        lua.gc_stop();
        let before = lua.used_memory();
        let _value = json::parse(lua, text).unwrap();
        let grown = lua.used_memory() - before;
        lua.gc_restart();
        grown
    }

    #[test]
    fn no_json_takes_more_room_than_is_reckoned_for_it() {
        let lists = format!("[{}[]]", "[],".repeat(3_000));
        let objects = format!("[{}{{}}]", "{},".repeat(3_000));
        let numbers = format!("[{}1]", "1,".repeat(3_000));
        let texts = format!("[{}]", (0..3_000).map(|i| format!("\"{i}\"")).collect::<Vec<_>>().join(","));
        let members =
            format!("{{{}}}", (0..300_000).map(|i| format!("\"{i}\":1")).collect::<Vec<_>>().join(","));
        let amounts = format!("[{}1]", r#"{"minor":"1","currency":"GBP"},"#.repeat(1_000));
        let deep = format!("{}1{}", r#"{"a":"#.repeat(60), "}".repeat(60));
        for text in [lists, objects, numbers, texts, members, amounts, deep, "[]".into()] {
            let lua = Lua::new();
            let grown = grown(&lua, &text);
            assert!(
                grown <= text.len() * PER_BYTE + FIXED,
                "{grown} bytes for {} of {:.20}…",
                text.len(),
                text
            );
        }
    }

    #[test]
    fn the_limit_is_lifted_only_while_there_is_room_and_is_back_afterwards() {
        let lua = machine();
        {
            let room = Room::take(&lua, 100);
            assert!(room.is_some());
            assert!(Room::take(&lua, 100).is_none(), "it is lifted already");
            assert_eq!(lua.set_memory_limit(0).unwrap(), 0);
        }
        assert!(Room::take(&lua, LIMIT).is_none());
        let bomb = lua.load("return string.rep('x', 100000000)").exec();
        assert!(bomb.unwrap_err().to_string().contains("not enough memory"));
        // What does not fit is refused, not taken.
        let large = format!("[{}1]", "[],".repeat(400_000));
        assert!(json::parse(&lua, &large).is_err());
        // Lua's own closures are made beyond any limit.
        assert!(lua.used_memory() <= LIMIT + LIMIT / 16, "{}", lua.used_memory());
    }
}
