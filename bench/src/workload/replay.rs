//! W3: one reader takes everything from the beginning and parses it.

use std::ops::ControlFlow;
use std::time::Instant;

use super::Cpu;
use crate::Result;
use crate::payload::Transfer;
use crate::peer::{From, Peer};
use crate::results::Figures;

pub async fn run<P: Peer>(peer: &P, events: u64) -> Result<Figures> {
    let (before, begun, mut read, mut digest) = (Cpu::spent(peer), Instant::now(), 0, 0);
    let each = |data: &[u8]| {
        digest += Transfer::parse(data)?.digest();
        read += 1;
        Ok(if read == events { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    peer.stream(From::Start, each).await?;
    let seconds = begun.elapsed().as_secs_f64();
    std::hint::black_box(digest);
    let mut figures = Figures { events_per_s: Some(events as f64 / seconds), ..Figures::default() };
    Cpu::spent(peer).since(before).tell(events as f64, &mut figures);
    Ok(figures)
}
