//! Every limit of the protocol in one place, each with its reason. All are
//! configurable and told to the client in `welcome`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Limits {
    /// One event as JSON. Larger things belong into a blob store, by reference.
    pub event_bytes: usize,
    /// One batch as JSON: what one `fdatasync` may have to carry.
    pub batch_bytes: usize,
    /// Events of one batch.
    pub batch_events: usize,
    /// One frame; a larger one closes the connection, unread.
    pub frame_bytes: usize,
    /// Unanswered publishes of one connection, in events …
    pub inflight_events: usize,
    /// … and in bytes: beyond either the answer is `overloaded`.
    pub inflight_bytes: usize,
    /// Nesting of `data`: what a recursive parser of any language survives.
    pub json_depth: usize,
    pub id_bytes: usize,
    pub type_bytes: usize,
    pub subject_bytes: usize,
    /// Any other string attribute.
    pub attribute_bytes: usize,
    /// Name of an extension attribute.
    pub extension_name_bytes: usize,
    /// Extension attributes of one event.
    pub extensions: usize,
    /// Events of one page.
    pub page_events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: 1 << 20,
            batch_bytes: 4 << 20,
            batch_events: 1_000,
            frame_bytes: 8 << 20,
            inflight_events: 10_000,
            inflight_bytes: 16 << 20,
            json_depth: 128,
            id_bytes: 128,
            type_bytes: 128,
            subject_bytes: 256,
            attribute_bytes: 1_024,
            extension_name_bytes: 20,
            extensions: 32,
            page_events: 1_000,
        }
    }
}
