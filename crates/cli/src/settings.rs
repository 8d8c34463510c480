//! `daybook.toml`: values for flags that nobody gave.
//!
//! A key is a flag's long name. At the top it holds for every command that has
//! the flag, in a table named like a command for that command:
//!
//! ```toml
//! bus = "http://127.0.0.1:7400"
//! [serve]
//! reserve-mib = 64
//! ```
//!
//! # Promises
//! A flag wins over the environment, that over the file, that over the built-in
//! value. A key that no command knows is an error, not a silence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};
use toml::{Table, Value};

use crate::exit::Failure;

const FILE: &str = "daybook.toml";
/// Names another file; it must be there then.
pub const VARIABLE: &str = "DAYBOOK_CONFIG";

pub struct Settings {
    pub path: PathBuf,
    /// Whether there is a file.
    pub found: bool,
    table: Table,
}

/// Values by flag that hold for one command.
pub type Values = BTreeMap<String, String>;

impl Settings {
    /// Reads the file, if there is one.
    pub fn load() -> Result<Self, Failure> {
        let named = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        let path = named.clone().unwrap_or_else(|| FILE.into());
        let cannot = |why: String| Failure::usage(format!("cannot use {}: {why}", path.display()));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                return Ok(Self { path, found: false, table: Table::new() });
            }
            Err(error) => return Err(cannot(error.to_string())),
        };
        let table = text.parse().map_err(|error: toml::de::Error| cannot(error.to_string()))?;
        Ok(Self { path, found: true, table })
    }

    /// `command` with the file's values as its defaults.
    pub fn apply(&self, command: Command) -> Result<Command, Failure> {
        for key in self.table.iter().filter(|(_, value)| !value.is_table()).map(|(key, _)| key) {
            if !has_flag(&command, key) {
                return Err(self.unknown(key, "no command has such a flag"));
            }
        }
        self.apply_below(command, &self.table, &Values::new(), "")
    }

    fn apply_below(
        &self,
        mut command: Command,
        table: &Table,
        inherited: &Values,
        name: &str,
    ) -> Result<Command, Failure> {
        let values = self.values(&command, table, inherited, name)?;
        for (key, value) in table {
            if value.is_table() && command.find_subcommand(key).is_none() {
                return Err(self.unknown(&join(name, key), "there is no such command"));
            }
        }
        for (flag, value) in &values {
            let Some(id) =
                command.get_arguments().find(|arg| is_flag(arg, flag)).map(|arg| arg.get_id().clone())
            else {
                continue;
            };
            command = command.mut_arg(id, |arg| arg.default_value(value.clone()));
        }
        let below: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for sub in below {
            let empty = Table::new();
            let table = table.get(&sub).and_then(Value::as_table).unwrap_or(&empty);
            let changed = command.find_subcommand(&sub).cloned().unwrap_or_default();
            let changed = self.apply_below(changed, table, &values, &join(name, &sub))?;
            command = command.mut_subcommand(&sub, |_| changed);
        }
        Ok(command)
    }

    /// What holds for `command`: what its table says, else what holds above it.
    fn values(
        &self,
        command: &Command,
        table: &Table,
        inherited: &Values,
        name: &str,
    ) -> Result<Values, Failure> {
        let mut values = inherited.clone();
        for (key, value) in table.iter().filter(|(_, value)| !value.is_table()) {
            if !name.is_empty() && !has_flag(command, key) {
                return Err(self.unknown(&join(name, key), "the command has no such flag"));
            }
            let Some(text) = text(value) else {
                return Err(self.unknown(&join(name, key), "expected a text, a number, true or false"));
            };
            values.insert(key.clone(), text);
        }
        Ok(values)
    }

    fn unknown(&self, key: &str, why: &str) -> Failure {
        Failure::usage(format!("{}: `{key}`: {why}", self.path.display()))
    }

    /// The file's own value for a flag of the command called `names`.
    pub fn value_of(&self, names: &[&str], flag: &str) -> Option<String> {
        let mut table = &self.table;
        let mut found = table.get(flag).filter(|value| !value.is_table());
        for name in names {
            let Some(below) = table.get(*name).and_then(Value::as_table) else { break };
            table = below;
            found = table.get(flag).filter(|value| !value.is_table()).or(found);
        }
        found.and_then(text)
    }
}

