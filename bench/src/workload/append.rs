//! W1 and W2: each writer has a key of its own and sends the next batch when
//! the last one is acknowledged.

use std::time::Instant;

use tokio::task::JoinSet;

use super::{Latencies, Window, cpu_within, stored};
use crate::Result;
use crate::payload::Fresh;
use crate::peer::{Connection, Peer, Tip};
use crate::results::Figures;

pub async fn run<P: Peer>(peer: &P, writers: usize, batch: usize, seconds: f64) -> Result<Figures> {
    let mut connections = Vec::new();
    for _ in 0..writers {
        connections.push(peer.connect().await?);
    }
    let window = Window::after_warm_up(seconds);
    let mut tasks = JoinSet::new();
    for (i, connection) in connections.into_iter().enumerate() {
        tasks.spawn(writer(connection, Tip::new(format!("account/{i}")), batch, window));
    }
    let cpu = cpu_within(peer, window).await;
    let latencies = tasks.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(Latencies::figures(latencies, window, batch, cpu))
}

async fn writer(
    mut connection: impl Connection,
    mut tip: Tip,
    batch: usize,
    window: Window,
) -> Result<Latencies> {
    let mut latencies = Latencies::new(window);
    while !window.is_over() {
        let events = Fresh::batch(batch);
        let sent = Instant::now();
        stored(&mut connection, &mut tip, &events).await?;
        latencies.note(sent);
    }
    Ok(latencies)
}
