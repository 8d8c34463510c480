//! The server over real sockets, as clients of the protocol and of the SDK meet it.
//! One binary, because each would link the whole server again.

#![allow(clippy::unwrap_used)]

mod claims;
mod frames;
mod groups;
mod http;
mod lanes;
mod metrics;
mod ws;
