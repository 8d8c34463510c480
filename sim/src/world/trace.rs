//! What two runs of one seed have in common: every byte.

use crate::entropy::digest;
use crate::history::{Logged, Record};

pub fn of(records: &[Record], log: &Logged) -> u64 {
    let mut text = Vec::new();
    for record in records {
        serde_json::to_writer(&mut text, record).expect("records are plain data");
    }
    for entry in &log.entries {
        text.extend_from_slice(format!("{entry:?}").as_bytes());
    }
    digest(&text)
}
