//! The runtime's threads, lent to the store: what a connection's task has just
//! taken in is written and answered on the same thread.
//!
//! A task is called when there is something to write. It lets the tasks that
//! are ready go first, so that what they take in comes along, and then writes.
//! Where writers contend it does not: what they take in would be refused, and
//! the first has its answer the sooner. Nor does it after a write for a single
//! request: a lone publish waits for nobody.
//! The thread it runs on does nothing else meanwhile: there must be others.

use daybook_store::{Call, Chore, EventStore, Lender};
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;

struct Lent {
    /// Room for one call: a second would be for the same work.
    calls: mpsc::Sender<Call>,
    runtime: Handle,
}

impl Lender for Lent {
    fn call(&self, call: Call) {
        let _ = self.calls.try_send(call);
    }

    /// Of the runtime's threads one listens to the sockets, and that may be the
    /// one that is away: new work wakes another, which then listens.
    fn miss(&self) {
        self.runtime.spawn(std::future::ready(()));
    }
}

/// Lends if the runtime can spare a thread.
pub(crate) fn lend(store: &dyn EventStore) {
    let runtime = Handle::current();
    if runtime.runtime_flavor() != RuntimeFlavor::MultiThread || runtime.metrics().num_workers() < 2 {
        return;
    }
    let (calls, called) = mpsc::channel(1);
    if let Some(chore) = store.borrow_threads(Arc::new(Lent { calls, runtime })) {
        tokio::spawn(work(chore, called));
    }
}

/// Ends with the store.
async fn work(chore: Chore, mut called: mpsc::Receiver<Call>) {
    let mut wrote = 0;
    while let Some(call) = called.recv().await {
        if call == Call::Soon && wrote > 1 {
            tokio::task::yield_now().await;
        }
        wrote = chore();
    }
}
