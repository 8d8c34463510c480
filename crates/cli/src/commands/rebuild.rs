//! `daybook rebuild` and `daybook state`: the tables of a running service.

use std::io::{IsTerminal, Write};

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::http::segment;
use crate::exit::{DENIED, Failure, NOT_FOUND};

/// Where the host is.
#[derive(clap::Args, Clone)]
pub struct Host {
    /// Address of the host that runs the service.
    #[arg(long, env = "DAYBOOK_HOST", default_value = "http://127.0.0.1:7500")]
    host: String,
    /// The token that the host demands.
    #[arg(long, env = "DAYBOOK_SERVICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Host {
    pub fn at(host: String, token: Option<String>) -> Self {
        Self { host, token }
    }

    /// What the views of a service go on without: an event for each view that failed on it.
    pub async fn parked(&self, service: &str) -> Result<Vec<Value>, Failure> {
        let mut rows = Vec::new();
        let path = format!("/-/services/{}/state?table=parked", segment(service));
        let each = |line: &str| rows.extend(serde_json::from_str::<Value>(line).ok());
        self.lines(Method::GET, &path, each).await?;
        Ok(rows.into_iter().map(|mut row| row["value"].take()).collect())
    }

    /// Every line of the answer as it comes, however long that takes.
    async fn lines(&self, method: Method, path: &str, mut each: impl FnMut(&str)) -> Result<(), Failure> {
        let host = self.host.trim_end_matches('/');
        let unreachable =
            |error: reqwest::Error| super::http::unreachable("host", host, &error, "is `daybook run`");
        let mut request = reqwest::Client::new().request(method, format!("{host}{path}"));
        request = request.header("daybook-state", "1");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if !status.is_success() {
            let text = response.text().await.map_err(unreachable)?;
            let problem = serde_json::from_str::<Value>(&text).unwrap_or_default();
            let said =
                problem["detail"].as_str().map_or_else(|| format!("it answered {status}"), str::to_owned);
            return Err(match status {
                StatusCode::NOT_FOUND => Failure::new(NOT_FOUND, said),
                StatusCode::UNAUTHORIZED => Failure::new(DENIED, said),
                _ => Failure::failed(said),
            });
        }
        let mut waiting = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            waiting.extend_from_slice(&chunk);
            while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = waiting.drain(..=end).collect();
                each(String::from_utf8_lossy(&line[..end]).as_ref());
            }
        }
        Ok(())
    }
}

/// Fill a running service's tables again from the log, beside those that are read meanwhile.
#[derive(clap::Args)]
pub struct Args {
    service: String,
    #[command(flatten)]
    host: Host,
}

/// Show the tables of a running service: views, `kv`, `handled`, `timers`; a row a line.
#[derive(clap::Args)]
pub struct StateArgs {
    service: String,
    /// Only this table.
    table: Option<String>,
    #[command(flatten)]
    host: Host,
}

#[derive(Deserialize)]
struct Report {
    phase: String,
    events: u64,
    events_per_s: u64,
    seconds_left: Option<u64>,
    error: Option<String>,
}

/// Lines of progress on stderr, the last report on stdout.
pub async fn run(args: Args) -> Result<(), Failure> {
    let mut last = None;
    let path = format!("/-/services/{}/rebuild", segment(&args.service));
    let service = args.service;
    let each = |line: &str| {
        let Ok(report) = serde_json::from_str::<Report>(line) else { return };
        let left = report.seconds_left.map_or(String::new(), |seconds| format!(", about {seconds} s left"));
        let text =
            format!("{service}: {}, {} events, {}/s{left}", report.phase, report.events, report.events_per_s);
        let mut stderr = std::io::stderr();
        // A person sees one line that changes.
        let _ = if stderr.is_terminal() {
            write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{text}")
        };
        last = Some((line.to_owned(), report));
    };
    args.host.lines(Method::POST, &path, each).await?;
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    match last {
        Some((line, report)) if report.phase == "done" => {
            println!("{line}");
            Ok(())
        }
        Some((_, Report { error: Some(error), .. })) => {
            Err(Failure::failed(format!("`{service}` was not rebuilt, its old tables are kept: {error}")))
        }
        _ => Err(Failure::failed(format!(
            "the host ended before `{service}` was rebuilt; its old tables are kept"
        ))),
    }
}

pub async fn state(args: StateArgs) -> Result<(), Failure> {
    let table = args.table.map_or(String::new(), |table| format!("?table={}", segment(&table)));
    let path = format!("/-/services/{}/state{table}", segment(&args.service));
    let mut out = std::io::stdout().lock();
    let mut failed = None;
    let each = |line: &str| {
        if failed.is_none() {
            failed = writeln!(out, "{line}").err();
        }
    };
    args.host.lines(Method::GET, &path, each).await?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}
