//! WebSocket sessions: `GET /v1/ws`, subprotocol `daybook.v1.json`.
//!
//! One task per connection runs two loops side by side: the reader
//! (`session.rs`) never waits for the writer (`outbox.rs`), so that a client
//! which does not read its answers is still read, refused and in the end
//! disconnected.

mod inflight;
mod jobs;
mod members;
mod outbox;
mod session;
mod settled;
mod subscription;

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use daybook_model::wire::SUBPROTOCOL;
use daybook_model::{Code, Problem};

use crate::error::Refused;
use crate::state::Shared;

/// The library clears this much before every read: its default of 128 KiB was
/// a fifth of the server's time with small frames.
const READ_BUFFER_BYTES: usize = 8 << 10;

pub(crate) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refused> {
    if let Some(offered) = headers.get(header::SEC_WEBSOCKET_PROTOCOL) {
        let known = offered.to_str().is_ok_and(|list| list.split(',').any(|p| p.trim() == SUBPROTOCOL));
        if !known {
            return Err(Problem::new(Code::Invalid, format!("the subprotocol here is {SUBPROTOCOL}")).into());
        }
    }
    if foreign_origin(&headers) {
        return Err(Problem::new(Code::Forbidden, "a page of another origin may not open this socket").into());
    }
    let limit = shared.config.limits.frame_bytes;
    Ok(upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(move |socket| session::run(shared, socket)))
}

/// Browsers name the page's origin; programs do not. A page from elsewhere must
/// not reach a bus that listens on loopback without a password.
fn foreign_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let origin_host = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, host)| host);
    host.is_none() || origin_host != host
}
