//! Somebody who mends: once it is calm, parked keys are retried until every
//! group says that nothing is left to do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{Shared, net};
use crate::history::{Scribe, What};

/// Rounds in a row that must find nothing: publishers end a moment after it is calm.
const QUIET_ROUNDS: u32 = 6;

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
                let round = timeout(Duration::from_secs(5), mend(&scribe)).await;
                quiet = if matches!(round, Ok(Ok(true))) { quiet + 1 } else { 0 };
                if quiet >= QUIET_ROUNDS {
                    shared.settled.store(true, Ordering::SeqCst);
                }
            }
        }
    });
}

/// True: there was nothing to do.
async fn mend(scribe: &Scribe) -> std::io::Result<bool> {
    let groups: Vec<Value> = serde_json::from_str(&net::http("GET", "/v1/groups").await?)?;
    let mut nothing = groups.len() == crate::workload::GROUPS.len();
    for group in &groups {
        let name = group["name"].as_str().unwrap_or_default();
        // A key that has fallen behind does not hold the cursor: it counts by itself.
        nothing &= group["lag_events"] == "0" && group["behind"] == 0;
        let parked = net::http("GET", &format!("/v1/groups/{name}/parked")).await?;
        for parked in serde_json::from_str::<Vec<Value>>(&parked)? {
            nothing = false;
            let subject = parked["subject"].as_str().unwrap_or_default().to_owned();
            let path = format!("/v1/groups/{name}/parked/{}/retry", encoded(&subject));
            // A refusal: it went on by itself meanwhile.
            let answered = net::http("POST", &path).await.is_ok();
            scribe.note(What::Retried { group: name.to_owned(), subject, answered });
        }
    }
    Ok(nothing)
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
