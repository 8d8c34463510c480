//! `daybook config explain`: which values hold, and where each comes from.

use std::io::Write;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};
use comfy_table::{Table, presets};
use serde_json::json;

use crate::exit::Failure;
use crate::output::Format;
use crate::settings::{Settings, VARIABLE, shown};

/// Settings, and where they come from.
#[derive(clap::Subcommand)]
pub enum Command {
    Explain(Explain),
}

/// Tell each setting's value and source: flag, environment, daybook.toml or default.
#[derive(clap::Args)]
pub struct Explain {
    #[arg(long, value_parser = Format::without_raw())]
    output: Option<Format>,
    /// A command, perhaps with flags, like `serve --listen 127.0.0.1:0`; default all.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

struct Row {
    command: String,
    setting: String,
    value: Option<String>,
    source: String,
}

/// `cli` has the file's values already.
pub fn run(command: &Command, cli: clap::Command, settings: &Settings) -> Result<(), Failure> {
    let Command::Explain(args) = command;
    let mut chosen = &cli;
    let mut names: Vec<&str> = Vec::new();
    for name in args.command.iter().take_while(|name| !name.starts_with('-')) {
        match chosen.find_subcommand(name) {
            Some(below) => chosen = below,
            None if names.is_empty() => return Err(Failure::usage(format!("there is no command `{name}`"))),
            // A value for the command itself.
            None => break,
        }
        names.push(name);
    }
    let given = cli
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(std::iter::once("daybook").chain(args.command.iter().map(String::as_str)));
    let mut given = given.as_ref().ok();
    for name in &names {
        given = given.and_then(|matches| matches.subcommand_matches(name));
    }
    let mut rows = Vec::new();
    // Of all commands, only what is set somewhere or can be from outside.
    collect(chosen, &names, given, settings, !names.is_empty(), &mut rows);
    rows.sort_by(|a, b| (&a.command, &a.setting).cmp(&(&b.command, &b.setting)));
    told(args, settings, &rows)
}

fn collect<'a>(
    command: &'a clap::Command,
    names: &[&'a str],
    given: Option<&ArgMatches>,
    settings: &Settings,
    all: bool,
    rows: &mut Vec<Row>,
) {
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
        let row = row(arg, long, names, given, settings);
        if all || arg.get_env().is_some() || row.source == settings.path.display().to_string() {
            rows.push(row);
        }
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        let names = [names, &[below.get_name()]].concat();
        collect(below, &names, None, settings, all, rows);
    }
}

fn row(arg: &Arg, long: &str, names: &[&str], given: Option<&ArgMatches>, settings: &Settings) -> Row {
    let flag =
        given.filter(|given| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine));
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
    let environment = variable.as_ref().and_then(|name| Some((name, std::env::var(name).ok()?)));
    let file = settings.value_of(names, long);
    let (value, source) = match (flag, environment, file) {
        (Some(given), ..) => {
            let raw = given.get_raw(arg.get_id().as_str()).into_iter().flatten();
            let values: Vec<_> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
            (Some(values.join(" ")), "flag".to_owned())
        }
        (None, Some((name, value)), _) => (Some(value), format!("environment {name}")),
        (None, None, Some(value)) => (Some(value), settings.path.display().to_string()),
        (None, None, None) => {
            let built_in = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
            let source = if built_in.is_some() { "default" } else { "not set" };
            (built_in, source.to_owned())
        }
    };
    let value = value.map(|value| if arg.is_hide_env_values_set() { "(secret)".to_owned() } else { value });
    Row { command: names.join(" "), setting: format!("--{long}"), value, source }
}

fn told(args: &Explain, settings: &Settings, rows: &[Row]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if Format::or_default(args.output) != Format::Table {
        for Row { command, setting, value, source } in rows {
            let row = json!({ "command": command, "setting": setting, "value": value, "source": source });
            writeln!(out, "{row}")?;
        }
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["COMMAND", "SETTING", "VALUE", "FROM"]);
    for Row { command, setting, value, source } in rows {
        table.add_row([command.as_str(), setting, value.as_deref().unwrap_or("-"), source]);
    }
    writeln!(out, "{table}")?;
    let path = shown(&settings.path);
    match settings.found {
        true => eprintln!("file: {path}"),
        false => eprintln!("file: none; {path} would be read, or what {VARIABLE} names"),
    }
    Ok(())
}
