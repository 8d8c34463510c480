//! The Rust SDK of the bus: one connection that heals itself.
//!
//! # Promises
//! 1. A publish is answered once: stored, refused, or `unknown-outcome` at its
//!    deadline. While the connection is away it is sent again with the same ids,
//!    which the bus makes harmless.
//! 2. Publishes are sent in the order [`Client::start_publish`] was called.
//! 3. A subscription goes on after the last event it handed out.
//! 4. A membership joins again as the same instance and boot. What was delivered
//!    before comes again if it was not acked: handlers see repeats, never gaps.
//!
//! # Not here
//! Decisions about retrying a `conflict`: only the caller knows what it decided on.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod builder;
mod connection;
mod error;
mod handle;
mod membership;
mod subscription;
mod transport;

pub use builder::Builder;
pub use daybook_model as model;
pub use error::{ConnectError, JoinError, PublishError, ReadError, SubscribeError};
pub use handle::{Client, Page, ReadQuery, Receipt};
pub use membership::{Delivery, Join, Membership, Settler};
pub use subscription::{Item, Subscription};
