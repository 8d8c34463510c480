//! Threads lent to the store: what a session has just taken in is written and
//! answered on the same thread. Its lane is lent, or one of the runtime's.
//!
//! A task is called when there is something to write. It lets the tasks that
//! are ready go first, so that what they take in comes along, and then writes.
//! Where writers contend it does not: what they take in would be refused, and
//! the first has its answer the sooner. Nor does it after a write for a single
//! request: a lone publish waits for nobody.
//! The thread it runs on does nothing else meanwhile: of a runtime's threads
//! there must be others.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use daybook_store::{Call, Chore, EventStore, Lender};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;

use crate::lanes::{self, Lanes};

thread_local! {
    /// Whether this thread, one of the runtime's, is at a chore.
    static AT_IT: Cell<bool> = const { Cell::new(false) };
}

struct Lent {
    /// Room for one call: a second would be for the same work.
    lanes: Vec<mpsc::Sender<Call>>,
    /// The lane that called last.
    last: AtomicUsize,
    /// For what comes from elsewhere; none if the runtime can spare no thread.
    others: Option<mpsc::Sender<Call>>,
    runtime: Handle,
}

impl Lender for Lent {
    /// Whoever brings the work does it. A thread that has just written and finds
    /// more brought none of it: most comes over sessions, so a lane goes on. Else
    /// what once was begun elsewhere would stay there for as long as more comes.
    fn call(&self, call: Call) {
        if let Some(lane) = lanes::here() {
            self.last.store(lane, Ordering::Relaxed);
        }
        let brings = lanes::here().is_none() && Handle::try_current().is_ok() && !AT_IT.get();
        let lane = self.lanes.get(self.last.load(Ordering::Relaxed));
        let calls = if brings { self.others.as_ref().or(lane) } else { lane.or(self.others.as_ref()) };
        if let Some(calls) = calls {
            let _ = calls.try_send(call);
        }
    }

    /// Of the runtime's threads one listens to the sockets, and that may be the
    /// one that is away: new work wakes another, which then listens.
    fn miss(&self) {
        self.runtime.spawn(std::future::ready(()));
    }
}

pub(crate) fn lend(store: &dyn EventStore, lanes: &Lanes) {
    let runtime = Handle::current();
    let can_spare =
        runtime.runtime_flavor() == RuntimeFlavor::MultiThread && runtime.metrics().num_workers() > 1;
    let channels = lanes.all().iter().map(|_| mpsc::channel(1));
    let (senders, called): (Vec<_>, Vec<_>) = channels.unzip();
    let (others, others_called) = can_spare.then(|| mpsc::channel(1)).unzip();
    if senders.is_empty() && others.is_none() {
        return;
    }
    let lent = Lent { lanes: senders, last: AtomicUsize::new(0), others, runtime: runtime.clone() };
    let Some(chore) = store.borrow_threads(Arc::new(lent)) else { return };
    for (lane, called) in lanes.all().iter().zip(called) {
        lane.spawn(work(chore.clone(), called));
    }
    if let Some(called) = others_called {
        runtime.spawn(work(chore, called));
    }
}

/// Ends with the store.
async fn work(chore: Chore, mut called: mpsc::Receiver<Call>) {
    let mut wrote = 0;
    while let Some(call) = called.recv().await {
        if call == Call::Soon && wrote > 1 {
            tokio::task::yield_now().await;
        }
        AT_IT.set(true);
        wrote = chore();
        AT_IT.set(false);
    }
}
