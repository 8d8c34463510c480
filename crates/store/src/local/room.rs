//! Room on the disk for what comes next: the thread that makes the next
//! segment's file, fills it with zeros while the log leaves time for it, and
//! looks whether there is space at all.
//!
//! # Promises
//! 1. The [`Gate`] is closed before the disk is full: a reserve is left for the
//!    index and the groups' checkpoints. Nothing is deleted to make room.
//! 2. It opens again by itself, at most [`LOOK`] after space has returned.
//! 3. It ends with its owner: after the store is closed nothing touches its
//!    directory.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use daybook_log::{Log, Preparer};

use super::Inner;
use super::gate::{Cause, Gate};

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Bytes free on the store's disk.
pub type FreeBytes = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// What is left on the disk, and how much of that is not for segments.
#[derive(Clone)]
pub(crate) struct Space {
    pub free: FreeBytes,
    pub reserve: u64,
}

impl Space {
    /// Whether `bytes` more can be written without touching the reserve. A file
    /// system that does not tell is believed to have room.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        (self.free)().map_or(true, |free| free >= self.reserve.saturating_add(bytes))
    }

    /// Why the next segment must not be made, if it needs so many bytes.
    pub fn shortage(&self, next_segment: u64) -> Option<String> {
        let needed = self.reserve.saturating_add(next_segment);
        let free = (self.free)().ok().filter(|free| *free < needed)?;
        Some(nearly_full(free, next_segment, self.reserve))
    }

    /// Closes the gate if what comes next has no room; true if it has.
    fn look(&self, gate: &Gate, next_segment: u64) -> bool {
        let shortage = self.shortage(next_segment);
        let has_room = shortage.is_none();
        match shortage {
            Some(reason) => gate.close(Cause::Space, reason),
            None => gate.open(Cause::Space),
        }
        has_room
    }
}

fn nearly_full(free: u64, next_segment: u64, reserve: u64) -> String {
    let segment = match next_segment {
        0 => String::new(),
        bytes => format!("the next segment needs {} and ", mib(bytes)),
    };
    format!(
        "the disk is nearly full: {} are free, {segment}{} are kept in reserve; make room, publishing then resumes by itself",
        mib(free),
        mib(reserve)
    )
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

pub(super) struct Room {
    asked: Option<mpsc::SyncSender<()>>,
    worker: Option<JoinHandle<()>>,
}

impl Room {
    /// The first look is over when this returns.
    pub fn start(log: &Log, inner: Arc<Inner>) -> Self {
        let (asked, inbox) = mpsc::sync_channel(1);
        let preparer = log.preparer();
        inner.space.look(&inner.gate, preparer.missing_bytes());
        // Want of a thread is no error: segments are then made when they are needed.
        let worker = std::thread::Builder::new().name("preparer".into()).spawn(move || {
            loop {
                let pause = work(&inner, &preparer).min(LOOK);
                if matches!(inbox.recv_timeout(pause), Err(mpsc::RecvTimeoutError::Disconnected)) {
                    return;
                }
            }
        });
        Self { asked: Some(asked), worker: worker.ok() }
    }

    /// The spare was taken: make the next.
    pub fn ask(&self) {
        if let Some(asked) = &self.asked {
            let _ = asked.try_send(());
        }
    }
}

/// Does what is next, and tells how long to wait before more.
fn work(inner: &Inner, preparer: &Preparer) -> Duration {
    if !inner.space.look(&inner.gate, preparer.missing_bytes()) {
        return LOOK;
    }
    let prepared = preparer.prepare().and_then(|()| {
        inner.gate.open(Cause::Segment);
        preparer.fill()
    });
    match prepared {
        Ok(pause) => pause.unwrap_or(LOOK),
        Err(error) => {
            inner.gate.close(Cause::Segment, error.to_string());
            LOOK
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.asked = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
