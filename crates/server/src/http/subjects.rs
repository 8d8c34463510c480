//! Keys: which there are, and how far each has come.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use daybook_model::{Code, Problem};
use daybook_store::SubjectInfo;
use serde_json::{Value, json};

use super::query::{limit, pairs, unknown};
use crate::error::Refused;
use crate::state::Shared;

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refused> {
    let (mut prefix, mut after, mut count) = (String::new(), None, 100);
    for (name, value) in pairs(&query.unwrap_or_default())? {
        match name.as_str() {
            "prefix" => prefix = value,
            "after" => after = Some(value),
            "limit" => count = limit(&value)?,
            _ => return Err(unknown(&name).into()),
        }
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(shared.config.limits.page_events);
    let found = shared.store.subjects(&prefix, after.as_deref(), count).await?;
    Ok(Json(Value::Array(found.iter().map(shown).collect())))
}

pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(subject): Path<String>,
) -> Result<Json<Value>, Refused> {
    match shared.store.subject(&subject).await? {
        Some(info) => Ok(Json(shown(&info))),
        None => Err(Problem::new(Code::NotFound, format!("there is no event of `{subject}`")).into()),
    }
}

fn shown(info: &SubjectInfo) -> Value {
    json!({ "subject": info.subject, "events": info.events.to_string(), "last": info.last })
}
