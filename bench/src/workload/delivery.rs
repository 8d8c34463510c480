//! W4: from a publish to its delivery to one subscriber, at a steady 1,000
//! events a second from eight writers in turn.
//!
//! The schedule does not wait for the system: a writer that is still waiting
//! for its last acknowledgement sends late, and the delay counts.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

use super::{Window, cpu_within, stored};
use crate::Result;
use crate::payload::{Fresh, Transfer, now};
use crate::peer::{Connection, From, Peer, Tip};
use crate::results::Figures;
use crate::stats::percentile;

const WRITERS: u32 = 8;
const PER_SECOND: u32 = 1_000;
/// Long before all others: the last event, after which nothing comes.
const LAST: Duration = Duration::ZERO;

pub async fn run<P: Peer>(peer: &Arc<P>, seconds: f64) -> Result<Figures> {
    let mut connections = Vec::new();
    for _ in 0..=WRITERS {
        connections.push(peer.connect().await?);
    }
    let mut last = connections.pop().ok_or("no connection")?;
    let (reader, (ready, mut begun)) = (peer.clone(), tokio::sync::mpsc::channel::<()>(1));
    let subscriber = tokio::spawn(async move {
        let mut arrived = Vec::new();
        let stream = reader.stream(From::End, |data| {
            let (at, transfer) = (now(), Transfer::parse(data)?);
            let sent = Duration::from_nanos(transfer.sent);
            // Before it is known that the subscription is there, events are sent on trial.
            let _ = ready.try_send(());
            if sent == LAST {
                return Ok(ControlFlow::Break(()));
            }
            arrived.push((sent, at));
            Ok(ControlFlow::Continue(()))
        });
        stream.await?;
        Ok::<_, crate::Error>(arrived)
    });
    let mut tip = Tip::new("account/last".into());
    while begun.try_recv().is_err() {
        if subscriber.is_finished() {
            break;
        }
        stored(&mut last, &mut tip, &[Fresh::new(now())]).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (window, clock) = (Window::after_warm_up(seconds), (Instant::now(), now()));
    let mut tasks = JoinSet::new();
    for (i, connection) in (0..WRITERS).zip(connections) {
        tasks.spawn(writer(connection, i, window));
    }
    let cpu = cpu_within(peer.as_ref(), window).await;
    for outcome in tasks.join_all().await {
        outcome?;
    }
    stored(&mut last, &mut tip, &[Fresh::new(LAST)]).await?;
    let begin = clock.1 + (window.begin - clock.0);
    let end = clock.1 + (window.end - clock.0);
    let counted = subscriber.await??.into_iter().filter(|(sent, _)| (begin..end).contains(sent));
    let micros = |(sent, at): (Duration, Duration)| at.saturating_sub(sent).as_micros() as u32;
    let mut micros: Vec<u32> = counted.map(micros).collect();
    micros.sort_unstable();
    let mut figures = Figures {
        events_per_s: Some(micros.len() as f64 / window.seconds()),
        p50_us: Some(f64::from(percentile(&micros, 0.5))),
        p99_us: Some(f64::from(percentile(&micros, 0.99))),
        ..Figures::default()
    };
    cpu.tell(micros.len() as f64, &mut figures);
    Ok(figures)
}

async fn writer(mut connection: impl Connection, i: u32, window: Window) -> Result<()> {
    let mut tip = Tip::new(format!("account/{i}"));
    let pause = Duration::from_secs(1) * WRITERS / PER_SECOND;
    let mut ticks = interval_at((Instant::now() + pause * i / WRITERS).into(), pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut free = Instant::now();
    loop {
        let due = ticks.tick().await.into_std();
        if due >= window.end {
            return Ok(());
        }
        // Waking up late is the timer's fault, having been busy the system's.
        let late = if free > due { due.elapsed() } else { Duration::ZERO };
        stored(&mut connection, &mut tip, &[Fresh::new(now().saturating_sub(late))]).await?;
        free = Instant::now();
    }
}
