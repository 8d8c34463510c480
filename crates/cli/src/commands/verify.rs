//! `daybook verify`: is the log on this disk whole?

use std::io::Write;
use std::path::PathBuf;

use daybook_store::local::{self, OpenError, VerifyError};
use serde_json::json;

use crate::exit::{Failure, VERIFICATION};
use crate::output::Format;
use crate::progress::Progress;

/// Read and check everything: checksums, order, ids, sequences, index, groups. Writes nothing.
#[derive(clap::Args)]
pub struct Args {
    /// The log's directory; of a demo it is `log` in its data directory.
    #[arg(long, env = "DAYBOOK_DATA", default_value = "daybook-data")]
    data: PathBuf,
    #[arg(long, value_parser = Format::without_raw())]
    output: Option<Format>,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    super::not_of_a_demo(&args.data)?;
    let mut progress = Progress::new("verify");
    let found = local::verify(&args.data, |reached| {
        progress.at(reached.events, reached.bytes, reached.bytes_total);
    });
    drop(progress);
    let format = Format::or_default(args.output);
    let found = match found {
        Ok(found) => found,
        Err(error) => return Err(failure(&error, format)),
    };
    let mut out = std::io::stdout().lock();
    match format {
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
                "ok": true, "events": found.events.to_string(), "keys": found.keys.to_string(), "bytes": found.bytes,
                "torn_bytes": found.torn_bytes, "runs": found.runs
            })
        )?,
    }
    Ok(())
}

/// What is wrong and where; as an object too, for those who asked for one.
fn failure(error: &VerifyError, format: Format) -> Failure {
    let text = error.to_string();
    let (path, offset, reason) = match error {
        // Nothing was found out: the log is in use, absent, unreadable.
        VerifyError::Log(OpenError::InUse { .. } | OpenError::Io { .. }) | VerifyError::NoLog(_) => {
            return Failure::failed(text);
        }
        VerifyError::Log(OpenError::Damaged { path, offset, reason }) => (Some(path), Some(*offset), reason),
        VerifyError::Log(OpenError::NotALog { path, reason }) => (Some(path), None, reason),
        VerifyError::Log(OpenError::OtherVersion { path, .. }) => (Some(path), None, &text),
        VerifyError::Index { path, offset, reason } => (Some(path), Some(*offset), reason),
        _ => (None, None, &text),
    };
    if format != Format::Table {
        let path = path.map(|path| path.display().to_string());
        let found = json!({ "ok": false, "file": path, "offset": offset, "reason": reason });
        let _ = writeln!(std::io::stdout(), "{found}");
    }
    Failure::new(VERIFICATION, text)
}
