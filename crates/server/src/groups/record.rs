//! What is done to events that are not settled by an ack, as events in the log:
//! whoever asks later why something was not handled finds it there.
//!
//! They have reserved types, no subject (they take no key's sequence) and the
//! correlation of the event they speak of; a group gets them only if its filter
//! names the type exactly.

use std::sync::Arc;

use daybook_bus::Input;
use daybook_model::wire::Poison;
use daybook_model::{Data, Event, NewEvent, Position};
use daybook_store::{AppendError, Batch, EventStore};
use futures_util::future::BoxFuture;
use serde::Serialize;
use uuid::Uuid;

use super::task::{Order, pause};

#[derive(Serialize)]
pub(super) struct Record<'a> {
    pub group: &'a str,
    /// The key, or the position of an event that has none.
    pub key: String,
    pub position: Position,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// `group`: its policy or its session; `operator`.
    pub by: &'static str,
}

pub(super) fn kind_of(how: Poison) -> &'static str {
    match how {
        Poison::Park => "daybook.EventParked",
        Poison::Skip => "daybook.EventSkipped",
        Poison::Stop => "daybook.GroupStopped",
    }
}

pub(super) fn kind_of_order(order: Order) -> &'static str {
    match order {
        Order::Retry => "daybook.EventRetried",
        Order::Skip => "daybook.EventSkipped",
    }
}

/// Tries until it is stored or the store takes no more.
pub(super) fn write(
    store: Arc<dyn EventStore>,
    kind: &str,
    record: &Record<'_>,
    event: Option<&Event>,
) -> BoxFuture<'static, Input> {
    let mut new = NewEvent::new(Uuid::now_v7().to_string(), kind);
    if let Some(event) = event {
        new = new.caused_by(event);
    }
    if let Ok(data) = Data::json(record) {
        new = new.data(data);
    }
    let session: Arc<str> = format!("daybook/groups/{}", Uuid::now_v7()).into();
    Box::pin(async move {
        loop {
            let batch = Batch {
                events: vec![new.clone()].into(),
                session: session.clone(),
                principal: None,
                default_source: "/daybook".into(),
                fallback_correlation: Uuid::now_v7().to_string(),
                fence: None,
            };
            match store.append(batch).await {
                Err(AppendError::Overloaded) => pause().await,
                Err(error) => {
                    tracing::warn!(%error, "what became of an event could not be put on record");
                    break;
                }
                Ok(_) => break,
            }
        }
        Input::Tick
    })
}
