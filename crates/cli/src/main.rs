//! The `daybook` binary: one file per command, data on stdout, all else on stderr.
//!
//! Exit codes (protocol.md): 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict,
//! 5 denied, 6 unreachable, 7 partly done, 8 verification failed.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod commands;
mod exit;
mod output;
mod progress;
mod settings;
mod usage;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use exit::Failure;

/// A tenth of the server's time went into the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An event-sourced financial platform: bus, store, services, bank.
#[derive(Parser)]
#[command(name = "daybook", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(commands::demo::Args),
    Run(commands::run::Args),
    Reload(commands::reload::Args),
    Rebuild(commands::rebuild::Args),
    State(commands::rebuild::StateArgs),
    Serve(commands::serve::Args),
    Publish(commands::publish::Args),
    Read(commands::read::Args),
    Tail(commands::tail::Args),
    Trace(commands::trace::Args),
    Schema(commands::schema::Args),
    Verify(commands::verify::Args),
    Backup(commands::backup::Args),
    Restore(commands::backup::RestoreArgs),
    Export(commands::export::Args),
    Import(commands::import::Args),
    #[command(subcommand)]
    New(commands::new::Command),
    Test(commands::test::Args),
    #[command(subcommand)]
    Group(commands::group::Command),
    #[command(subcommand)]
    Bench(commands::bench::Command),
    #[command(subcommand)]
    Config(commands::config::Command),
}

fn main() -> std::process::ExitCode {
    let loaded = settings::Settings::load().and_then(|settings| {
        let command = settings.apply(Cli::command())?;
        Ok((settings, command))
    });
    let (settings, command) = match loaded {
        Ok(loaded) => loaded,
        Err(failure) => return failure.report(),
    };
    let matches = command.clone().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match matches {
        Ok(cli) => cli,
        Err(error) => {
            let args: Vec<_> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
            usage::explained(error, &command, &settings, &args).exit()
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("DAYBOOK_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,script=info"));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::failed(format!("cannot start: {error}")).report(),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => commands::demo::run(args).await,
            Command::Run(args) => commands::run::run(args).await,
            Command::Reload(args) => commands::reload::run(args).await,
            Command::Rebuild(args) => commands::rebuild::run(args).await,
            Command::State(args) => commands::rebuild::state(args).await,
            Command::Serve(args) => commands::serve::run(args).await,
            Command::Publish(args) => commands::publish::run(args).await,
            Command::Read(args) => commands::read::run(args).await,
            Command::Tail(args) => commands::tail::run(args).await,
            Command::Trace(args) => commands::trace::run(args).await,
            Command::Schema(args) => commands::schema::run(&args),
            Command::New(command) => commands::new::run(&command),
            Command::Backup(args) => commands::backup::run(args).await,
            Command::Restore(args) => commands::backup::restore(&args),
            Command::Export(args) => commands::export::run(args).await,
            Command::Import(args) => commands::import::run(args).await,
            Command::Verify(args) => commands::verify::run(&args),
            Command::Test(args) => commands::test::run(args).await,
            Command::Group(command) => commands::group::run(command).await,
            Command::Config(config) => commands::config::run(&config, command, &settings),
            Command::Bench(command) => commands::bench::run(command).await,
        }
    });
    // A read of stdin that never ends must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
