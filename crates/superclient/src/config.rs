//! What a host is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

#[derive(Clone, Debug)]
pub struct Config {
    /// Like `http://127.0.0.1:7400`.
    pub bus: String,
    pub scripts: Vec<Script>,
    pub state: StateLocation,
    /// Where the routes of all services are served; port 0 picks one.
    pub listen: SocketAddr,
    /// Machines per service, each a member of the service's group.
    pub instances: usize,
    /// Demanded as `Authorization: Bearer …` on every route.
    pub token: Option<String>,
    /// Names this process on the bus.
    pub instance_name: String,
    /// Services that run elsewhere: name → base URL.
    pub services: HashMap<String, String>,
    pub limits: Limits,
    pub reload: Reload,
}

/// How a script that changed takes over.
#[derive(Clone)]
pub struct Reload {
    /// Take a file when it changes; else only when told to.
    pub watch: bool,
    /// Run it beside the old one over this many of the last events first, and say what differs.
    pub shadow: u64,
    /// Runs the tests beside a script; without it none are run.
    pub tests: Option<Tests>,
}

/// Gets the script's path; `Err` says which test failed.
pub type Tests = Arc<dyn Fn(PathBuf) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

impl Default for Reload {
    fn default() -> Self {
        Self { watch: true, shadow: 0, tests: None }
    }
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Reload");
        shown.field("watch", &self.watch).field("shadow", &self.shadow);
        shown.field("tests", &self.tests.is_some()).finish()
    }
}

/// One service's source.
#[derive(Clone, Debug)]
pub enum Script {
    File(PathBuf),
    Source { name: String, text: String },
}

/// Where derived state is kept.
#[derive(Clone, Debug)]
pub enum StateLocation {
    /// A file per service, by redb; for one host.
    Dir(PathBuf),
    /// `redis://host:port/db`, for several.
    Redis(String),
}

impl std::str::FromStr for StateLocation {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_redis = text.starts_with("redis://") || text.starts_with("redis+unix://");
        Ok(if is_redis { Self::Redis(text.to_owned()) } else { Self::Dir(text.into()) })
    }
}

/// What one script may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub memory_bytes: usize,
    /// Time a script may compute without waiting, per call.
    pub compute: Duration,
    /// Time a call may take altogether, waiting included.
    pub wall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 64 << 20, compute: Duration::from_millis(500), wall: Duration::from_secs(20) }
    }
}
