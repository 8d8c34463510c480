//! Groups: who is in them, how far they are, what is parked.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use daybook_model::{Code, Problem};

use crate::error::Refused;
use crate::groups::{GroupInfo, ParkedReport};
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

pub(super) async fn retry(
    State(shared): State<Arc<Shared>>,
    Path((group, subject)): Path<(String, String)>,
) -> Result<StatusCode, Refused> {
    shared.groups.retry(&group, &subject).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn skip(
    State(shared): State<Arc<Shared>>,
    Path((group, subject)): Path<(String, String)>,
) -> Result<StatusCode, Refused> {
    shared.groups.skip(&group, &subject).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn missing(group: &str) -> Refused {
    Refused(Problem::new(Code::NotFound, format!("there is no group `{group}`")))
}
