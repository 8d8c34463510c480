//! The thread that turns memory into runs, and many runs into few.
//!
//! # After a failure
//! A full disk is tried again every second. Until then memory grows by a run's
//! worth of events, then publishes are refused. The log does not wait for any
//! of this. A run that is damaged is told by name, and none are merged any more
//! until the index is made again: each try would read all of them for nothing.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use daybook_log::{Disk, LogId};

use super::{Index, merge};
use crate::local::Inner;
use crate::local::gate::Cause;

const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Worker {
    asked: Option<mpsc::SyncSender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub fn start(inner: Arc<Inner>, disk: Arc<dyn Disk>, log: LogId, run_events: usize) -> io::Result<Self> {
        let (asked, inbox) = mpsc::sync_channel::<()>(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = Task { inner, disk, log, run_events, stop: stopped, merges: Cell::new(true) };
        let thread = std::thread::Builder::new().name("indexer".into()).spawn(move || {
            loop {
                match task.work() {
                    Ok(()) => {
                        if inbox.recv().is_err() {
                            return;
                        }
                    }
                    Err(_) if task.stop.load(Ordering::Acquire) => return,
                    Err(error) => {
                        tracing::warn!(%error, "cannot write the index, trying again");
                        task.trouble(&error);
                        if matches!(inbox.recv_timeout(RETRY), Err(mpsc::RecvTimeoutError::Disconnected)) {
                            return;
                        }
                    }
                }
            }
        })?;
        let _ = asked.try_send(());
        Ok(Self { asked: Some(asked), stop, thread: Some(thread) })
    }

    /// There may be something to do.
    pub fn ask(&self) {
        if let Some(asked) = &self.asked {
            let _ = asked.try_send(());
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.asked = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Task {
    inner: Arc<Inner>,
    disk: Arc<dyn Disk>,
    log: LogId,
    run_events: usize,
    stop: Arc<AtomicBool>,
    /// Until one of the runs turns out to be damaged.
    merges: Cell<bool>,
}

impl Task {
    fn work(&self) -> io::Result<()> {
        loop {
            self.flush()?;
            let runs = self.inner.visible().index.runs.clone();
            let some = merge::choose(&runs, self.run_events).filter(|_| self.merges.get());
            let Some(some) = some else { return Ok(()) };
            // Until the old ones are removed both are there. Many small runs are
            // slower to ask, a full disk is worse.
            if !self.inner.space.has_room_for(some.iter().map(|run| run.bytes).sum()) {
                return Ok(());
            }
            // Nobody waits for a merge, and a publish that is woken on this core would wait
            // until the kernel takes it from us: some milliseconds. What is set aside is not
            // written like that: where all cores are busy, memory would fill up meanwhile.
            let mut pause = || {
                std::thread::yield_now();
                self.flush()
            };
            let run = match merge::merge(&*self.disk, self.log, some, &mut pause) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(%error, "the runs of the index stay as many as they are");
                    self.merges.set(false);
                    self.remove_half_written();
                    continue;
                }
                run => run?,
            };
            self.index(|index| index.merged(Arc::new(run)));
            for old in some {
                self.disk.remove(&old.name)?;
            }
        }
    }

    /// Writes what is set aside; a long merge does this in between.
    fn flush(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Acquire) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let frozen = || self.inner.visible().index.frozen.clone();
        while let Some(mem) = frozen() {
            let run = merge::write_mem(&*self.disk, self.log, &mem)?;
            self.index(|index| {
                index.flushed(Arc::new(run));
                // A burst may have filled memory again meanwhile.
                index.freeze();
                self.inner.gate.open(Cause::Index);
                self.inner.gate.open(Cause::Backlog);
            });
        }
        Ok(())
    }

    /// Gives back what was written in vain.
    fn remove_half_written(&self) {
        for name in self.disk.list().unwrap_or_default().iter().filter(|name| name.ends_with(".tmp")) {
            let _ = self.disk.remove(name);
        }
    }

    /// Closes the gate once memory has no place for more.
    fn trouble(&self, error: &io::Error) {
        self.remove_half_written();
        self.index(|index| {
            index.trouble = Some(error.to_string());
            if let Some((cause, reason)) = index.crowded() {
                self.inner.gate.close(cause, reason);
            }
        });
    }

    fn index(&self, change: impl FnOnce(&mut Index)) {
        let mut visible = self.inner.visible.write().expect("no code panics while it holds this lock");
        change(&mut visible.index);
    }
}

impl Index {
    /// Writes a run at once, while the log is being read and nobody waits. On a
    /// full disk it waits in memory, as long as that is bounded.
    pub fn flush_now(&mut self, disk: &dyn Disk, log: LogId) -> io::Result<()> {
        while self.freeze() || self.is_over_limit() {
            let Some(mem) = self.frozen.clone() else { break };
            match merge::write_mem(disk, log, &mem) {
                Ok(run) => self.flushed(Arc::new(run)),
                Err(error) if self.is_over_limit() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }
}
