//! `chaos`: a run with real processes. `actor`: one of them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use daybook_sim::chaos::{self, Options};

use crate::Flags;

const SECONDS: u64 = 60;
/// A run with fewer faults than this in a minute has not done its work.
const FAULTS_PER_MINUTE: u64 = 100;

pub fn chaos(flags: &Flags<'_>) -> Result<ExitCode, String> {
    let binary = flags.text("binary").ok_or("chaos needs --binary, the path of `daybook`")?;
    let folder = std::env::temp_dir().join(format!("daybook-chaos-{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let options = Options {
        seed: flags.number("seed", 1)?,
        seconds: flags.number("seconds", SECONDS)?,
        binary: PathBuf::from(binary),
        folder,
    };
    let folder = options.folder.display();
    eprintln!("seed {}, {} s with faults; log and histories in {folder}", options.seed, options.seconds);
    let started = Instant::now();
    let outcome = runtime()?.block_on(chaos::run(&options)).map_err(|error| {
        format!("{error}; kept {folder}; the server said last:\n{}", chaos::server_said(&options.folder))
    })?;
    eprintln!("{} events, {:.0} s", outcome.events, started.elapsed().as_secs_f64());
    let counts = outcome.verdict.counts.named();
    for (name, n) in outcome.faults.iter().map(|(name, n)| (*name, *n)).chain(counts) {
        eprintln!("{n:>10} {name}");
    }
    for violation in outcome.verdict.violations.iter().take(20) {
        eprintln!("{}: {}", violation.rule, violation.detail);
    }
    let faults: u64 = outcome.faults.values().sum();
    let kills = outcome.faults.get(chaos::SERVER_KILLED).copied().unwrap_or_default();
    let enough = faults * 60 >= FAULTS_PER_MINUTE * options.seconds && kills >= chaos::SERVER_KILLS;
    if !outcome.verdict.violations.is_empty() || !enough {
        eprintln!(
            "failed: {} violations, {faults} faults, {kills} kills of the server; kept {folder}",
            outcome.verdict.violations.len()
        );
        return Ok(ExitCode::FAILURE);
    }
    eprintln!("0 violations under {faults} faults");
    let _ = std::fs::remove_dir_all(&options.folder);
    Ok(ExitCode::SUCCESS)
}

pub fn actor(role: &str, who: &str, flags: &Flags<'_>) -> Result<ExitCode, String> {
    let bus = flags.text("bus").and_then(|bus| bus.parse().ok()).ok_or("an actor needs --bus")?;
    let history = PathBuf::from(flags.text("history").ok_or("an actor needs --history")?);
    let calm = PathBuf::from(flags.text("calm").ok_or("an actor needs --calm")?);
    let acting = chaos::act(role.parse()?, who, bus, flags.number("seed", 1)?, &history, calm);
    runtime()?.block_on(acting).map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}
