//! The words that every part of Daybook shares: events, numbers, limits, error
//! codes and the messages of protocol v1.
//!
//! # Promises
//! 1. One set of types for server and SDK: what one writes the other reads.
//! 2. `data` passes through byte for byte; it is checked for form and depth,
//!    never parsed into values.
//! 3. A refused input names the member that is at fault.
//!
//! # Not here
//! No I/O, no clock, no randomness, no HTTP status codes.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod event;
mod filter;
mod json;
mod limits;
mod numbers;
mod problem;
mod time;
pub mod wire;

pub use event::{Data, DataRef, Event, EventRef, ExtensionValue, Name, NewEvent, NewEventRef, NewEvents};
pub use filter::{Filter, Pattern};
pub use json::JsonText;
pub use limits::Limits;
pub use numbers::{Position, Sequence};
pub use problem::{Code, Invalid, Problem};
pub use time::Timestamp;
