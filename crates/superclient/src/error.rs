//! Why a host did not start.

use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The message begins with file:line.
    #[error("{0}")]
    Script(String),
    #[error("{script} defines no service: call service(\"name\") in it")]
    NoService { script: String },
    #[error("the route {route} is defined by both `{first}` and `{second}`")]
    Route { route: String, first: String, second: String },
    #[error("the service `{0}` is defined twice")]
    Twice(String),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot open the state in {}: {reason}", path.display())]
    State { path: PathBuf, reason: String },
    #[error("cannot use the state in {url}: {reason}")]
    Redis { url: String, reason: String },
    #[error("{0}")]
    Bus(#[from] daybook_client::ConnectError),
    #[error("cannot start: {0}")]
    Other(String),
}
