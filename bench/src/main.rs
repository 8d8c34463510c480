//! Daybook beside its peers: the same events, the same promise (on disk before
//! it is acknowledged), the same machine, in one run, taking turns.
//!
//! `README.md` tells what is measured; `./run` builds and finds all it needs.

mod ceiling;
mod cells;
mod machine;
mod payload;
mod peer;
mod process;
mod report;
mod results;
mod stats;
mod turns;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::cells::CELLS;
use crate::peer::{Kind, Tools};
use crate::results::Results;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Parser)]
#[command(about = "Daybook beside its peers, in one run")]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Cells to measure, by the beginning of their name: w1, w1-64, w2, …
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Whom to measure; default everybody.
    #[arg(long, value_delimiter = ',', value_enum)]
    peers: Vec<Kind>,
    /// Rounds of every cell; default 3, of w4 5.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of every turn; default 3, of w4 5.
    #[arg(long)]
    seconds: Option<f64>,
    /// One short round of everything, to see that it works: no figures to quote.
    #[arg(long)]
    quick: bool,
    /// Measure nothing: tell what the result file holds.
    #[arg(long)]
    report: bool,
    /// Where the peers keep their data: on the disk to measure.
    #[arg(long, default_value = "target/data")]
    dir: PathBuf,
    /// Figures measured so far; those of the cells measured now are replaced.
    #[arg(long, default_value = "results.json")]
    results: PathBuf,
    /// The commit that Daybook was built from, to be told with its figures.
    #[arg(long, env = "BENCH_COMMIT")]
    commit: Option<String>,
    /// Where the table goes.
    #[arg(long, default_value = "RESULTS.md")]
    output: PathBuf,
    #[command(flatten)]
    tools: Tools,
}

#[derive(clap::Subcommand)]
enum Command {
    #[command(hide = true)]
    Ceiling(ceiling::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.command {
        Some(Command::Ceiling(args)) => ceiling::serve(args),
        None => measure(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    // What only shows that it works stays apart from figures.
    let kept = if args.quick { PathBuf::from("target/quick.json") } else { args.results.clone() };
    let mut results = Results::load(&kept)?;
    if !args.report {
        // `w1-1` is a cell and not the beginning of `w1-16`.
        let is_cell = |only: &str| CELLS.iter().any(|cell| cell.name == only);
        let wanted = |name: &str| {
            let named = |only: &String| name == only || !is_cell(only) && name.starts_with(only.as_str());
            args.only.is_empty() || args.only.iter().any(named)
        };
        let cells: Vec<_> = CELLS.iter().filter(|cell| wanted(cell.name)).collect();
        if cells.is_empty() {
            let names: Vec<_> = CELLS.iter().map(|cell| cell.name).collect();
            return Err(format!("--only names no cell; there are {}", names.join(", ")).into());
        }
        std::fs::create_dir_all(&args.dir)?;
        let dir = std::path::absolute(&args.dir)?;
        for cell in cells {
            let plan = turns::Plan {
                cell,
                peers: if args.peers.is_empty() { Kind::ALL.to_vec() } else { args.peers.clone() },
                rounds: args.rounds.unwrap_or(if args.quick { 1 } else { cell.rounds }),
                seconds: args.seconds.unwrap_or(if args.quick { 0.7 } else { cell.seconds }),
                quick: args.quick,
                commit: args.commit.clone(),
                tools: &args.tools,
                dir: &dir,
            };
            let run = tokio::runtime::Runtime::new()?.block_on(turns::run(&plan))?;
            results.cells.insert(cell.name.to_owned(), run);
            results.machine = machine::describe(&dir);
            results.versions = machine::versions(&args.tools);
            results.save(&kept)?;
        }
    }
    if results.cells.is_empty() {
        return Err(format!("{} holds no figures yet", kept.display()).into());
    }
    let report = report::markdown(&results);
    println!("{report}");
    if args.quick {
        eprintln!("bench: a quick run; {} is left as it was", args.output.display());
    } else {
        std::fs::write(&args.output, report)?;
    }
    Ok(())
}
