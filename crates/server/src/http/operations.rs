//! Health for machines.

use std::sync::Arc;

use axum::extract::State;
use daybook_model::{Code, Problem};
use daybook_store::Health;

use crate::error::Refused;
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
