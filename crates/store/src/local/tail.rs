//! Recent events: those who follow the log do not read the disk, and an event
//! published twice in a row is known without it.
//!
//! They are kept as the records that were written. The first who reads one makes
//! an event of it, for everybody who reads it later.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use daybook_model::{Event, Position};

use super::codec;
use super::lookup::Known;

pub(crate) struct Tail {
    /// Consecutive positions, written after each other.
    writes: VecDeque<Arc<Records>>,
    /// The oldest position that counts as here.
    first: u64,
    /// Of what counts as here.
    bytes: usize,
    bytes_max: usize,
}

/// An event that was written lately.
#[derive(Clone)]
pub(crate) struct Recent {
    records: Arc<Records>,
    at: u32,
}

/// Memory for the records of many writes. A piece of its own for each, none as long
/// as the other and made by whichever thread wrote, left the allocator with several
/// times what is in use.
#[derive(Default)]
pub(crate) struct Chunk(BytesMut);

const CHUNK_BYTES: usize = 1 << 20;

/// The records that were written together.
pub(crate) struct Records {
    first: u64,
    /// Of a chunk, which is there as long as one of its records.
    bytes: Bytes,
    /// Where each record ends, and its event once somebody has read it.
    each: Vec<(u32, OnceLock<Known>)>,
}

impl Records {
    /// `len` bytes in all, or a little less.
    pub fn new<'a>(
        Chunk(chunk): &mut Chunk,
        first: u64,
        (count, len): (usize, usize),
        bodies: impl Iterator<Item = &'a [u8]>,
    ) -> Self {
        if chunk.capacity() < len {
            *chunk = BytesMut::with_capacity(len.max(CHUNK_BYTES));
        }
        let mut each = Vec::with_capacity(count);
        for body in bodies {
            chunk.extend_from_slice(body);
            each.push((chunk.len() as u32, OnceLock::new()));
        }
        Self { first, bytes: chunk.split().freeze(), each }
    }

    /// One whose event is known already.
    pub fn of(event: Arc<Event>, defaulted: codec::Defaulted) -> Self {
        let first = event.position.0;
        Self { first, bytes: Bytes::new(), each: vec![(0, OnceLock::from((event, defaulted)))] }
    }

    /// The position after the last.
    fn end(&self) -> u64 {
        self.first + self.each.len() as u64
    }

    fn body(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.each[before].0);
        &self.bytes[start as usize..self.each[at].0 as usize]
    }

    fn known(&self, at: usize) -> &Known {
        self.each[at].1.get_or_init(|| {
            let position = Position(self.first + at as u64);
            let decoded = codec::decode(position, self.body(at));
            let (event, defaulted) = decoded.expect("it was encoded by this program");
            (Arc::new(event), defaulted)
        })
    }

    /// With what it takes as an event.
    fn weight(&self, at: usize) -> usize {
        match self.body(at).len() {
            // See `of`: there is the event alone.
            0 => self.known(at).0.weight(),
            record => 2 * record + EVENT_BYTES,
        }
    }
}

/// Roughly, of an event beside its texts and data.
const EVENT_BYTES: usize = 384;

impl Recent {
    /// With what the server had filled in.
    pub fn stored(&self) -> &Known {
        self.records.known(self.at as usize)
    }
}

impl Tail {
    pub fn new(bytes_max: usize) -> Self {
        Self { writes: VecDeque::new(), first: 0, bytes: 0, bytes_max }
    }

    pub fn push(&mut self, records: Records) {
        if self.writes.is_empty() {
            self.first = records.first;
        }
        self.bytes += (0..records.each.len()).map(|at| records.weight(at)).sum::<usize>();
        self.writes.push_back(Arc::new(records));
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.writes.front()
        {
            self.bytes -= oldest.weight((self.first - oldest.first) as usize);
            self.first += 1;
            if self.first == oldest.end() {
                self.writes.pop_front();
            }
        }
    }

    /// The oldest position that is here.
    pub fn first(&self) -> Option<u64> {
        (!self.writes.is_empty()).then_some(self.first)
    }

    /// Not read under the lock that this is kept behind: see [`Recent::stored`].
    pub fn get(&self, Position(position): Position) -> Option<Recent> {
        if position < self.first {
            return None;
        }
        let records = self.writes.get(self.writes.partition_point(|records| records.end() <= position))?;
        Some(Recent { records: records.clone(), at: (position - records.first) as u32 })
    }
}

#[cfg(test)]
mod tests {
    use daybook_model::{Data, JsonText, NewEvent, Sequence, Timestamp};

    use super::*;
    use crate::local::codec::Defaulted;

    fn event(position: u64, data: &str) -> Event {
        let data = Data::Json(JsonText::from_string(format!("\"{data}\"")).unwrap());
        let new = NewEvent::new(format!("e{position}"), "Happened").subject("k").data(data);
        let stamped = codec::Stamped {
            new: new.lend(),
            source: "/test",
            correlation: "c",
            session: "test/1/s",
            names: None,
            principal: None,
            sequence: Some(Sequence(position)),
            recordedtime: Timestamp(1),
            position: Position(position),
            batch: None,
        };
        stamped.event()
    }

    #[test]
    fn events_found_when_the_log_is_opened_count_with_all_their_bytes() {
        let mut tail = Tail::new(100_000);
        let large = "x".repeat(30_000);
        for position in 0..10 {
            tail.push(Records::of(Arc::new(event(position, &large)), Defaulted::default()));
        }
        assert!(tail.get(Position(9)).is_some());
        assert!(tail.first().unwrap() >= 7, "10 × 30 kB in 100 kB: {:?}", tail.first());
    }

    #[test]
    fn writes_of_any_length_share_memory_and_keep_their_records_to_themselves() {
        const BYTES: usize = 4 << 20;
        let body = |write: usize, at: usize| vec![write as u8; 1 + (write * 7_919 + at * 104_729) % 3_000];
        let (mut chunk, mut tail) = (Chunk::default(), Tail::new(BYTES));
        let mut write_of = Vec::new();
        let taken = allocation_counter::measure(|| {
            for write in 0..800 {
                let bodies: Vec<_> = (0..1 + write % 16).map(|at| body(write, at)).collect();
                let (count, len) = (bodies.len(), bodies.iter().map(Vec::len).sum());
                let bodies = bodies.iter().map(Vec::as_slice);
                tail.push(Records::new(&mut chunk, write_of.len() as u64, (count, len), bodies));
                write_of.resize(write_of.len() + count, write);
            }
        });
        assert!(taken.bytes_max < (BYTES + 2 * CHUNK_BYTES) as u64, "{} bytes", taken.bytes_max);
        let first = tail.first().unwrap();
        assert!(first > 0, "what is old has gone");
        for (position, write) in (first..).zip(&write_of[first as usize..]) {
            let recent = tail.get(Position(position)).unwrap();
            let at = recent.at as usize;
            assert_eq!(recent.records.body(at), body(*write, at));
        }
        let long = vec![7; CHUNK_BYTES + 1];
        let records = Records::new(&mut chunk, 0, (1, long.len()), std::iter::once(&long[..]));
        assert_eq!(records.body(0), long);
    }
}
