//! `daybook run`: services from Lua files.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use daybook_superclient::{Config, Limits, Script, StateLocation};

use crate::exit::{Failure, UNREACHABLE};

/// Run services, one Lua file each.
#[derive(clap::Args)]
pub struct Args {
    #[arg(required = true, value_name = "FILE.lua")]
    scripts: Vec<PathBuf>,
    #[arg(long, env = "DAYBOOK_BUS", default_value = "http://127.0.0.1:7400")]
    bus: String,
    /// Directory of derived state; may be deleted at any time.
    #[arg(long, default_value = "daybook-state")]
    state: PathBuf,
    #[arg(long, default_value = "127.0.0.1:7500")]
    listen: SocketAddr,
    /// Machines per service.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    instances: u32,
    /// Demand this bearer token on every route.
    #[arg(long, env = "DAYBOOK_SERVICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut interrupts = super::Interrupts::listen()?;
    let config = Config {
        bus: args.bus,
        scripts: args.scripts.into_iter().map(Script::File).collect(),
        state: StateLocation::Dir(args.state),
        listen: args.listen,
        instances: args.instances as usize,
        token: args.token,
        instance_name: format!("run-{}", std::process::id()),
        services: HashMap::new(),
        limits: Limits::default(),
    };
    let host = daybook_superclient::start(config).await.map_err(failure)?;
    eprintln!("listening on http://{}", host.local_addr());
    interrupts.next().await;
    host.shutdown().await;
    Ok(())
}

pub fn failure(error: daybook_superclient::StartError) -> Failure {
    match error {
        daybook_superclient::StartError::Bus(_) => Failure::new(UNREACHABLE, error.to_string()),
        error => Failure::failed(error.to_string()),
    }
}
