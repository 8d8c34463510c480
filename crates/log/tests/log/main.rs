//! The log's promises, held against a disk that crashes, fails and forgets.
//!
//! Sizes and seeds: see `daybook_log::suite`.

#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod faults;
mod fixture;
mod fuzz;
mod load;
mod misfits;
mod planted;
mod ship;

use daybook_log::{LogId, Options};

/// Segments so small that a short run fills several.
pub fn options() -> Options {
    Options { new_id: LogId([7; 16]), first_segment_bytes: 2048, segment_bytes: 4096 }
}
