//! One suite for every store, what only the local one has, and a random walk
//! that holds the local one against the model.

#![allow(clippy::unwrap_used)]

mod checkpoints;
mod child;
mod conformance;
mod index;
mod kill;
mod lent;
mod local;
mod planted;
mod power;
mod read_only;
mod room;
mod sim;
mod walk;

use std::sync::Arc;

use daybook_model::{Data, Filter, NewEvent, Position, Sequence, Timestamp};
use daybook_store::{Batch, EventStore, Query};

pub fn clock() -> Timestamp {
    Timestamp(1_700_000_000_000_000)
}

pub fn batch(events: Vec<NewEvent>) -> Batch {
    Batch {
        events: events.into(),
        session: "test/1/s".into(),
        principal: None,
        default_source: "/test".into(),
        fallback_correlation: "fallback".into(),
        fence: None,
    }
}

pub fn event(id: &str, subject: &str, sequence: Option<u64>) -> NewEvent {
    let data = Data::Json(daybook_model::JsonText::from_string(format!("{{\"id\" : \"{id}\"}}")).unwrap());
    NewEvent { sequence: sequence.map(Sequence), ..NewEvent::new(id, "Happened").subject(subject).data(data) }
}

pub fn all() -> Query {
    Query {
        from: Position(0),
        until: None,
        filter: Filter::default(),
        reverse: false,
        max_events: 1_000_000,
        max_bytes: usize::MAX,
    }
}

pub async fn positions(store: &Arc<dyn EventStore>, query: Query) -> Vec<u64> {
    store.read(query).await.unwrap().events.iter().map(|e| e.position.0).collect()
}
