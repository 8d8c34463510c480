//! `daybook run`: services from Lua files.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daybook_superclient::{Config, Limits, Reload, Script, StateLocation, Tests};

use crate::exit::Failure;

/// Run services, one Lua file each.
#[derive(clap::Args)]
pub struct Args {
    #[arg(required = true, value_name = "FILE.lua")]
    scripts: Vec<PathBuf>,
    #[arg(long, env = "DAYBOOK_BUS", default_value = "http://127.0.0.1:7400")]
    bus: String,
    /// Derived state: a directory, for one host, or `redis://HOST:PORT/DB`, shared by
    /// several. May be deleted at any time.
    #[arg(long, env = "DAYBOOK_STATE", default_value = "daybook-state")]
    state: StateLocation,
    #[arg(long, default_value = "127.0.0.1:7500")]
    listen: SocketAddr,
    /// Machines per service.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    instances: u32,
    /// Demand this bearer token on every route.
    #[arg(long, env = "DAYBOOK_SERVICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A service that runs elsewhere, for `svc:http`: NAME=http://HOST:PORT. May be given several times.
    #[arg(long = "service", value_name = "NAME=URL", value_parser = elsewhere)]
    services: Vec<(String, String)>,
    /// Take changed files only when told: `daybook reload SERVICE`.
    #[arg(long)]
    no_watch: bool,
    /// Take a changed file without running the tests beside it.
    #[arg(long)]
    no_tests: bool,
    /// Before a changed file is taken, run it over the last N events beside the old one and tell what differs.
    #[arg(long, value_name = "N", default_value_t = 0)]
    shadow: u64,
    /// How long a script may compute in one call, without what it waits for.
    #[arg(long, value_name = "MS", default_value_t = ms(Limits::default().compute), value_parser = clap::value_parser!(u64).range(1..))]
    compute_ms: u64,
    /// How long a call may take altogether.
    #[arg(long, value_name = "MS", default_value_t = ms(Limits::default().wall), value_parser = clap::value_parser!(u64).range(1..))]
    wall_ms: u64,
    /// Memory of each machine.
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().memory_bytes as u64 >> 20, value_parser = clap::value_parser!(u64).range(8..=65_536))]
    memory_mib: u64,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The same for every process that runs on this machine with this directory, one
/// after the other: whoever comes after a crash is then known as the next of the same
/// instance, and gets its keys at once instead of when its grace is over. State in
/// Redis has several processes at a time, each with a name of its own.
fn instance_name(state: &StateLocation) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let (StateLocation::Dir(dir), Ok(host)) = (state, host) else {
        return format!("run-{}", std::process::id());
    };
    let mut hasher = DefaultHasher::new();
    (host.trim(), std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())).hash(&mut hasher);
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let host: String = host.trim().chars().filter(plain).take(24).collect();
    format!("run-{host}-{:08x}", hasher.finish() >> 32)
}

fn elsewhere(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, url)) if !name.is_empty() && url.starts_with("http") => Ok((name.into(), url.into())),
        _ => Err("expected NAME=http://HOST:PORT".into()),
    }
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut interrupts = super::Interrupts::listen()?;
    let config = Config {
        bus: args.bus,
        scripts: args.scripts.into_iter().map(Script::File).collect(),
        instance_name: instance_name(&args.state),
        state: args.state,
        listen: args.listen,
        instances: args.instances as usize,
        token: args.token,
        services: args.services.into_iter().collect(),
        limits: Limits {
            memory_bytes: usize::try_from(args.memory_mib << 20).unwrap_or(usize::MAX),
            compute: Duration::from_millis(args.compute_ms),
            wall: Duration::from_millis(args.wall_ms),
        },
        reload: Reload {
            watch: !args.no_watch,
            shadow: args.shadow,
            tests: (!args.no_tests)
                .then(|| -> Tests { Arc::new(|script| Box::pin(super::test::beside(script))) }),
        },
    };
    let host = daybook_superclient::start(config).await.map_err(failure)?;
    eprintln!("listening on http://{}", host.local_addr());
    interrupts.next().await;
    host.shutdown().await;
    Ok(())
}

pub fn failure(error: daybook_superclient::StartError) -> Failure {
    match error {
        daybook_superclient::StartError::Bus(error) => error.into(),
        error => Failure::failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_process_with_the_same_state_has_the_same_name_on_the_bus() {
        let dir = |dir: &str| instance_name(&StateLocation::Dir(dir.into()));
        let name = dir("a/state");
        assert_eq!(name, dir("a/state"));
        assert_ne!(name, dir("b/state"));
        assert!(name.len() < 60 && !name.contains('/'), "{name}");
    }
}
