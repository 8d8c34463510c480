//! `daybook-sim`: see README.md.

mod processes;
mod seeds;

use std::process::ExitCode;

use daybook_sim::world::{self, Options, Planted};

const USAGE: &str = "\
usage: daybook-sim seeds [--seeds N] [--from SEED] [--seconds S]   many seeds, a process each
       daybook-sim seed SEED [--seconds S] [--history FILE] [--planted MISTAKE]   one seed
       daybook-sim chaos --binary DAYBOOK [--seconds S] [--seed SEED]   real processes";

fn main() -> ExitCode {
    if let Ok(filter) = std::env::var("DAYBOOK_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["seeds", rest @ ..] => {
            flags(rest, &["seeds", "from", "seconds"]).and_then(|flags| seeds::run(&flags))
        }
        ["seed", seed, rest @ ..] => {
            flags(rest, &["seconds", "history", "planted"]).and_then(|flags| one(seed, &flags))
        }
        ["chaos", rest @ ..] => {
            flags(rest, &["binary", "seconds", "seed"]).and_then(|flags| processes::chaos(&flags))
        }
        ["actor", role, who, rest @ ..] => flags(rest, &["bus", "seed", "history", "calm"])
            .and_then(|flags| processes::actor(role, who, &flags)),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::from(2)
        }
    }
}

/// `--name value` pairs.
pub struct Flags<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Flags<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(flag, _)| *flag == name).map(|(_, value)| *value)
    }

    fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("--{name} takes a number, not `{text}`")),
        }
    }
}

fn flags<'a>(words: &[&'a str], known: &[&str]) -> Result<Flags<'a>, String> {
    let mut flags = Vec::new();
    for pair in words.chunks(2) {
        match (pair[0].strip_prefix("--").filter(|name| known.contains(name)), pair.get(1)) {
            (Some(name), Some(value)) => flags.push((name, *value)),
            _ => return Err(format!("cannot read `{}`\n{USAGE}", pair.join(" "))),
        }
    }
    Ok(Flags(flags))
}

/// Runs one seed here; one line of JSON tells what came of it.
fn one(seed: &str, flags: &Flags<'_>) -> Result<ExitCode, String> {
    let seed = seed.parse().map_err(|_| format!("a seed is a number, not `{seed}`"))?;
    let seconds = flags.number("seconds", seeds::SECONDS)?;
    let planted = match flags.text("planted") {
        Some(name) => Some(Planted::named(name).ok_or_else(|| format!("there is no mistake `{name}`"))?),
        None => None,
    };
    let outcome = world::run(Options { seed, seconds, planted });
    if let Some(path) = flags.text("history") {
        let lines: String = outcome.records.iter().map(|record| format!("{record}\n")).collect();
        std::fs::write(path, lines).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    for violation in &outcome.violations {
        eprintln!("seed {seed}: {}: {}", violation.rule, violation.detail);
    }
    println!("{}", seeds::Line::of(&outcome).to_json());
    Ok(if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
