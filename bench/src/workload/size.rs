//! What many events cost: bytes on disk, memory under load, and how long it
//! takes until a server with them answers again, after a clean stop and after
//! `kill -9` under load.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{append, fill};
use crate::Result;
use crate::peer::{Durability, Peer, Tools};
use crate::process::disk;
use crate::results::Figures;

/// Events of each key.
const EACH: u64 = 10;
const LOAD: Duration = Duration::from_secs(3);
const WRITERS: usize = 64;

pub async fn run<P: Peer>(tools: &Tools, dir: &Path, events: u64) -> Result<Figures> {
    let peer = P::start(tools, dir, Durability::WhileFilling).await?;
    let empty = disk(dir);
    let most = largest(&peer, fill::run(&peer, events / EACH, EACH as usize)).await;
    let (filled, mut rss) = most;
    filled?;
    peer.processes().iter().try_for_each(|process| process.end(P::STOP))?;
    let full = disk(dir);
    drop(peer);

    let (peer, open_clean) = open::<P>(tools, dir).await?;
    let peer = Arc::new(peer);
    let loaded = peer.clone();
    let load =
        tokio::spawn(async move { append::run(loaded.as_ref(), WRITERS, 1, LOAD.as_secs_f64() * 3.0).await });
    rss = rss.max(largest(peer.as_ref(), tokio::time::sleep(LOAD)).await.1);
    if load.is_finished() {
        load.await??;
        return Err("the load ended before its time".into());
    }
    peer.processes().iter().try_for_each(|process| process.kill())?;
    // The writers see their connections break.
    let _ = load.await;
    drop(peer);

    let (_peer, open_killed) = open::<P>(tools, dir).await?;
    Ok(Figures {
        disk_bytes_per_event: Some((full.saturating_sub(empty)) as f64 / events as f64),
        rss_mib: Some(rss as f64 / f64::from(1 << 20)),
        open_clean_ms: Some(open_clean.as_secs_f64() * 1e3),
        open_killed_ms: Some(open_killed.as_secs_f64() * 1e3),
        ..Figures::default()
    })
}

/// Until a writer could begin.
async fn open<P: Peer>(tools: &Tools, dir: &Path) -> Result<(P, Duration)> {
    let begun = Instant::now();
    let peer = P::start(tools, dir, Durability::Always).await?;
    drop(peer.connect().await?);
    Ok((peer, begun.elapsed()))
}

/// The largest resident size seen while `busy` goes on.
async fn largest<P: Peer, T>(peer: &P, busy: impl Future<Output = T>) -> (T, u64) {
    let mut busy = std::pin::pin!(busy);
    let mut most = 0;
    loop {
        let pause = tokio::time::sleep(Duration::from_millis(200));
        match futures_util::future::select(busy.as_mut(), std::pin::pin!(pause)).await {
            futures_util::future::Either::Left((result, _)) => return (result, most),
            futures_util::future::Either::Right(_) => {
                most = most.max(peer.processes().iter().map(|process| process.rss()).sum());
            }
        }
    }
}
