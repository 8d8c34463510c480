//! The superclient: a host that turns one Lua file into a microservice.
//!
//! # Promises
//! 1. A script reaches nothing but what is handed to it: no files, no processes,
//!    no bytecode, no other service's state.
//! 2. An event is applied to a copy of the state before it is published: what
//!    `evolve` cannot take is never stored.
//! 3. `conflict` is retried after catching up; no caller of a script sees it.
//! 4. What a handler publishes has ids derived from its cause, its correlation
//!    and its delivery token; a repeat publishes nothing twice.
//! 5. The ack comes last.
//!
//! # After a failure
//! A handler that fails is nacked: the bus backs off and in the end parks the
//! key. A script over its limits is stopped and its machine thrown away. State
//! on disk is derived: deleting it costs a rebuild, nothing else.
//!
//! # Not here
//! Delivery rules (bus), what is right for a bank (the scripts).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bindings;
mod bundle;
mod config;
mod engine;
mod error;
#[cfg(test)]
mod fuzz;
mod host;
mod http;
mod json;
mod limits;
mod machine;
mod reload;
mod report;
mod room;
mod state;
mod testing;
mod types;

pub use config::{Config, Limits, Reload, Script, StateLocation, Tests};
pub use error::StartError;
pub use host::{Host, start};
pub use reload::{NOT_COMPARED, Outcome};
pub use testing::{CrashPoint, Run, TestFile};
pub use types::TYPES;
