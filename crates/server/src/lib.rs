//! The tokio shell around store and bus: sockets, tasks, configuration.
//!
//! # Promises
//! 1. A connection is always read; what cannot be taken is answered `overloaded`.
//! 2. Every queue is bounded; a reader too slow for its own answers is disconnected
//!    with a reason.
//! 3. [`Server::shutdown`] tells clients to go, answers what is durable, and returns.
//!
//! # Not here
//! How events are kept (store), who gets which event (bus). This is the only
//! crate that knows HTTP status codes.

mod config;
mod error;
mod groups;
mod http;
mod lanes;
mod lent;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod publish;
pub mod schema;
mod server;
mod state;
mod ws;

pub use config::Config;
pub use server::{Server, StartError, start, start_on, start_with};
