//! Somebody who mends: once it is calm, parked keys are retried until every
//! group says that nothing is left to do.

use serde_json::Value;

use crate::history::{Scribe, What};

/// Rounds in a row, half a second apart, that must find nothing. A publisher waits
/// 3 s for an answer that was lost when it became calm, and then asks once more.
pub const QUIET_ROUNDS: u32 = 14;

/// True: there was nothing to do.
///
/// `http` does one request by method and path, and gives the body of a good answer.
pub async fn mend(
    scribe: &Scribe,
    http: impl AsyncFn(&'static str, String) -> std::io::Result<String>,
) -> std::io::Result<bool> {
    let groups: Vec<Value> = serde_json::from_str(&http("GET", "/v1/groups".to_owned()).await?)?;
    let mut nothing = groups.len() == super::GROUPS.len();
    for group in &groups {
        let name = group["name"].as_str().unwrap_or_default();
        // A key that has fallen behind does not hold the cursor: it counts by itself.
        nothing &= group["lag_events"] == "0" && group["behind"] == 0;
        let parked = http("GET", format!("/v1/groups/{name}/parked")).await?;
        for parked in serde_json::from_str::<Vec<Value>>(&parked)? {
            nothing = false;
            let subject = parked["subject"].as_str().unwrap_or_default().to_owned();
            let path = format!("/v1/groups/{name}/parked/{}/retry", encoded(&subject));
            // A refusal: it went on by itself meanwhile.
            let answered = http("POST", path).await.is_ok();
            scribe.note(What::Retried { group: name.to_owned(), subject, answered });
        }
    }
    Ok(nothing)
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
