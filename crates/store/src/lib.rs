//! Where events are kept: one contract, several backends, one suite of tests.
//!
//! # Promises of every store
//! 1. A receipt means durable; nothing is read before it is durable.
//! 2. Positions are gapless from 0, sequences gapless per key, ids unique for ever.
//! 3. A batch is there as a whole or not at all.
//! 4. Checks run in the order id → fence → sequence, in the step that orders the batch.
//! 5. Calls of [`EventStore::submit`] from one caller are ordered as called.
//!
//! # After a failure
//! `UnknownOutcome` means the batch may be stored: publishing the same ids
//! again tells. `Unavailable` means it is not stored.
//!
//! # Not here
//! Form and limits of events (model), who may do what and groups (server, bus).

mod durations;
pub mod local;
pub mod memory;
mod planted;
mod reply;
mod types;

use std::future::Future;
use std::pin::Pin;

use daybook_model::{Event, Position, Timestamp};
use std::sync::Arc;
use tokio::sync::watch;

pub use durations::Durations;
#[cfg(feature = "planted")]
pub use planted::Bug;
pub use reply::{Outcome, Reply};
pub use types::*;

/// What a store answers later. Dropping it does not undo the request.
pub type Answer<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// A group's name and its newest checkpoint.
pub type Checkpoint = (String, Vec<u8>);

/// When a lent thread is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// After what is ready to run, so that the requests in it come along.
    Soon,
    /// Before it: the requests that would come along are of writers who contend,
    /// and one of them is enough.
    AtOnce,
}

/// Threads that whoever serves a store lends it, so that a request is written
/// and answered where it arrived.
pub trait Lender: Send + Sync {
    /// Something waits, and nobody is at it: have a thread do the [`Chore`].
    /// Called from anywhere; must not block.
    fn call(&self, call: Call);

    /// A lent thread has been at the disk for long: see that others do what it
    /// would have done.
    fn miss(&self);
}

/// Writes on the calling thread what waits, if nobody is at it: blocks as long
/// as a write and a sync take. Tells how many requests it took. Does nothing once
/// the store is closed, and does not keep it open.
pub type Chore = Arc<dyn Fn() -> usize + Send + Sync>;

/// A log of events with one total order. Shaped so that a store on another
/// machine can implement it: no call blocks, none assumes a file.
pub trait EventStore: Send + Sync + 'static {
    /// Takes its place in the order before it returns; `reply` is told when the
    /// outcome is durable. A refusal may be told before this returns.
    fn submit(&self, batch: Batch, reply: Reply);

    /// The same for somebody who waits for it.
    fn append(&self, batch: Batch) -> Answer<Outcome> {
        let (reply, answer) = Reply::awaited();
        self.submit(batch, reply);
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(reply::stopped())) })
    }

    /// Raises `fences` at this place in the order; answers with the head once
    /// everything ordered before is durable.
    fn barrier(&self, fences: Vec<Fence>) -> Answer<Result<Position, AppendError>>;

    fn read(&self, query: Query) -> Answer<Result<Page, ReadError>>;

    /// The same for somebody who only passes the events on: appended to `json`,
    /// each as [`Event::write_json`] would. A store that keeps them in another
    /// form need not make events of them first.
    fn read_written(&self, query: Query, json: Vec<u8>) -> Answer<Result<WrittenPage, ReadError>> {
        let page = self.read(query);
        Box::pin(async move { Ok(page.await?.write(json)) })
    }

    fn event_by_id(&self, id: &str) -> Answer<Result<Option<Arc<Event>>, ReadError>>;

    /// Position of the first event recorded at or after `time`; the head if none.
    fn position_at(&self, time: Timestamp) -> Answer<Result<Position, ReadError>>;

    /// Keys that begin with `prefix`, in byte order, after `after`.
    fn subjects(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Answer<Result<Vec<SubjectInfo>, ReadError>>;

    fn subject(&self, subject: &str) -> Answer<Result<Option<SubjectInfo>, ReadError>>;

    /// The durable head: position that the next event will get. Changes wake readers.
    fn head(&self) -> watch::Receiver<Position>;

    /// Replaces the group's checkpoint; answers when it survives a crash.
    fn save_checkpoint(&self, group: &str, bytes: Vec<u8>) -> Answer<Result<(), CheckpointError>>;

    /// All groups' newest checkpoints.
    fn checkpoints(&self) -> Answer<Result<Vec<Checkpoint>, CheckpointError>>;

    fn health(&self) -> watch::Receiver<Health>;

    fn stats(&self) -> Stats;

    /// What it takes at the moment; a store elsewhere may not know.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Offers threads, and learns what they are to do when they are called. A
    /// store finishes what it took even if none of them ever comes.
    fn borrow_threads(&self, _lender: Arc<dyn Lender>) -> Option<Chore> {
        None
    }

    /// Takes no more, finishes what waits, makes it durable.
    fn close(&self) -> Answer<()>;
}
