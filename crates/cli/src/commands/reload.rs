//! `daybook reload`: a running host takes a script that changed.

use std::io::Write;
use std::time::Duration;

use daybook_superclient::{NOT_COMPARED, Outcome};

use super::http::segment;
use crate::exit::{Failure, NOT_FOUND};

/// Let a running service take its changed script: check, run its tests, swap.
#[derive(clap::Args)]
pub struct Args {
    service: String,
    /// Where `daybook run` listens.
    #[arg(long, env = "DAYBOOK_HOST", default_value = "http://127.0.0.1:7500")]
    host: String,
    /// The token that the host demands.
    #[arg(long, env = "DAYBOOK_SERVICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// First run it over the last N events beside the old script and show what differs.
    #[arg(long, value_name = "N")]
    shadow: Option<u64>,
    /// Only say what would happen.
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let host = args.host.trim_end_matches('/');
    let mut url = format!("{host}/-/reload/{}?dry={}", segment(&args.service), args.dry_run);
    if let Some(count) = args.shadow {
        url += &format!("&shadow={count}");
    }
    let client = reqwest::Client::builder().timeout(Duration::from_secs(300)).build();
    let client = client.map_err(|error| Failure::failed(error.to_string()))?;
    let mut request = client.post(url).header("daybook-reload", "1");
    if let Some(token) = &args.token {
        request = request.bearer_auth(token);
    }
    let unreachable =
        |error: reqwest::Error| super::http::unreachable("host", host, &error, "is `daybook run`");
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status().as_u16();
    let text = response.text().await.map_err(unreachable)?;
    let outcome: Outcome = match serde_json::from_str(&text) {
        Ok(outcome) if status == 200 || status == 409 => outcome,
        _ => {
            let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let detail = problem["detail"].as_str().unwrap_or("it is no host of services");
            let code = if status == 404 { NOT_FOUND } else { crate::exit::FAILED };
            return Err(Failure::new(code, format!("{host} answered {status}: {detail}")));
        }
    };
    let mut out = std::io::stdout().lock();
    if let Some(events) = outcome.shadowed {
        let found = outcome.differences.len();
        writeln!(out, "shadow: {events} events, {found} differences; not compared: {NOT_COMPARED}")?;
        for difference in &outcome.differences {
            writeln!(out, "  {difference}")?;
        }
    }
    match &outcome.reason {
        None => {
            writeln!(out, "{}: the new script ({}) runs", outcome.script, outcome.scripthash)?;
            Ok(())
        }
        Some(reason) if reason == "nothing has changed" || reason.ends_with("this was a dry run") => {
            writeln!(out, "{}: {reason}", outcome.script)?;
            Ok(())
        }
        Some(reason) => {
            Err(Failure::failed(format!("{reason}\n  the old script ({}) runs on", outcome.scripthash)))
        }
    }
}
