//! Puts many events into a system before it is read: eight writers, each with a
//! few batches under way, a key per batch.

use tokio::task::JoinSet;

use crate::Result;
use crate::payload::Fresh;
use crate::peer::{Connection, Outcome, Peer, Tip};

const WRITERS: u64 = 8;
const UNDER_WAY: u64 = 4;

/// `keys` times `each` events.
pub async fn run<P: Peer>(peer: &P, keys: u64, each: usize) -> Result<()> {
    let mut tasks = JoinSet::new();
    for i in 0..WRITERS {
        tasks.spawn(writer(peer.connect().await?, i, keys, each));
    }
    tasks.join_all().await.into_iter().collect()
}

async fn writer(mut connection: impl Connection, first: u64, keys: u64, each: usize) -> Result<()> {
    let mut unanswered = 0;
    for key in (first..keys).step_by(WRITERS as usize) {
        connection.send(&Tip::new(format!("filled/{key}")), &Fresh::batch(each))?;
        unanswered += 1;
        if unanswered == UNDER_WAY {
            stored(&mut connection).await?;
            unanswered -= 1;
        }
    }
    for _ in 0..unanswered {
        stored(&mut connection).await?;
    }
    Ok(())
}

async fn stored(connection: &mut impl Connection) -> Result<()> {
    match connection.receive().await? {
        Outcome::Stored { .. } => Ok(()),
        Outcome::Conflict => Err("a fresh key was refused".into()),
    }
}
