//! `daybook bench`: figures with the command that makes them.

mod append;
mod backlog;
mod contention;
mod group;
mod hosted;
mod hostile;
mod lean;
mod replay;
mod server;
mod service;
mod store;

use crate::exit::Failure;

/// Measure. Without `--bus` each bench starts a server of its own.
#[derive(clap::Subcommand)]
pub enum Command {
    Append(append::Args),
    Backlog(backlog::Args),
    Contention(contention::Args),
    Group(group::Args),
    Hostile(hostile::Args),
    Replay(replay::Args),
    Service(service::Args),
    Store(store::Args),
}

pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Append(args) => append::run(args).await,
        Command::Backlog(args) => backlog::run(args).await,
        Command::Contention(args) => contention::run(args).await,
        Command::Group(args) => group::run(args).await,
        Command::Hostile(args) => hostile::run(args).await,
        Command::Replay(args) => replay::run(args).await,
        Command::Service(args) => service::run(args).await,
        Command::Store(args) => store::run(args).await,
    }
}

/// JSON of exactly `bytes` bytes, 8 at least.
fn payload(bytes: usize) -> daybook_model::Data {
    let text = format!("{{\"p\":\"{}\"}}", "x".repeat(bytes.saturating_sub(8)));
    daybook_model::Data::Json(daybook_model::JsonText::from_string(text).expect("it is JSON"))
}
