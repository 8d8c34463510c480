//! `daybook serve`: the bus and its store.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use daybook_server::StartError;
use daybook_store::local::OpenError;

use crate::exit::Failure;
use crate::progress::Progress;

/// Run the event bus on a data directory.
#[derive(clap::Args)]
pub struct Args {
    /// Where the log lives; made if absent.
    #[arg(long, env = "DAYBOOK_DATA", default_value = "daybook-data")]
    data: PathBuf,
    /// Port 0 picks a free one.
    #[arg(long, env = "DAYBOOK_LISTEN", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// Write nothing and refuse publishes: for a log that is damaged, of which what lies before
    /// the damage is served, for a read-only disk, or beside a process that has the log.
    #[arg(long)]
    read_only: bool,
    /// Mebibytes of the disk kept free for the index and the groups' checkpoints: with less
    /// than this and the next segment's size, publishes are refused. Default 32.
    #[arg(long, env = "DAYBOOK_RESERVE_MIB", value_name = "MIB", value_parser = clap::value_parser!(u64).range(..1 << 40))]
    reserve_mib: Option<u64>,
    /// Threads that serve WebSocket connections; by default one for each core but one.
    #[arg(long, env = "DAYBOOK_WORKERS", value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
}

/// Says how far the making of the index is, when it has to be made again.
pub fn indexing() -> std::sync::Arc<dyn Fn(daybook_store::local::Reached) + Send + Sync> {
    let progress = std::sync::Mutex::new(Progress::new("making the index again from the log"));
    std::sync::Arc::new(move |reached| {
        let mut progress = progress.lock().expect("no code panics while it holds this lock");
        progress.at(reached.events, reached.bytes, reached.bytes_total);
    })
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut interrupts = super::Interrupts::listen()?;
    super::not_of_a_demo(&args.data)?;
    if let Some(warning) = open_to_all(args.listen) {
        eprintln!("{warning}");
    }
    let mut config = daybook_server::Config::new(args.data).listen(args.listen);
    config.store.progress = Some(indexing());
    config.read_only = args.read_only;
    config.session_threads = args.workers.map_or_else(workers, usize::from);
    if let Some(mebibytes) = args.reserve_mib {
        config.store.reserve_bytes = mebibytes << 20;
    }
    let server = daybook_server::start(config).await.map_err(failure)?;
    eprintln!("listening on http://{}", server.local_addr());
    let poisoned = tokio::select! {
        () = interrupts.next() => None,
        reason = server.wait() => Some(reason),
    };
    server.shutdown().await;
    match poisoned {
        None => Ok(()),
        Some(reason) => Err(Failure::failed(format!("the log failed and takes no more: {reason}"))),
    }
}

/// Nobody has to authenticate, so the network is the only lock there is.
fn open_to_all(listen: SocketAddr) -> Option<String> {
    (!listen.ip().is_loopback()).then(|| {
        format!("warning: whoever reaches {listen} may read and publish everything; let only your services reach it")
    })
}

/// A core is left for groups, HTTP, the index and the kernel's part of the network.
fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cores.saturating_sub(1).max(1)
}

fn failure(error: StartError) -> Failure {
    match error {
        StartError::Store { source: OpenError::Damaged { .. }, .. } => {
            Failure::failed(format!("{error}; `daybook serve --read-only` serves what lies before it"))
        }
        StartError::Store { source: OpenError::Io { ref source, .. }, .. }
            if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem =>
        {
            Failure::failed(format!("{error}; `daybook serve --read-only` serves what is there"))
        }
        error => Failure::failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_is_warned_of() {
        for (listen, warned) in [
            ("127.0.0.1:7400", false),
            ("[::1]:7400", false),
            ("0.0.0.0:7400", true),
            ("[::]:7400", true),
            ("10.0.0.7:7400", true),
        ] {
            assert_eq!(open_to_all(listen.parse().unwrap()).is_some(), warned, "{listen}");
        }
    }
}
