//! One file per command.

pub mod backup;
pub mod bench;
pub mod config;
pub mod demo;
pub mod export;
pub mod group;
mod http;
pub mod import;
pub mod new;
pub mod publish;
pub mod read;
pub mod rebuild;
pub mod reload;
pub mod run;
pub mod schema;
pub mod serve;
pub mod tail;
pub mod test;
pub mod trace;
pub mod verify;

use daybook_client::Client;
use tokio::signal::unix::{Signal, SignalKind, signal};

use std::path::Path;

use crate::exit::Failure;

/// A demo keeps its log in `log` of its data directory. Who names the one where the other is meant
/// would begin an empty log beside it, or be told that there is none.
pub fn not_of_a_demo(data: &Path) -> Result<(), Failure> {
    let log = data.join("log");
    if data.join("LOG").exists() || !log.join("LOG").exists() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{} is the directory of a demo; its log is in {log}: --data {log}",
        data.display(),
        log = log.display()
    )))
}

/// Where the bus is.
#[derive(clap::Args, Clone)]
pub struct Bus {
    /// Address of the bus.
    #[arg(long, env = "DAYBOOK_BUS", default_value = "http://127.0.0.1:7400")]
    pub bus: String,
    /// Token to authenticate with.
    #[arg(long, env = "DAYBOOK_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

impl Bus {
    pub async fn connect(&self, service: &str) -> Result<Client, Failure> {
        let mut builder = Client::builder(&self.bus).service(service);
        if let Some(token) = &self.token {
            builder = builder.token(token);
        }
        Ok(builder.connect().await?)
    }
}

/// Which events; the names are those of the HTTP query.
#[derive(clap::Args, Clone, Default)]
pub struct Selection {
    /// Only these types; `Name*` is a prefix. May be given several times.
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Vec<String>,
    /// Only these keys; `account/*` is a prefix. May be given several times.
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Vec<String>,
    #[arg(long, value_name = "ID")]
    pub correlationid: Option<String>,
    /// What one session, or with `*` one service or instance, published.
    #[arg(long, value_name = "ID")]
    pub sessionid: Option<String>,
}

impl Selection {
    pub fn filter(&self) -> daybook_model::Filter {
        let list = |texts: &[String]| {
            (!texts.is_empty()).then(|| texts.iter().map(|text| text.as_str().into()).collect())
        };
        daybook_model::Filter {
            types: list(&self.types),
            subjects: list(&self.subject),
            correlationid: self.correlationid.as_deref().map(Into::into),
            sessionid: self.sessionid.as_deref().map(Into::into),
            settled_by: None,
        }
    }
}

/// A position or an RFC 3339 time.
pub fn edge(text: &str) -> Result<daybook_model::wire::Edge, String> {
    if let Ok(position) = text.parse() {
        return Ok(daybook_model::wire::Edge::Position(position));
    }
    match text.parse() {
        Ok(time) => Ok(daybook_model::wire::Edge::Time { time }),
        Err(_) => Err("expected a position such as 42 or a time such as 2026-11-24T09:30:00Z".into()),
    }
}

/// Ctrl-C and SIGTERM. Made before anything is started, so that a signal in the
/// middle of the start is a good end too.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
