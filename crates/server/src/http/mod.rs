//! The HTTP table of protocol.md, one file per resource.

mod documents;
mod events;
mod follow;
mod groups;
mod metrics;
mod operations;
mod query;
mod subjects;

use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::routing::{get, post};
use daybook_model::{Code, Problem};

use crate::error::Refused;
use crate::state::Shared;

/// Every path but the WebSocket's; `schema` describes the same list.
pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/events", post(events::publish).get(events::list))
        .route("/v1/events/{id}", get(events::one))
        .route("/v1/subjects", get(subjects::list))
        .route("/v1/subjects/{subject}", get(subjects::one))
        .route("/v1/groups", get(groups::list))
        .route("/v1/groups/{group}", get(groups::one))
        .route("/v1/groups/{group}/parked", get(groups::parked))
        .route("/v1/groups/{group}/parked/{subject}/retry", post(groups::retry))
        .route("/v1/groups/{group}/parked/{subject}/skip", post(groups::skip))
        .route("/v1/groups/{group}/keys/{subject}", get(groups::explain))
        .route("/v1/groups/{group}/reset", post(groups::reset))
        .route("/healthz", get(operations::healthz))
        .route("/readyz", get(operations::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(documents::openapi))
        .route("/asyncapi.json", get(documents::asyncapi))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
}

async fn unknown_path(uri: Uri) -> Refused {
    Refused(Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path())))
}

async fn unknown_method(uri: Uri) -> Refused {
    let mut problem = Problem::new(Code::Invalid, format!("{} does not take this method", uri.path()));
    problem.status = Some(405);
    Refused(problem)
}
