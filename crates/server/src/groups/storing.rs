//! What a group asks of the store, as futures that end in an [`Input`].

use std::sync::Arc;

use daybook_bus::{BarrierId, Input};
use daybook_model::{Filter, Position};
use daybook_store::{EventStore, Fence, Query};
use futures_util::future::BoxFuture;

use super::task::pause;

pub(super) fn query(
    from: Position,
    until: Position,
    filter: Filter,
    max_events: usize,
    max_bytes: usize,
) -> Query {
    Query { from, until: Some(until), filter, reverse: false, max_events, max_bytes }
}

pub(super) fn page(
    store: &dyn EventStore,
    group: Arc<str>,
    query: Query,
    of_key: bool,
) -> BoxFuture<'static, Input> {
    let end = query.until.unwrap_or(query.from);
    let answer = store.read(query);
    Box::pin(async move {
        match answer.await {
            Ok(page) => {
                let (next, events) = (page.next.unwrap_or(end), page.events);
                if of_key { Input::KeyPage { next, events } } else { Input::Page { next, events } }
            }
            Err(error) => {
                tracing::error!(%group, %error, "a group cannot read the log; it will try again");
                Input::ReadFailed
            }
        }
    })
}

pub(super) fn save(
    store: &dyn EventStore,
    group: Arc<str>,
    number: u64,
    bytes: Vec<u8>,
) -> BoxFuture<'static, Input> {
    let answer = store.save_checkpoint(&group, bytes);
    Box::pin(async move {
        match answer.await {
            Ok(()) => Input::Saved(number),
            Err(error) => {
                tracing::error!(%error, "acks are kept in memory until it succeeds");
                Input::SaveFailed(number)
            }
        }
    })
}

/// Raises the fences at the store's next place in the order; goes on asking,
/// since nobody may get the keys before.
pub(super) fn fence(
    store: Arc<dyn EventStore>,
    group: Arc<str>,
    id: BarrierId,
    fences: Vec<Fence>,
) -> BoxFuture<'static, Input> {
    let mut answer = store.barrier(fences.clone());
    Box::pin(async move {
        while let Err(error) = answer.await {
            tracing::warn!(%group, %error, "cannot fence a lost claim; its keys wait");
            pause().await;
            answer = store.barrier(fences.clone());
        }
        Input::Fenced(id)
    })
}
