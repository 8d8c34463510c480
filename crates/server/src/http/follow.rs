//! Server-sent events: the log as it grows, resumable by `Last-Event-ID`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response};
use daybook_model::{Invalid, Position};
use daybook_store::Query;
use futures_util::{StreamExt, stream};

use super::query::{EventsQuery, resolve};
use crate::error::Refused;
use crate::state::Shared;

const PAGE_EVENTS: usize = 256;
const PAGE_BYTES: usize = 1 << 20;

pub(super) async fn events(
    shared: Arc<Shared>,
    headers: &HeaderMap,
    asked: EventsQuery,
) -> Result<Response, Refused> {
    if asked.reverse || asked.until.is_some() || asked.limit.is_some() {
        return Err(Invalid::new("Accept", "a live stream has no until, limit or reverse").into());
    }
    let last = match headers
        .get("last-event-id")
        .map(|value| value.to_str().unwrap_or_default().parse::<Position>())
    {
        Some(Ok(last)) => Some(last.next()),
        Some(Err(_)) => return Err(Invalid::new("Last-Event-ID", "expected a position").into()),
        None => None,
    };
    let from = match last {
        Some(next) => next,
        // Without a start the stream is what happens from now on.
        None => resolve(&*shared.store, asked.from).await?.unwrap_or(*shared.store.head().borrow()),
    };
    let (head, shutdown) = (shared.store.head(), shared.shutdown.clone());
    let pages = stream::unfold(
        (shared, head, shutdown, from, asked.filter),
        |(shared, mut head, mut shutdown, mut from, filter)| async move {
            loop {
                let until = *head.borrow_and_update();
                if from >= until {
                    tokio::select! {
                        changed = head.changed() => changed.ok()?,
                        _ = shutdown.wait_for(|down| *down) => return None,
                    }
                    continue;
                }
                let query = Query {
                    from,
                    until: Some(until),
                    filter: filter.clone(),
                    reverse: false,
                    max_events: PAGE_EVENTS,
                    max_bytes: PAGE_BYTES,
                };
                // An error ends the stream; the reader comes back with its last id.
                let page = shared.store.read(query).await.ok()?;
                from = page.next.unwrap_or(until);
                if !page.events.is_empty() {
                    return Some((stream::iter(page.events), (shared, head, shutdown, from, filter)));
                }
            }
        },
    );
    let items = pages.flatten().map(|event| {
        let text = serde_json::to_string(&*event).expect("an event has string keys and is written to memory");
        let sse = Sse::default().id(event.position.to_string()).data(text.replace(['\n', '\r'], " "));
        Ok::<_, Infallible>(sse)
    });
    Ok(axum::response::Sse::new(items).keep_alive(KeepAlive::default()).into_response())
}
