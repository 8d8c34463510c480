//! Client to server.

use serde::{Deserialize, Serialize};

use super::Count;
use super::frame::directed;
use crate::{Filter, NewEvents, Position, Timestamp};

directed! {
    /// A request or a one-way word of a client.
    ClientMessage {
        "hello" => Hello(Hello),
        "publish" => Publish(Publish),
        "read" => Read(Read),
        "subscribe" => Subscribe(Subscribe),
        "join" => Join(Box<Join>),
        "ack" => Ack(Ack),
        "nack" => Nack(Nack),
        "progress" => Progress(Progress),
        "credit" => Credit(Credit),
        "leave" => Leave(Leave),
        "unsubscribe" => Unsubscribe(Unsubscribe),
    }
}

macro_rules! body {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }
    )*};
}
pub(super) use body;

body! {
    /// Must be the first message of a connection.
    Hello {
        id: u64,
        service: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// One process of the instance: the same one may resume its keys.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    }

    /// One event or an atomic batch.
    Publish {
        id: u64,
        #[cfg_attr(feature = "schema", schemars(with = "Vec<crate::NewEvent>"))]
        events: NewEvents,
        /// Token of the event being handled: fences the publish.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delivery: Option<String>,
    }

    Read {
        id: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Edge>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Edge>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<Filter>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<Count>,
        #[serde(default)]
        reverse: bool,
    }

    Subscribe {
        id: u64,
        from: Start,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<Filter>,
        credit: Count,
    }

    /// Take part in a service group. What the group is, is said by its first member.
    Join {
        id: u64,
        group: String,
        /// Unsettled deliveries that this session will hold.
        credit: Count,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<Filter>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<Start>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<Mode>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Key>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        poison: Option<Poison>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_attempts: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_processing_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<Count>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credit_bytes: Option<u64>,
    }

    Ack {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        subscription: u64,
        tokens: Vec<String>,
    }

    Nack {
        subscription: u64,
        token: String,
        action: NackAction,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delay_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }

    /// "Still working": extends the deadline.
    Progress { subscription: u64, token: String, }

    Credit { subscription: u64, events: Count, }

    Leave { id: u64, subscription: u64, }

    Unsubscribe { id: u64, subscription: u64, }
}

/// One end of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a position (decimal string) or {\"time\": …}")]
pub enum Edge {
    Position(Position),
    Time { time: Timestamp },
}

/// Where a subscription or a new group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected \"start\", \"end\", a position (decimal string) or {\"time\": …}")]
pub enum Start {
    Named(Named),
    Position(Position),
    Time { time: Timestamp },
}

impl Start {
    pub const START: Self = Self::Named(Named::Start);
    pub const END: Self = Self::Named(Named::End);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Named {
    Start,
    End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Keyed,
    Exclusive,
}

/// What makes two events belong to the same key of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Key {
    #[default]
    Subject,
    CorrelationId,
    SessionId,
}

/// What becomes of an event after too many attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Poison {
    #[default]
    Park,
    Skip,
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum NackAction {
    Retry,
    Park,
    Skip,
}
