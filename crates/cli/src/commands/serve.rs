//! `daybook serve`: the bus and its store.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::exit::Failure;

/// Run the event bus on a data directory.
#[derive(clap::Args)]
pub struct Args {
    /// Where the log lives; made if absent.
    #[arg(long, env = "DAYBOOK_DATA", default_value = "daybook-data")]
    data: PathBuf,
    /// Port 0 picks a free one.
    #[arg(long, env = "DAYBOOK_LISTEN", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut interrupts = super::Interrupts::listen()?;
    let config = daybook_server::Config::new(args.data).listen(args.listen);
    let server = daybook_server::start(config).await.map_err(|e| Failure::failed(e.to_string()))?;
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
