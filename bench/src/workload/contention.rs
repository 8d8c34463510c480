//! W5: writers who all want the next place of one key, and try again until they
//! get it; and one owner of a key who does not wait between its events.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::task::JoinSet;

use super::{Latencies, Window, cpu_within};
use crate::Result;
use crate::payload::Fresh;
use crate::peer::{Connection, Outcome, Peer, Tip};
use crate::results::Figures;

const CONTENDERS: usize = 16;
/// Events that the owner has under way.
const DEPTH: usize = 64;

pub async fn contenders<P: Peer>(peer: &P, seconds: f64) -> Result<Figures> {
    let tip = Tip::new("account/hot".into());
    let mut connections = Vec::new();
    for _ in 0..CONTENDERS {
        let mut connection = peer.connect().await?;
        connection.watch(&tip).await?;
        connections.push(connection);
    }
    let window = Window::after_warm_up(seconds);
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn(contender(connection, tip.clone(), window));
    }
    let cpu = cpu_within(peer, window).await;
    let outcomes = tasks.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let attempts: u64 = outcomes.iter().map(|(_, attempts)| attempts).sum();
    let mut figures =
        Latencies::figures(outcomes.into_iter().map(|(latencies, _)| latencies), window, 1, cpu);
    let accepted = figures.events_per_s.unwrap_or_default() * window.seconds();
    figures.attempts_per_accept = (accepted > 0.0).then(|| attempts as f64 / accepted);
    Ok(figures)
}

/// Latencies from the first attempt to the acceptance, and attempts.
async fn contender(
    mut connection: impl Connection,
    mut tip: Tip,
    window: Window,
) -> Result<(Latencies, u64)> {
    let (mut latencies, mut attempts) = (Latencies::new(window), 0);
    let mut began = Instant::now();
    while !window.is_over() {
        connection.send(&tip, &Fresh::batch(1))?;
        let outcome = connection.receive().await?;
        if latencies.is_counting() {
            attempts += 1;
        }
        match outcome {
            Outcome::Stored { at } => {
                latencies.note(began);
                tip.advance(1, at);
                // Others may have been told of it before, and been faster.
                connection.glance(&mut tip)?;
                began = Instant::now();
            }
            Outcome::Conflict => connection.refresh(&mut tip).await?,
        }
    }
    Ok((latencies, attempts))
}

pub async fn owner<P: Peer>(peer: &P, seconds: f64) -> Result<Figures> {
    let connection = peer.connect().await?;
    let window = Window::after_warm_up(seconds);
    let task = tokio::spawn(pipeline(connection, window));
    let cpu = cpu_within(peer, window).await;
    Ok(Latencies::figures([task.await??], window, 1, cpu))
}

async fn pipeline(mut connection: impl Connection, window: Window) -> Result<Latencies> {
    let (mut tip, mut latencies) = (Tip::new("account/owned".into()), Latencies::new(window));
    let mut under_way = VecDeque::new();
    while !window.is_over() {
        while under_way.len() < DEPTH {
            connection.send(&tip, &Fresh::batch(1))?;
            // Nobody else writes: where it will be is known before it is there.
            tip.advance(1, tip.at + 1);
            under_way.push_back(Instant::now());
        }
        let Outcome::Stored { .. } = connection.receive().await? else {
            return Err("the owner was refused its own key".into());
        };
        latencies.note(under_way.pop_front().ok_or("nothing was under way")?);
    }
    Ok(latencies)
}
