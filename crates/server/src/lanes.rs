//! Threads that sessions stay on: what comes over a WebSocket is read, written
//! to the log and answered on one thread, with no other to wake and nothing to
//! take from its core.
//!
//! # Promises
//! 1. A session lives on one lane from its handshake to its end; lanes are
//!    dealt out in turns.
//! 2. What outlives a session (groups, HTTP, the listener) runs elsewhere: a
//!    lane that is away at the disk holds up its own sessions, nobody else.
//!
//! # After a failure
//! While the disk does not answer, the sessions of the lane that is at it are
//! neither read nor pinged; `loan.rs` of the store sees to it that the next
//! write is made by a thread of the store's own.
//!
//! # Not here
//! What a lane does for the store: `lent.rs`. Which socket can move to one:
//! `ws/socket.rs`.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

thread_local! {
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Which lane of its server the calling thread is.
pub(crate) fn here() -> Option<usize> {
    HERE.get()
}

/// Dropped, they end with what is on them.
pub(crate) struct Lanes {
    lanes: Vec<Handle>,
    next: AtomicUsize,
    stop: watch::Sender<bool>,
}

impl Lanes {
    /// With 0 `threads` every session stays on the runtime that took it in.
    pub fn start(threads: usize) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let lanes = (0..threads).map(|i| lane(i, stopped.clone())).collect::<io::Result<_>>()?;
        Ok(Self { lanes, next: AtomicUsize::new(0), stop })
    }

    pub fn all(&self) -> &[Handle] {
        &self.lanes
    }

    /// The lane whose turn it is.
    pub fn next(&self) -> Option<&Handle> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.lanes.get(turn.checked_rem(self.lanes.len())?)
    }

    /// Ends them, with the sessions that are left.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

fn lane(i: usize, mut stopped: watch::Receiver<bool>) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let lane = runtime.handle().clone();
    std::thread::Builder::new().name(format!("session-{i}")).spawn(move || {
        HERE.set(Some(i));
        // An error: the lanes are gone, which ends them as well.
        let _ = runtime.block_on(stopped.wait_for(|stop| *stop));
    })?;
    Ok(lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_dealt_out_in_turns_and_know_which_they_are() {
        let lanes = Lanes::start(3).unwrap();
        let dealt: Vec<_> = (0..6).map(|_| lanes.next().unwrap().clone()).collect();
        let caller = Builder::new_current_thread().build().unwrap();
        let found = dealt.iter().map(|lane| caller.block_on(lane.spawn(async { here() })).unwrap());
        assert_eq!(found.collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2].map(Some));
        assert_eq!(here(), None);
    }

    #[test]
    fn without_lanes_none_is_next() {
        assert!(Lanes::start(0).unwrap().next().is_none());
    }

    #[test]
    fn lanes_that_stop_or_are_gone_drop_what_was_on_them() {
        for stop in [Lanes::stop as fn(&Lanes), |_| {}] {
            let lanes = Lanes::start(1).unwrap();
            let (held, dropped) = std::sync::mpsc::channel::<()>();
            lanes.next().unwrap().spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            });
            stop(&lanes);
            drop(lanes);
            // An error once the sender is gone: nobody sends.
            assert!(dropped.recv().is_err());
        }
    }
}
