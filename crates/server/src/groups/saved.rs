//! A group's checkpoint as bytes: versioned JSON.

use daybook_bus::Checkpoint;
use serde::{Deserialize, Serialize};

/// Raised when an older server could not read what is written.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved<C> {
    version: u32,
    checkpoint: C,
}

/// Why a checkpoint cannot be used. The file is left as it is: guessing where a
/// group was would skip events or repeat their effects.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it has version {0}, this server reads {VERSION}")]
    Version(u32),
    #[error("{0}")]
    Form(#[from] serde_json::Error),
}

pub(super) fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    serde_json::to_vec(&Saved { version: VERSION, checkpoint })
        .expect("a checkpoint has no maps with odd keys and is written to memory")
}

pub(super) fn decode(bytes: &[u8]) -> Result<Checkpoint, Unreadable> {
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: u32,
    }
    let OnlyVersion { version } = serde_json::from_slice(bytes)?;
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    let saved: Saved<Checkpoint> = serde_json::from_slice(bytes)?;
    Ok(saved.checkpoint)
}
