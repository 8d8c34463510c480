//! `daybook bench`: figures with the command that makes them.

mod append;
mod contention;
mod lean;
mod server;
mod store;

use crate::exit::Failure;

/// Measure. Without `--bus` each bench starts a server of its own.
#[derive(clap::Subcommand)]
pub enum Command {
    Append(append::Args),
    Contention(contention::Args),
    Store(store::Args),
}

pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Append(args) => append::run(args).await,
        Command::Contention(args) => contention::run(args).await,
        Command::Store(args) => store::run(args).await,
    }
}
