//! `daybook backup` and `daybook restore`: the log and the groups on another disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daybook_client::{Client, ReadQuery};
use daybook_store::local::{Backup, Lock, OpenError};

use super::Interrupts;
use crate::exit::{Failure, VERIFICATION};

/// Copy a log and its groups' checkpoints to another directory, disk or mount.
#[derive(clap::Args)]
pub struct Args {
    /// Where the copy is, or shall be; an older copy of the same log is gone on with.
    to: PathBuf,
    /// The log's directory; of a demo it is `log` in its data directory.
    #[arg(long, env = "DAYBOOK_DATA", default_value = "daybook-data")]
    data: PathBuf,
    /// The server that has the log open; needed to copy while it serves.
    #[arg(long)]
    bus: Option<String>,
    /// Go on until interrupted, and tell how far behind the copy is.
    #[arg(long, requires = "bus")]
    follow: bool,
}

/// Make a log from a copy. The target must be empty.
#[derive(clap::Args)]
pub struct RestoreArgs {
    from: PathBuf,
    to: PathBuf,
}

/// How often `--follow` looks for more.
const LOOK: Duration = Duration::from_millis(200);
/// How often it says how far it is.
const TELL: Duration = Duration::from_secs(5);

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    let Some(bus) = &args.bus else {
        let _lock = Lock::take(&args.data).map_err(|error| match error {
            OpenError::InUse { .. } => {
                Failure::failed(format!("{error}; to copy while it serves, name its address: --bus http://…"))
            }
            error => failure(error),
        })?;
        let next = copy(&args.data, &args.to)?;
        eprintln!("{next} events are in {}", args.to.display());
        return Ok(());
    };
    let client = Client::builder(bus).service("backup").connect().await?;
    let mut backup = Backup::open(&args.data, &args.to).map_err(failure)?;
    let mut told = Instant::now();
    loop {
        let checkpoints = backup.checkpoints().map_err(failure)?;
        let head = head(&client).await?;
        backup.ship(Some(head), &checkpoints).map_err(failure)?;
        if !args.follow {
            eprintln!("{} events are in {}", backup.next(), args.to.display());
            break;
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            let behind = self::head(&client).await?.saturating_sub(backup.next());
            eprintln!("{} events copied, {behind} behind", backup.next());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = interrupts.next() => {
                eprintln!("{} events are in {}; run it again to go on", backup.next(), args.to.display());
                break;
            }
        }
    }
    client.close().await;
    Ok(())
}

pub fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let is_empty = std::fs::read_dir(&args.to).map(|mut entries| entries.next().is_none()).unwrap_or(true);
    if !is_empty {
        return Err(Failure::failed(format!(
            "{} is not empty: a log is restored into an empty or new directory",
            args.to.display()
        )));
    }
    let _lock = Lock::take(&args.from).map_err(failure)?;
    let next = copy(&args.from, &args.to)?;
    eprintln!(
        "{next} events are in {}; `daybook serve --data {}` serves them",
        args.to.display(),
        args.to.display()
    );
    Ok(())
}

/// Everything, from a log that nobody writes to.
fn copy(from: &Path, to: &Path) -> Result<u64, Failure> {
    let mut backup = Backup::open(from, to).map_err(failure)?;
    let checkpoints = backup.checkpoints().map_err(failure)?;
    backup.ship(None, &checkpoints).map_err(failure)?;
    Ok(backup.next())
}

/// Position after the newest durable event.
async fn head(client: &Client) -> Result<u64, Failure> {
    let page = client.read(ReadQuery { limit: Some(1), reverse: true, ..ReadQuery::default() }).await?;
    Ok(page.events.first().map_or(0, |event| event.position.0 + 1))
}

fn failure(error: OpenError) -> Failure {
    match error {
        OpenError::Damaged { .. } => Failure::new(VERIFICATION, error.to_string()),
        error => Failure::failed(error.to_string()),
    }
}
