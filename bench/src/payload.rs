//! What every event carries, for every system: 256 bytes of JSON and an id.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use uuid::Uuid;

use crate::Result;

/// The type of all events.
pub const KIND: &str = "TransferMade";
/// Bytes of `data`, exactly.
pub const BYTES: usize = 256;

/// An event that is not stored yet.
pub struct Fresh {
    pub id: Uuid,
    pub data: String,
}

impl Fresh {
    /// `sent` is since the epoch: what a subscriber compares its clock with.
    pub fn new(sent: Duration) -> Self {
        Self::after(&head(sent))
    }

    /// All sent now: what they share is written once.
    pub fn batch(events: usize) -> Vec<Self> {
        let head = head(now());
        (0..events).map(|_| Self::after(&head)).collect()
    }

    /// With `head` and as much of its id as makes the size right.
    fn after(head: &str) -> Self {
        let id = Uuid::now_v7();
        let mut text = Uuid::encode_buffer();
        let text = id.simple().encode_lower(&mut text);
        let mut data = String::with_capacity(BYTES);
        data.push_str(head);
        while data.len() < BYTES - 2 {
            data.push_str(&text[..text.len().min(BYTES - 2 - data.len())]);
        }
        data.push_str("\"}");
        Self { id, data }
    }
}

/// `data` up to the text of its memo.
fn head(sent: Duration) -> String {
    format!(
        r#"{{"from":"account/{}","to":"account/{}","amount":{},"currency":"EUR","sent":{},"memo":""#,
        sent.subsec_nanos() % 9_973,
        sent.subsec_nanos() % 7_919,
        sent.subsec_micros(),
        sent.as_nanos() as u64,
    )
}

/// `data`, parsed as a consumer would.
#[derive(Deserialize)]
pub struct Transfer<'a> {
    pub from: &'a str,
    pub to: &'a str,
    pub amount: i64,
    pub currency: &'a str,
    pub sent: u64,
    pub memo: &'a str,
}

impl<'a> Transfer<'a> {
    pub fn parse(data: &'a [u8]) -> Result<Self> {
        Ok(serde_json::from_slice(data)?)
    }

    /// A number that needs every member, so that none is skipped.
    pub fn digest(&self) -> i64 {
        let text = self.from.len() + self.to.len() + self.currency.len() + self.memo.len();
        self.amount + text as i64
    }
}

pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_size_and_parses_to_what_was_sent() {
        let sent = Duration::new(1_790_000_000, 123_456_789);
        let fresh = Fresh::new(sent);
        let parsed = Transfer::parse(fresh.data.as_bytes()).unwrap();

        assert_eq!(fresh.data.len(), BYTES);
        assert_eq!(u128::from(parsed.sent), sent.as_nanos());
        assert_eq!((parsed.amount, parsed.currency), (123_456, "EUR"));
    }
}
