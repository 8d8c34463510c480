//! What scripts that would take the host with them cost: a real `daybook run`
//! with a corpus of them beside an innocent service, against a real bus.
//!
//! Each script is asked `--rounds` times. Told are how much it was let have of the
//! budget that stopped it (of the one to compute, what it computed: it says how long it waited), and how long the innocent one's answers took
//! meanwhile (p99) against those with nobody else there. An answer that names no
//! budget is the script's own error; it is held against the time to compute.
//!
//! # Not here
//! That each is stopped with its line, and the host lives on: the superclient's tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Mutex, oneshot};

use super::hosted::Hosted;
use super::server::Measured;
use crate::exit::Failure;

#[path = "../../../../superclient/tests/host/hostile.rs"]
mod corpus;

/// Hostile scripts: time used of their budget, and what a neighbour notices.
#[derive(clap::Args)]
pub struct Args {
    /// How often each script is asked.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Budget to compute.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    compute_ms: u64,
    /// Budget altogether, waiting included.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    wall_ms: u64,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(8..))]
    memory_mib: u64,
    /// Only scripts whose name holds this.
    #[arg(long)]
    only: Option<String>,
}

#[derive(Serialize)]
struct Figures<'a> {
    script: &'a str,
    /// What stopped it: `compute`, `wall`, `memory`, or `error`, if it failed by itself; like
    /// what follows, of the round that used most of its budget.
    stopped_by: &'static str,
    used_ms: f64,
    budget_ms: u64,
    used_of_budget: f64,
    neighbour_p99_ms: f64,
    neighbour_answers: usize,
}

#[derive(Serialize)]
struct Summary {
    scripts: usize,
    beyond_1_2_of_budget: usize,
    most_used_of_budget: f64,
    neighbour_alone_p99_ms: f64,
    /// All answers while one of the scripts ran.
    neighbour_beside_p99_ms: f64,
    beside_to_alone: f64,
}

const NEIGHBOUR: &str =
    "local svc = service('innocent', {})\nsvc:get('/innocent', function() return json({ well = true }) end)";
/// Between two questions of the neighbour: enough answers for a p99, too few to be a load.
const PAUSE: Duration = Duration::from_millis(1);
const ALONE: Duration = Duration::from_secs(3);

pub async fn run(args: Args) -> Result<(), Failure> {
    let measured = Measured::start(None, None).await?;
    let mut script = corpus::HEAD.to_owned();
    for (i, (_, body)) in corpus::ROUTES.iter().enumerate() {
        script += &format!("svc:get('/h/{i}', function(req, ctx) do {body} end return json({{}}) end)\n");
    }
    let limits = [
        format!("--compute-ms={}", args.compute_ms),
        format!("--wall-ms={}", args.wall_ms),
        format!("--memory-mib={}", args.memory_mib),
    ];
    let scripts = [("innocent.lua", NEIGHBOUR), ("hostile.lua", script.as_str())];
    let hosted = Hosted::start_all(&measured.bus, &scripts, 1, None, &limits).await?;
    let neighbour = Neighbour::start(&hosted.url);
    neighbour.take().await;
    tokio::time::sleep(ALONE).await;
    let alone = p99(&mut neighbour.take().await);
    let client = reqwest::Client::new();
    let mut all = Vec::new();
    let (mut scripts, mut beyond, mut most) = (0, 0, 0.0f64);
    for (i, (name, _)) in corpus::ROUTES.iter().enumerate() {
        if args.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let mut beside = Vec::new();
        let mut worst = (0.0, "error", 0, Duration::ZERO);
        for _ in 0..args.rounds {
            comes_back(&client, &hosted.url).await?;
            neighbour.take().await;
            let begun = Instant::now();
            let answer = client.get(format!("{}/h/{i}", hosted.url)).send().await.map_err(gone)?;
            let text = answer.text().await.map_err(gone)?;
            let took = begun.elapsed();
            beside.extend(neighbour.take().await);
            let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let detail = problem["detail"].as_str().unwrap_or_default();
            let (stopped_by, budget) = budget(&args, detail);
            let used = took.saturating_sub(waited(detail));
            let used_of_budget = used.as_secs_f64() * 1e3 / budget as f64;
            if used_of_budget >= worst.0 {
                worst = (used_of_budget, stopped_by, budget, used);
            }
        }
        let (used_of_budget, stopped_by, budget_ms, used) = worst;
        scripts += 1;
        beyond += usize::from(used_of_budget > 1.2);
        most = most.max(used_of_budget);
        let figures = Figures {
            script: name,
            stopped_by,
            used_ms: ms(used),
            budget_ms,
            used_of_budget: (used_of_budget * 100.0).round() / 100.0,
            neighbour_answers: beside.len(),
            neighbour_p99_ms: ms(p99(&mut beside)),
        };
        all.extend(beside);
        println!("{}", serde_json::to_string(&figures).map_err(std::io::Error::from)?);
    }
    let beside = p99(&mut all);
    let summary = Summary {
        scripts,
        beyond_1_2_of_budget: beyond,
        most_used_of_budget: (most * 100.0).round() / 100.0,
        neighbour_alone_p99_ms: ms(alone),
        neighbour_beside_p99_ms: ms(beside),
        beside_to_alone: (beside.as_secs_f64() / alone.as_secs_f64() * 100.0).round() / 100.0,
    };
    println!("{}", serde_json::to_string(&summary).map_err(std::io::Error::from)?);
    hosted.stop().await;
    measured.stop().await;
    Ok(())
}

/// Which budget an answer says was used up, and how much of it there was.
fn budget(args: &Args, detail: &str) -> (&'static str, u64) {
    if detail.contains("did not end within") {
        ("wall", args.wall_ms)
    } else if detail.contains("used up its time") {
        ("compute", args.compute_ms)
    } else if detail.contains("used up its memory") {
        ("memory", args.compute_ms)
    } else {
        ("error", args.compute_ms)
    }
}

fn gone(error: reqwest::Error) -> Failure {
    Failure::failed(format!("the host does not answer: {error}"))
}

/// How long a script that was stopped for its computing had waited meanwhile.
fn waited(detail: &str) -> Duration {
    let text = detail.strip_suffix(" ms of waiting").and_then(|text| text.rsplit(' ').next());
    Duration::from_millis(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Waits until the hostile service answers again: its machine is made anew.
async fn comes_back(client: &reqwest::Client, url: &str) -> Result<(), Failure> {
    for _ in 0..2_000 {
        if client.get(format!("{url}/well")).send().await.map_err(gone)?.status() == 200 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(Failure::failed("the service with the hostile scripts did not come back"))
}

/// Asks the innocent service all the time.
struct Neighbour {
    answers: Arc<Mutex<Vec<Duration>>>,
    /// Dropped with this, which ends the asking.
    _stop: oneshot::Sender<()>,
}

impl Neighbour {
    fn start(url: &str) -> Self {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (url, found) = (format!("{url}/innocent"), answers.clone());
        tokio::spawn(async move {
            let client = reqwest::Client::new();
            while matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                let begun = Instant::now();
                let answer = client.get(&url).send().await;
                // One that fails is never an answer in time.
                let took = if answer.is_ok_and(|answer| answer.status() == 200) {
                    begun.elapsed()
                } else {
                    Duration::MAX
                };
                found.lock().await.push(took);
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { answers, _stop: stop }
    }

    /// The answers since the last time.
    async fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.answers.lock().await)
    }
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}
