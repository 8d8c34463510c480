//! Who gets which event, and when again: service groups as a pure state machine.
//!
//! # Promises
//! 1. **G1** At most one session holds unsettled events of a key.
//! 2. **G2** Event n+1 of a key is not delivered before n is settled: acked, or
//!    skipped by policy or by an operator. A parked event is not settled.
//! 3. **G3** Every matching event is delivered until it is settled.
//! 4. **G5** A key whose session lost its claim goes to nobody before the old
//!    claim is fenced; a session without claim settles nothing.
//! 5. Memory is bounded by the caps in [`Settings`], whatever the backlog.
//!
//! # After a failure
//! What is settled, failed or parked stands in a [`Checkpoint`]. One that is a
//! little old means that some events come again, never that one is missed.
//!
//! # Not here
//! No clock, no randomness, no channel, no disk: time, jitter, pages of the log
//! and answers come in as [`Input`]; what shall happen goes out as [`Effect`].

mod backoff;
mod checkpoint;
mod cursor;
mod detached;
mod group;
mod io;
mod key;
mod lane;
mod members;
mod options;
mod planted;
mod queue;
mod report;
mod saves;
mod settings;
mod slots;
mod timers;

pub use checkpoint::Checkpoint;
pub use group::{Amendable, Group};
pub use io::{BarrierId, Effect, Input, MemberId, Millis, ReplyId, Token};
pub use key::LaneKey;
pub use options::Options;
#[cfg(feature = "planted")]
pub use planted::{Bug, plant};
pub use report::{GroupReport, KeyReport, KeyState, MemberReport, ParkedReport, Settled};
pub use settings::Settings;
