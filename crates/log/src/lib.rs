//! A segmented append-only log of opaque records. Synchronous; knows bytes,
//! lengths and checksums, not events.
//!
//! # Promises
//! 1. When [`Log::sync`] has returned, everything appended before is on disk.
//! 2. After any crash the log is a prefix of what was appended that contains
//!    everything synced; a batch is there as a whole or not at all.
//! 3. Damage before the tail is reported with file and offset, never cut off.
//! 4. After the first failed write or sync the log takes no more. Want of space
//!    is noticed before anything is written, and is no such failure.
//!
//! # After a crash
//! The last batch may be torn: [`Log::open`] cuts it off and says so.
//!
//! # Not here
//! What a record means, indexes, threads.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod copying;
mod disk;
mod draft;
mod error;
mod format;
#[cfg(feature = "sim")]
pub mod fuzz;
mod identity;
mod log;
mod overlay;
mod planted;
mod reader;
mod recover;
mod ship;
#[cfg(feature = "sim")]
pub mod sim;
mod spare;
#[cfg(feature = "sim")]
pub mod suite;

pub use disk::{Disk, DiskFile, RealDisk, free_bytes};
pub use draft::Draft;
pub use error::{Error, OpenError};
pub use format::{BATCH_HEADER_BYTES, FORMAT_VERSION, Place, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
pub use identity::{Lock, LogId};
pub use log::{Log, Options, Recovered};
pub use overlay::Overlay;
#[cfg(feature = "planted")]
pub use planted::Bug;
pub use reader::Reader;
pub use recover::SealedSegment;
pub use ship::{Shipped, Shipper};
pub use spare::Preparer;
