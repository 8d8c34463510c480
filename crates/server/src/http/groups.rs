//! Groups: who is in them, how far they are, what is parked.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use daybook_model::wire::{self, Named, Start};
use daybook_model::{Code, Invalid, Position, Problem};
use serde::Deserialize;
use serde_json::{Value, json};

use super::query::{flag, pairs, unknown};
use crate::error::Refused;
use crate::groups::{GroupInfo, KeyReport, ParkedReport};
use crate::state::Shared;

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Json<Vec<GroupInfo>> {
    Json(shared.groups.list().await)
}

pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(group): Path<String>,
) -> Result<Json<GroupInfo>, Refused> {
    shared.groups.info(&group).await.map(Json).ok_or_else(|| missing(&group))
}

pub(super) async fn parked(
    State(shared): State<Arc<Shared>>,
    Path(group): Path<String>,
) -> Result<Json<Vec<ParkedReport>>, Refused> {
    shared.groups.parked(&group).await.map(Json).ok_or_else(|| missing(&group))
}

pub(super) async fn explain(
    State(shared): State<Arc<Shared>>,
    Path((group, subject)): Path<(String, String)>,
) -> Result<Json<KeyReport>, Refused> {
    shared.groups.explain(&group, &subject).await.map(Json).ok_or_else(|| missing(&group))
}

pub(super) async fn retry(
    State(shared): State<Arc<Shared>>,
    Path((group, subject)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    if is_dry_run(query)? {
        return waiting(&shared, &group, &subject).await;
    }
    shared.groups.retry(&group, &subject).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn skip(
    State(shared): State<Arc<Shared>>,
    Path((group, subject)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    if is_dry_run(query)? {
        return waiting(&shared, &group, &subject).await;
    }
    shared.groups.skip(&group, &subject).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Which events go on once the key is let go: counted, nothing is changed.
async fn waiting(shared: &Shared, group: &str, subject: &str) -> Result<Response, Refused> {
    let parked = shared.groups.parked(group).await.ok_or_else(|| missing(group))?;
    let Some(parked) = parked.into_iter().find(|parked| parked.subject == subject) else {
        let detail = format!("nothing of `{subject}` is parked in group `{group}`");
        return Err(Problem::new(Code::NotFound, detail).into());
    };
    let info = shared.groups.info(group).await.ok_or_else(|| missing(group))?;
    let filter = parked.key.filter(info.report.options.key);
    let head = *shared.store.head().borrow();
    let events = shared.groups.count(&filter, parked.position, head).await?;
    Ok(Json(json!({ "subject": subject, "position": parked.position, "events": events.to_string() }))
        .into_response())
}

/// Where a group shall begin anew.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    to: Start,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn reset(
    State(shared): State<Arc<Shared>>,
    Path(group): Path<String>,
    body: String,
) -> Result<Json<Value>, Refused> {
    let Reset { to, dry_run } = wire::read(&body)?;
    let info = shared.groups.info(&group).await.ok_or_else(|| missing(&group))?;
    let head = *shared.store.head().borrow();
    let to = match to {
        Start::Named(Named::Start) => Position::ZERO,
        Start::Named(Named::End) => head,
        Start::Position(position) if position > head => {
            let reason = format!("position {position} lies beyond the head {head}");
            return Err(Invalid::new("to", reason).into());
        }
        Start::Position(position) => position,
        Start::Time { time } => shared.store.position_at(time).await?,
    };
    let low = info.report.low;
    let (from, until) = (to.min(low), to.max(low));
    let events = shared.groups.count(&info.report.options.filter, from, until).await?;
    if !dry_run {
        shared.groups.reset(&group, to).await?;
    }
    // Backwards they come again, forwards they are left out.
    let what = if to < low { "again" } else { "skipped" };
    Ok(Json(json!({ "group": group, "from": low, "to": to, what: events.to_string(), "dry_run": dry_run })))
}

fn is_dry_run(query: Option<String>) -> Result<bool, Invalid> {
    let mut dry_run = false;
    for (name, value) in pairs(&query.unwrap_or_default())? {
        match name.as_str() {
            "dry_run" => dry_run = flag("dry_run", &value)?,
            _ => return Err(unknown(&name)),
        }
    }
    Ok(dry_run)
}

fn missing(group: &str) -> Refused {
    Refused(Problem::new(Code::NotFound, format!("there is no group `{group}`")))
}
