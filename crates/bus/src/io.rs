//! What a group is told, and what it wants done.

use std::ops::Add;
use std::sync::Arc;

use daybook_model::wire::{NackAction, Poison};
use daybook_model::{Event, Position};

use crate::{Checkpoint, LaneKey};

/// A point on the caller's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Add<u64> for Millis {
    type Output = Self;
    fn add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// One membership of one session. Given out by the caller and never reused, so
/// that nothing a past session says can be taken for a present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// One delivery: one attempt at one event by one membership. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    pub member: MemberId,
    pub serial: u64,
}

/// Names a request to fence, so that its answer finds the keys that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarrierId(pub u64);

/// Names an ack or another request whose sender waits for it to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyId(pub u64);

#[derive(Clone, Debug)]
pub enum Input {
    Join {
        member: MemberId,
        instance: String,
        boot: Option<String>,
        /// Unsettled deliveries it will hold.
        credit: usize,
        credit_bytes: usize,
        /// Deliveries of one key it takes at once; all but 1 need a session that
        /// forgets the later ones when one fails.
        window: usize,
    },
    /// It left in good order: nothing counts as an attempt.
    Leave(MemberId),
    /// Its connection is gone: a crash, unless the same boot resumes in time.
    Lost(MemberId),
    Ack {
        member: MemberId,
        tokens: Vec<Token>,
        reply: Option<ReplyId>,
    },
    Nack {
        member: MemberId,
        token: Token,
        action: NackAction,
        delay_ms: Option<u64>,
        reason: Option<String>,
        /// Any number: spreads the retries of events that failed together.
        jitter: u64,
    },
    Progress {
        member: MemberId,
        token: Token,
    },
    /// The log's durable head.
    Head(Position),
    /// Answer to [`Effect::Read`]: all that matches from where it began up to `next`.
    Page {
        next: Position,
        events: Vec<Arc<Event>>,
    },
    /// Answer to [`Effect::ReadKey`].
    KeyPage {
        next: Position,
        events: Vec<Arc<Event>>,
    },
    /// Neither read came back; it is asked for again after a while.
    ReadFailed,
    /// What was published under these claims before is durable, the rest refused.
    Fenced(BarrierId),
    /// The checkpoint with this number survives a crash.
    Saved(u64),
    SaveFailed(u64),
    /// An operator lets a parked key go on with the event it failed at …
    Retry(LaneKey),
    /// … or without it.
    Skip(LaneKey),
    /// Reply when everything so far is durable.
    Sync(ReplyId),
    /// Going down: nothing more is sent, all that is known is saved.
    Drain,
    Tick,
}

#[derive(Clone, Debug)]
pub enum Effect {
    Deliver {
        token: Token,
        attempt: u32,
        event: Arc<Event>,
    },
    /// The session shall say `progress`, `ack` or `nack`, or lose its claim.
    Overdue(Token),
    /// The membership is over.
    Revoke {
        member: MemberId,
        reason: String,
    },
    /// Raise the fences of these deliveries, then say [`Input::Fenced`].
    Fence {
        id: BarrierId,
        tokens: Vec<Token>,
    },
    /// Read the log for what matches the group's filter.
    Read {
        from: Position,
        until: Position,
        max_events: usize,
        max_bytes: usize,
    },
    /// Read the events of one key.
    ReadKey {
        key: LaneKey,
        from: Position,
        until: Position,
        max_events: usize,
        max_bytes: usize,
    },
    /// Make it durable, then say [`Input::Saved`].
    Save {
        number: u64,
        checkpoint: Box<Checkpoint>,
    },
    /// The event is given up, by policy or by its session; to be put on record.
    GaveUp {
        key: LaneKey,
        event: Arc<Event>,
        /// What becomes of it: parked with its key, skipped, or the group stops.
        how: Poison,
        attempts: u32,
        reason: Arc<str>,
    },
    /// All before is durable; these tokens of the ack settled nothing.
    Reply {
        reply: ReplyId,
        stale: Vec<Token>,
    },
}
