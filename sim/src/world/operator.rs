//! Somebody who mends: once it is calm, parked keys are retried until every
//! group says that nothing is left to do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Shared, net};
use crate::history::Scribe;
use crate::workload::{QUIET_ROUNDS, mend};

pub fn host(sim: &mut turmoil::Sim<'_>, shared: &Arc<Shared>) {
    let shared = shared.clone();
    sim.host("operator", move || {
        let shared = shared.clone();
        async move {
            let scribe = Scribe::new("operator", shared.memory.clone());
            let mut quiet = 0;
            loop {
                sleep(Duration::from_millis(500)).await;
                if !shared.calm.load(Ordering::SeqCst) {
                    continue;
                }
                let round = timeout(Duration::from_secs(5), mend(&scribe, net::http)).await;
                quiet = if matches!(round, Ok(Ok(true))) { quiet + 1 } else { 0 };
                if quiet >= QUIET_ROUNDS {
                    shared.settled.store(true, Ordering::SeqCst);
                }
            }
        }
    });
}
