//! Server to client.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::client::body;
use super::frame::directed;
use crate::{Event, Limits, Position, Problem, Sequence, Timestamp};

directed! {
    /// An answer or a push of the server.
    ServerMessage {
        "welcome" => Welcome(Box<Welcome>),
        "receipt" => Receipt(Receipt),
        "page" => Page(Page),
        "events" => Events(Events),
        "deliver" => Deliver(Deliver),
        "overdue" => Overdue(Overdue),
        "caughtup" => CaughtUp(CaughtUp),
        "joined" => Joined(Joined),
        "subscribed" => Subscribed(Subscribed),
        "revoked" => Revoked(Revoked),
        "drain" => Drain(Drain),
        "done" => Done(Done),
        "error" => Error(Box<Error>),
    }
}

body! {
    Welcome {
        id: u64,
        session: String,
        node: String,
        /// Position that the next event will get.
        head: Position,
        limits: Limits,
        heartbeat_ms: u64,
    }

    /// Sent only when the events are durable.
    Receipt { id: u64, events: Vec<Receipted>, }

    Receipted {
        id: String,
        position: Position,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sequence: Option<Sequence>,
        recordedtime: Timestamp,
        duplicate: bool,
    }

    Page {
        id: u64,
        events: Vec<Shared>,
        /// Position to go on from; absent at the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Position>,
    }

    Events { subscription: u64, events: Vec<Shared>, }

    Deliver { subscription: u64, deliveries: Vec<Delivery>, }

    Delivery {
        token: String,
        /// Starts at 1.
        attempt: u32,
        event: Shared,
    }

    /// Answer with `progress`, `ack` or `nack`, or lose the claim.
    Overdue { subscription: u64, token: String, }

    CaughtUp { subscription: u64, position: Position, }

    Joined { id: u64, subscription: u64, position: Position, }

    Subscribed { id: u64, subscription: u64, position: Position, }

    /// The session's claim on the group is over.
    Revoked { subscription: u64, reason: String, }

    /// The server is going down: reconnect.
    Drain { reconnect_ms: u64, }

    Done {
        id: u64,
        /// Tokens that belonged to another session by then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stale: Option<Vec<String>>,
    }

    Error {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        problem: Problem,
    }
}

/// An event that many readers share.
#[derive(Clone, Debug, PartialEq)]
pub struct Shared(pub Arc<Event>);

impl Serialize for Shared {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Event::deserialize(deserializer).map(|event| Self(Arc::new(event)))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Shared {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Event::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Event::json_schema(generator)
    }
}

impl std::ops::Deref for Shared {
    type Target = Event;
    fn deref(&self) -> &Event {
        &self.0
    }
}