/// As one would write it after the flag.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(on) => Some(on.to_string()),
        _ => None,
    }
}

fn join(name: &str, key: &str) -> String {
    if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") }
}

fn is_flag(arg: &Arg, name: &str) -> bool {
    arg.get_long() == Some(name) && !["help", "version"].contains(&name)
}

/// Whether the command or one below it has the flag.
fn has_flag(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|arg| is_flag(arg, name))
        || command.get_subcommands().any(|below| has_flag(below, name))
}

/// For messages: where a relative path is.
pub fn shown(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let bus = || Arg::new("bus").long("bus").default_value("built-in");
        Command::new("d")
            .subcommand(Command::new("read").arg(bus()).arg(Arg::new("limit").long("limit")))
            .subcommand(Command::new("group").subcommand(Command::new("ls").arg(bus())))
    }

    fn settings(text: &str) -> Settings {
        Settings { path: FILE.into(), found: true, table: text.parse().unwrap() }
    }

    fn value(text: &str, args: &[&str], name: &str) -> Option<String> {
        let matches = settings(text).apply(command()).unwrap().try_get_matches_from(args).unwrap();
        let mut matches = &matches;
        while let Some((_, below)) = matches.subcommand() {
            matches = below;
        }
        matches.get_one::<String>(name).cloned()
    }

    #[test]
    fn the_nearest_table_wins_and_a_flag_wins_over_all() {
        let text = "bus = \"top\"\n[read]\nlimit = 3\n[group.ls]\nbus = \"ls\"\n";
        assert_eq!(value(text, &["d", "read"], "bus").unwrap(), "top");
        assert_eq!(value(text, &["d", "read"], "limit").unwrap(), "3");
        assert_eq!(value(text, &["d", "group", "ls"], "bus").unwrap(), "ls");
        assert_eq!(value(text, &["d", "group", "ls", "--bus", "x"], "bus").unwrap(), "x");
        assert_eq!(value("", &["d", "read"], "bus").unwrap(), "built-in");
        assert_eq!(value("", &["d", "read"], "limit"), None);
    }

    #[test]
    fn what_no_command_knows_is_refused_by_name() {
        for (text, named) in [
            ("buss = 1", "`buss`"),
            ("[red]\nlimit = 1", "`red`"),
            ("[read]\nlimits = 1", "`read.limits`"),
            ("[read]\nlimit = [1]", "`read.limit`"),
            ("limit = {a = 1}", "`limit`"),
        ] {
            let refused = settings(text).apply(command()).unwrap_err();
            assert!(refused.message.contains(named), "{text}: {}", refused.message);
        }
    }

    #[test]
    fn a_file_of_any_bytes_is_taken_or_refused_by_name() {
        let corpus = daybook_log::fuzz::Fuzz::new("fuzz settings")
            .input("bus = \"top\"\n[read]\nlimit = 3\n[group.ls]\nbus = 'ls'\n")
            .input("read = { limit = 1.5, bus = false }\ngroup.ls.bus = \"\"\"x\"\"\"\n[[read]]\n")
            .input("limit = 1979-05-27T07:32:00Z # comment\n\"bus\" = 0xff");
        corpus.run(1_000, |input| {
            let text = str::from_utf8(input).map_err(|_| "it is not UTF-8")?;
            let table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
            let settings = Settings { path: FILE.into(), found: true, table };
            let command = settings.apply(command()).map_err(|failure| {
                assert!(failure.message.starts_with("daybook.toml: `"), "{}", failure.message);
                failure.message
            })?;
            command.try_get_matches_from(["d", "read"]).map(drop).map_err(|error| error.to_string())
        });
    }
}
