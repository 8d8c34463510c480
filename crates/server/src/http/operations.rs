//! Health for machines, metrics for Prometheus.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use daybook_model::{Code, Problem};
use daybook_store::Health;

use crate::error::Refused;
use crate::groups::GroupInfo;
use crate::state::Shared;

pub(super) async fn healthz(State(shared): State<Arc<Shared>>) -> Result<&'static str, Refused> {
    match &*shared.store.health().borrow() {
        Health::Poisoned(reason) => {
            Err(Problem::new(Code::Unavailable, format!("the log failed: {reason}")).into())
        }
        _ => Ok("ok\n"),
    }
}

/// Whether new work may be sent here.
pub(super) async fn readyz(State(shared): State<Arc<Shared>>) -> Result<&'static str, Refused> {
    if *shared.shutdown.borrow() {
        return Err(Problem::new(Code::Unavailable, "the server is going down").into());
    }
    match &*shared.store.health().borrow() {
        Health::Ok => Ok("ready\n"),
        Health::Degraded(reason) | Health::Poisoned(reason) => {
            Err(Problem::new(Code::Unavailable, reason.as_str()).into())
        }
    }
}

/// One line a group and figure; groups are few, so their names may be labels.
async fn groups(shared: &Shared, text: &mut String) {
    let groups = shared.groups.list().await;
    let figures: [(&str, &str, fn(&GroupInfo) -> u64); 6] = [
        ("lag_events", "Positions behind the head of the log.", |g| g.lag_events.0),
        ("lag_seconds", "Age of the earliest unsettled event.", |g| g.lag_seconds),
        ("members", "Connected sessions.", |g| {
            g.report.members.iter().filter(|m| m.connected).count() as u64
        }),
        ("in_flight_deliveries", "Events in the hands of sessions.", |g| g.report.in_flight as u64),
        ("waiting_events", "Events read and waiting.", |g| g.report.waiting as u64),
        ("parked_keys", "Keys that wait for an operator.", |g| g.report.parked as u64),
    ];
    for (name, help, figure) in figures {
        let _ = write!(text, "# HELP daybook_group_{name} {help}\n# TYPE daybook_group_{name} gauge\n");
        for group in &groups {
            let label = group.name.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(text, "daybook_group_{name}{{group=\"{label}\"}} {}", figure(group));
        }
    }
}

pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let stats = shared.store.stats();
    let metrics = &shared.metrics;
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: String| {
        let family = name.trim_end_matches("_sum").trim_end_matches("_count");
        let _ = write!(text, "# HELP {family} {help}\n# TYPE {family} {kind}\n{name} {value}\n");
    };
    metric(
        "daybook_events_appended_total",
        "counter",
        "Events stored since the start.",
        stats.events.to_string(),
    );
    metric(
        "daybook_batches_written_total",
        "counter",
        "Writes to the log, each synced once.",
        stats.batches.to_string(),
    );
    metric(
        "daybook_log_bytes_written_total",
        "counter",
        "Bytes of records written.",
        stats.bytes_written.to_string(),
    );
    metric(
        "daybook_fsync_duration_seconds_count",
        "summary",
        "Time the disk took to sync.",
        stats.syncs.to_string(),
    );
    let seconds = stats.sync_nanos as f64 / 1e9;
    let _ = writeln!(text, "daybook_fsync_duration_seconds_sum {seconds}");
    let mut metric = |name: &str, kind: &str, help: &str, value: String| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    let head = *shared.store.head().borrow();
    metric("daybook_head_position", "gauge", "Position that the next event gets.", head.to_string());
    let open = metrics.connections_open.load(Ordering::Relaxed);
    metric("daybook_connections_open", "gauge", "WebSocket connections.", open.to_string());
    let total = metrics.connections_total.load(Ordering::Relaxed);
    metric(
        "daybook_connections_total",
        "counter",
        "WebSocket connections since the start.",
        total.to_string(),
    );
    let refused = metrics.publishes_refused_total.load(Ordering::Relaxed);
    metric(
        "daybook_publishes_refused_total",
        "counter",
        "Publishes refused before the log.",
        refused.to_string(),
    );
    groups(&shared, &mut text).await;
    let version = env!("CARGO_PKG_VERSION");
    let _ = write!(
        text,
        "# HELP daybook_build_info Which program this is.\n# TYPE daybook_build_info gauge\ndaybook_build_info{{version=\"{version}\"}} 1\n"
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
