//! The messages of protocol v1 (WebSocket), for server and SDK alike.
//!
//! A frame holds one message or an array of them. Reading is strict about
//! kinds and required members, and lenient about unknown members, so that a
//! newer client can talk to an older server.

mod borrowed;
mod client;
mod expected;
mod frame;
mod scan;
mod server;
pub(crate) mod write;

pub use crate::numbers::{Count, NotDecimal};
pub use borrowed::{EventIn, EventsIn, JsonIn, Payload, PublishOut, Pushed, ReceiptIn, ReceiptedIn};
pub use client::{
    Ack, ClientMessage, Credit, Edge, Hello, Join, Key, Leave, Mode, Nack, NackAction, Named, Poison,
    Progress, Publish, Read, Start, Subscribe, Unsubscribe,
};
pub use frame::{Malformed, Message, messages, read, write_frame};
pub use server::{
    CaughtUp, Deliver, Delivery, Done, Drain, Error, Events, Joined, Overdue, Page, Receipt, Receipted,
    Revoked, ServerMessage, Shared, Subscribed, Welcome,
};
pub use write::{Written, begin_events, end_events};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "daybook.v1.json";
