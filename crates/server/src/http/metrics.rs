//! `GET /metrics` in Prometheus' text format.
//!
//! Names and units are Prometheus' own (`_total`, `_seconds`, `_bytes`); no id
//! of an event, key or session is a label, for there are without number of them.

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use daybook_store::{Durations, Health};

use crate::groups::GroupInfo;
use crate::state::Shared;

pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = Exposition::default();
    store(&shared, &mut text);
    sessions(&shared, &mut text);
    groups(&shared, &mut text).await;
    text.labelled("daybook_build_info", "gauge", "Which program this is.");
    text.sample("daybook_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text.0).into_response()
}

fn store(shared: &Shared, text: &mut Exposition) {
    let stats = shared.store.stats();
    text.one("daybook_events_appended_total", "counter", "Events stored since the start.", stats.events);
    text.one(
        "daybook_batches_written_total",
        "counter",
        "Writes to the log, each synced once.",
        stats.batches,
    );
    text.one("daybook_log_bytes_written_total", "counter", "Bytes of records written.", stats.bytes_written);
    text.histogram(
        "daybook_append_duration_seconds",
        "From the publish's place in the order to its outcome, durable.",
        &stats.append,
    );
    text.histogram("daybook_fsync_duration_seconds", "Time the disk took to sync.", &stats.fsync);
    let head = *shared.store.head().borrow();
    text.one("daybook_head_position", "gauge", "Position that the next event gets.", head);
    let takes = u8::from(matches!(*shared.store.health().borrow(), Health::Ok));
    text.one("daybook_takes_events", "gauge", "1 while events are taken, 0 while the store refuses.", takes);
    let usage = shared.store.usage();
    text.one("daybook_log_bytes", "gauge", "Bytes of the log's segments.", usage.log_bytes);
    text.one("daybook_index_bytes", "gauge", "Bytes of the index.", usage.index_bytes);
    text.one("daybook_index_runs", "gauge", "Files of the index.", usage.index_runs);
    let waiting = "Events that are indexed in memory only.";
    text.one("daybook_index_memory_events", "gauge", waiting, usage.index_memory_events);
    if let Some(free) = usage.free_bytes {
        text.one("daybook_disk_free_bytes", "gauge", "Bytes free on the log's disk.", free);
    }
}

fn sessions(shared: &Shared, text: &mut Exposition) {
    let metrics = &shared.metrics;
    let open = metrics.connections_open.load(Ordering::Relaxed);
    text.one("daybook_connections_open", "gauge", "WebSocket connections.", open);
    let total = metrics.connections_total.load(Ordering::Relaxed);
    text.one("daybook_connections_total", "counter", "WebSocket connections since the start.", total);
    let refused = metrics.publishes_refused_total.load(Ordering::Relaxed);
    text.one("daybook_publishes_refused_total", "counter", "Publishes refused before the log.", refused);
}

/// One line a group and figure; groups are few, so their names may be labels.
async fn groups(shared: &Shared, text: &mut Exposition) {
    let groups = shared.groups.list().await;
    let figures: [(&str, &str, fn(&GroupInfo) -> u64); 7] = [
        ("lag_events", "Positions behind the head of the log.", |g| g.lag_events.0),
        ("lag_seconds", "Age of the earliest unsettled event.", |g| g.lag_seconds),
        ("members", "Connected sessions.", |g| {
            g.report.members.iter().filter(|m| m.connected).count() as u64
        }),
        ("in_flight_deliveries", "Events in the hands of sessions.", |g| g.report.in_flight as u64),
        ("waiting_events", "Events read and waiting.", |g| g.report.waiting as u64),
        ("behind_keys", "Keys with a backlog of their own, read by key.", |g| g.report.behind as u64),
        ("stopped", "1 while the group waits for an operator.", |g| u64::from(g.report.stopped)),
    ];
    for (name, help, figure) in figures {
        let name = format!("daybook_group_{name}");
        text.labelled(&name, "gauge", help);
        for group in &groups {
            text.sample(&name, &[("group", &group.name)], figure(group));
        }
    }
    let name = "daybook_group_parked_keys";
    text.labelled(
        name,
        "gauge",
        "Keys that wait for an operator: all attempts failed, or a session gave up.",
    );
    for group in &groups {
        let by_session = group.report.parked_by_session;
        for (reason, keys) in [("attempts", group.report.parked - by_session), ("session", by_session)] {
            text.sample(name, &[("group", &group.name), ("reason", reason)], keys);
        }
    }
}

#[derive(Default)]
struct Exposition(String);

impl Exposition {
    /// A family of one sample without labels.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.labelled(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// Begins a family whose samples follow.
    fn labelled(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], figure: impl Display) {
        let label = |(label, value): &(&str, &str)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{label}=\"{value}\"")
        };
        let labels: Vec<String> = labels.iter().map(label).collect();
        let _ = writeln!(self.0, "{name}{{{}}} {figure}", labels.join(","));
    }

    fn histogram(&mut self, name: &str, help: &str, durations: &Durations) {
        self.labelled(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (end, count) in durations.buckets() {
            self.sample(&bucket, &[("le", &end.to_string())], count);
        }
        self.sample(&bucket, &[("le", "+Inf")], durations.count());
        let _ = write!(self.0, "{name}_sum {}\n{name}_count {}\n", durations.seconds(), durations.count());
    }
}
