//! Many seeds, each in a process of its own.
//!
//! # Promises
//! 1. Fails if a seed broke a promise, died or hung; if one of the first few gave
//!    another trace the second time; or if something that a run can meet was met
//!    in no run at all.
//! 2. The first failing seed leaves its history in a file that is named.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daybook_sim::world::Outcome;
use serde::{Deserialize, Serialize};

use crate::Flags;

pub const SECONDS: u64 = 60;
const SEEDS: u64 = 300;
/// Seeds that run twice.
const TWICE: u64 = 10;
/// A run takes seconds; one that takes this long has hung.
const HUNG: Duration = Duration::from_secs(300);
/// Fewer seeds than this may miss what is rare.
const SEEDS_FOR_EVERYTHING: u64 = 20;

/// What the process of a seed tells the one that started it.
#[derive(Serialize, Deserialize)]
pub struct Line {
    trace: u64,
    events: u64,
    virtual_ms: u64,
    violations: u64,
    /// How often each fault was done and each kind of thing was looked at.
    met: BTreeMap<String, u64>,
}

impl Line {
    pub fn of(outcome: &Outcome) -> Self {
        let counts = outcome.counts.named().map(|(name, n)| (name.to_owned(), n));
        Self {
            trace: outcome.trace,
            events: outcome.events,
            virtual_ms: outcome.virtual_ms,
            violations: outcome.violations.len() as u64,
            met: outcome.faults.clone().into_iter().chain(counts).collect(),
        }
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a line is plain data")
    }
}

#[derive(Default)]
struct Total {
    met: BTreeMap<String, u64>,
    events: u64,
    virtual_ms: u64,
    failed: Vec<u64>,
}

pub fn run(flags: &Flags<'_>) -> Result<ExitCode, String> {
    let (seeds, from) = (flags.number("seeds", SEEDS)?, flags.number("from", 1)?);
    let seconds = flags.number("seconds", SECONDS)?;
    eprintln!("seeds {from} to {}, {seconds} virtual seconds each", from + seeds - 1);
    let started = Instant::now();
    let (next, stop) = (AtomicU64::new(from), AtomicBool::new(false));
    let total = Mutex::new(Total::default());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= from + seeds {
                        return;
                    }
                    let result = once(seed, seconds).and_then(|line| {
                        if seed < from + TWICE && once(seed, seconds)?.trace != line.trace {
                            return Err("another trace the second time".to_owned());
                        }
                        Ok(line)
                    });
                    let mut total = total.lock().expect("no thread panics while it holds this lock");
                    match result {
                        Ok(line) => {
                            total.events += line.events;
                            total.virtual_ms += line.virtual_ms;
                            for (name, n) in line.met {
                                *total.met.entry(name).or_default() += n;
                            }
                        }
                        Err(reason) => {
                            eprintln!("seed {seed}: {reason}");
                            total.failed.push(seed);
                            // A few tell more than one; all of them tell no more.
                            stop.fetch_or(total.failed.len() >= 5, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
    });
    let total = total.into_inner().expect("no thread panics while it holds this lock");
    eprintln!(
        "{} events in {} virtual seconds, {:.0} s of real time",
        total.events,
        total.virtual_ms / 1_000,
        started.elapsed().as_secs_f64()
    );
    for (name, n) in &total.met {
        eprintln!("{n:>10} {name}");
    }
    if let Some(seed) = total.failed.iter().min() {
        let file = std::env::temp_dir().join(format!("daybook-sim-{seed}.txt"));
        let seconds = seconds.to_string();
        let _ = command(seed).args(["--seconds", &seconds, "--history"]).arg(&file).output();
        eprintln!("failed: {:?}; the history of seed {seed} is in {}", total.failed, file.display());
        return Ok(ExitCode::FAILURE);
    }
    let never: Vec<_> = total.met.iter().filter(|(_, n)| **n == 0).map(|(name, _)| name).collect();
    if seeds >= SEEDS_FOR_EVERYTHING && !never.is_empty() {
        eprintln!("never met, so nothing was proved about: {never:?}");
        return Ok(ExitCode::FAILURE);
    }
    eprintln!("0 of {seeds} seeds broke a promise; {} ran twice with the same trace", TWICE.min(seeds));
    Ok(ExitCode::SUCCESS)
}

fn command(seed: &u64) -> Command {
    let this = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(this);
    command.args(["seed", &seed.to_string()]).stdin(Stdio::null());
    command
}

fn once(seed: u64, seconds: u64) -> Result<Line, String> {
    let mut child = command(&seed)
        .args(["--seconds", &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start: {error}"))?;
    let started = Instant::now();
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        if started.elapsed() > HUNG {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("hung for {HUNG:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let line: Option<Line> = serde_json::from_slice(&output.stdout).ok();
    match line {
        Some(line) if output.status.success() => Ok(line),
        Some(line) => Err(format!("{} violations", line.violations)),
        None => Err(format!("ended with {}", output.status)),
    }
}
