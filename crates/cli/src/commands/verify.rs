//! `daybook verify`: is the log on this disk whole?

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daybook_store::local::{self, OpenError, VerifyError};
use serde_json::json;

use crate::exit::{Failure, VERIFICATION};
use crate::output::Format;

/// Read and check everything: checksums, order, ids, sequences, index. Writes nothing.
#[derive(clap::Args)]
pub struct Args {
    /// The log's directory; of a demo it is `log` in its data directory.
    #[arg(long, env = "DAYBOOK_DATA", default_value = "daybook-data")]
    data: PathBuf,
    #[arg(long, value_enum)]
    output: Option<Format>,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut told = begun;
    let people = std::io::stderr().is_terminal();
    let found = local::verify(&args.data, |events| {
        // People see it move, logs get a line now and then.
        let every = if people { Duration::from_millis(200) } else { Duration::from_secs(5) };
        if told.elapsed() >= every {
            told = Instant::now();
            let rate = events as f64 / begun.elapsed().as_secs_f64();
            eprint!(
                "{}{events} events checked, {rate:.0} a second{}",
                if people { "\r" } else { "" },
                if people { "" } else { "\n" }
            );
        }
    });
    if people {
        eprintln!();
    }
    let found = found.map_err(|error| match &error {
        VerifyError::Log(OpenError::InUse { .. } | OpenError::Io { .. }) | VerifyError::NoLog(_) => {
            Failure::failed(error.to_string())
        }
        _ => Failure::new(VERIFICATION, error.to_string()),
    })?;
    let mut out = std::io::stdout().lock();
    match Format::or_default(args.output) {
        Format::Table => {
            writeln!(
                out,
                "{} events of {} keys are in order, {} index files agree",
                found.events, found.keys, found.runs
            )?;
            if found.torn_bytes > 0 {
                writeln!(
                    out,
                    "{} bytes of a torn last write, of which nobody was told, will be cut off",
                    found.torn_bytes
                )?;
            }
        }
        _ => writeln!(
            out,
            "{}",
            json!({
                "events": found.events.to_string(), "keys": found.keys.to_string(), "bytes": found.bytes,
                "torn_bytes": found.torn_bytes, "runs": found.runs
            })
        )?,
    }
    Ok(())
}
