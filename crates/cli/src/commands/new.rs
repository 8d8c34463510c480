//! `daybook new service NAME`: a service with its tests, ready to run and to change;
//! `daybook new types`: the script API for editors.

use std::io::Write;
use std::path::PathBuf;

use crate::exit::Failure;

/// Begin something.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Print the types of the script API, for editors that know Luau.
    Types,
    /// Write NAME.lua, NAME_test.lua and, for editors, daybook.d.luau.
    Service {
        /// a-z, 0-9, - and _: the group's name on the bus.
        name: String,
        /// Where.
        #[arg(long, default_value = ".")]
        dir: PathBuf,
    },
}

const SCRIPT: &str = r#"-- The service `NAME`. Run it: daybook run NAME.lua   Test it: daybook test NAME.lua
local svc = service("NAME", { version = 1 })

-- An entity is what the events of one key add up to: `item/7` is the key of item 7.
local item = svc:entity("item", function() return { count = 0 } end)
item:evolve("ItemCounted", function(state, e) state.count += e.data.by end)

-- A command is checked, then decides: an event, a list of them, ok(why) or reject(code, details).
item:decide("count", { by = "integer" }, function(state, command)
  if state.count + command.by < 0 then return reject("below_zero", { count = state.count }) end
  return event("ItemCounted", { by = command.by })
end)

svc:get("/items/:id", function(req) return json(item:state(req.params.id)) end)
svc:post("/items/:id/counts", function(req)
  return json(item:send(req.params.id, "count", { by = req.json.by }, { id = req.headers["idempotency-key"] }))
end)
"#;

const TESTS: &str = r#"test("an item is counted", function(t)
  t:given("item/7", { event("ItemCounted", { by = 2 }) })
  t:when(item, "7", "count", { by = 3 })
  t:emitted{ { type = "ItemCounted", subject = "item/7", data = { by = 3 } } }
  t:state(item, "7", { count = 5 })
  t:twice()
end)

test("an item never goes below zero", function(t)
  t:when(item, "7", "count", { by = -1 })
  t:rejected("below_zero")
  t:emitted{}
end)
"#;

pub fn run(command: &Command) -> Result<(), Failure> {
    let (name, dir) = match command {
        Command::Types => {
            std::io::stdout().lock().write_all(daybook_superclient::TYPES.as_bytes())?;
            return Ok(());
        }
        Command::Service { name, dir } => (name, dir),
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err(Failure::usage("a service's name has 1 to 64 of a-z, 0-9, - and _"));
    }
    let files = [(format!("{name}.lua"), SCRIPT), (format!("{name}_test.lua"), TESTS)];
    // Both or none, and nothing that is there is lost.
    if let Some((file, _)) = files.iter().find(|(file, _)| dir.join(file).exists()) {
        return Err(Failure::failed(format!("{} is there already", dir.join(file).display())));
    }
    for (file, text) in files {
        let path = dir.join(file);
        let mut out = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        out.write_all(text.replace("NAME", name).as_bytes())?;
        eprintln!("wrote {}", path.display());
    }
    let types = dir.join("daybook.d.luau");
    if !types.exists() {
        std::fs::write(&types, daybook_superclient::TYPES)?;
        eprintln!("wrote {}", types.display());
    }
    Ok(())
}
