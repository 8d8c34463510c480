//! What can be set from outside.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use daybook_model::Limits;

#[derive(Clone)]
pub struct Config {
    /// Where the log lives; made if absent.
    pub data: PathBuf,
    /// Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Nothing is written; of a damaged log what lies before the damage is served.
    pub read_only: bool,
    /// Threads that sessions stay on, each its share of them. 0: sessions run on
    /// the runtime that the server was started on.
    pub session_threads: usize,
    pub limits: Limits,
    pub store: daybook_store::local::Options,
    /// How often the server pings; three unanswered end the connection.
    pub heartbeat: Duration,
    /// Time a connection has for its `hello`.
    pub hello_timeout: Duration,
    /// How long shutdown waits for sessions to take their last answers.
    pub drain_timeout: Duration,
}

impl Config {
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7400)),
            read_only: false,
            session_threads: 0,
            limits: Limits::default(),
            store: Default::default(),
            heartbeat: Duration::from_secs(10),
            hello_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
        }
    }

    #[must_use]
    pub fn listen(mut self, listen: SocketAddr) -> Self {
        self.listen = listen;
        self
    }
}
