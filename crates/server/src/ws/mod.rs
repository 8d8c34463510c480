//! WebSocket sessions: `GET /v1/ws`, subprotocol `daybook.v1.json`.
//!
//! One task per connection runs two loops side by side: the reader
//! (`session.rs`) never waits for the writer (`outbox.rs`), so that a client
//! which does not read its answers is still read, refused and in the end
//! disconnected.

mod frame;
mod inbox;
mod inflight;
mod jobs;
mod members;
mod outbox;
mod outgoing;
mod receipts;
mod session;
mod settled;
mod socket;
mod subscription;
mod turns;
mod upgrade;

pub(crate) use upgrade::upgrade;
