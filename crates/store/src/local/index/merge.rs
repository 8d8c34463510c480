//! Making runs: from memory, and few out of many.

use std::io;
use std::sync::Arc;

use daybook_log::{Disk, LogId};

use super::codec::{KeyEntry, Posting};
use super::mem::Mem;
use super::named;
use super::names;
use super::run::Run;
use super::times::IdTimes;
use super::write::RunWriter;

/// How many runs of one size become one of the next.
pub(super) const FAN: usize = 4;

pub(super) fn write_mem(disk: &dyn Disk, log: LogId, mem: &Mem) -> io::Result<Run> {
    let entries = mem.places.len() + mem.keys.len();
    let first_time = mem.times.first().copied().unwrap_or(i64::MIN);
    let range = (mem.base, mem.end());
    let mut run = RunWriter::create(disk, log, range, entries as u64, first_time, mem.id_times)?;
    for (position, place) in (mem.base..).zip(&mem.places) {
        run.place(position, *place)?;
    }
    run.places_done()?;
    for (hash, list) in mem.postings.sorted() {
        run.postings(hash, list.iter().map(|at| mem.base + u64::from(*at)))?;
    }
    run.postings_done()?;
    for (name, last) in &mem.types {
        let (text, head) = names::of_type(name, *last);
        run.key(&KeyEntry { text, next: head.next, last: (last.0 - mem.base) as u32 })?;
    }
    for (text, head) in &mem.keys {
        let last = (head.last.0 - mem.base) as u32;
        run.key(&KeyEntry { text: text.to_string(), next: head.next, last })?;
    }
    run.finish()
}

/// What is in a run has 32 bits to say where: no run is longer.
const RUN_EVENTS_MAX: u64 = u32::MAX as u64;

/// The runs that should become one next, if any.
pub(super) fn choose(runs: &[Arc<Run>], run_events: usize) -> Option<&[Arc<Run>]> {
    let lens: Vec<u64> = runs.iter().map(|run| run.len()).collect();
    chosen(&lens, run_events).map(|first| &runs[first..first + FAN])
}

/// The first of those, by what each run holds.
fn chosen(lens: &[u64], run_events: usize) -> Option<usize> {
    // A run counts as large as the largest behind it: a small one between large
    // ones, left by a burst, must not keep them apart for ever.
    let mut levels: Vec<u32> = Vec::with_capacity(lens.len());
    for len in lens.iter().rev() {
        let level = (len / run_events.max(1) as u64).max(1).ilog(FAN as u64);
        levels.push(level.max(levels.last().copied().unwrap_or(0)));
    }
    levels.reverse();
    let fits = |first: usize| lens[first..first + FAN].iter().sum::<u64>() <= RUN_EVENTS_MAX;
    let mut all = (0..(lens.len() + 1).saturating_sub(FAN)).rev();
    all.find(|i| levels[*i] == levels[i + FAN - 1] && fits(*i))
}

/// Writes consecutive `runs` as one. `pause` is called every few blocks; its
/// error ends the merge.
pub(super) fn merge(
    disk: &dyn Disk,
    log: LogId,
    runs: &[Arc<Run>],
    pause: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Run> {
    let (base, end) = (runs[0].base, runs[runs.len() - 1].end);
    let entries = runs.iter().map(|run| run.filter_entries).sum();
    let id_times = runs.iter().fold(IdTimes::NONE, |all, run| all.and(run.id_times));
    let mut merged = RunWriter::create(disk, log, (base, end), entries, runs[0].first_time, id_times)?;
    for run in runs {
        let mut position = run.base;
        while position < run.end {
            for place in run.places(position).map_err(|e| named(run, &e))? {
                merged.place(position, place)?;
                position += 1;
            }
            pause()?;
        }
    }
    merged.places_done()?;
    let mut inputs: Vec<_> = runs.iter().map(|run| Cursor::new(run, Run::posting_block)).collect();
    // Equal hashes: the older run's positions come first.
    while let Some((i, hash)) = least(&mut inputs, |posting: &Posting| posting.hash)? {
        let run_base = runs[i].base;
        if let Some(posting) = inputs[i].take() {
            merged.postings(hash, posting.positions.iter().map(|at| run_base + u64::from(*at)))?;
        }
        if inputs[i].is_dry() {
            pause()?;
        }
    }
    merged.postings_done()?;
    let mut inputs: Vec<_> = runs.iter().map(|run| Cursor::new(run, Run::key_block)).collect();
    while let Some((_, text)) = least(&mut inputs, |entry: &KeyEntry| entry.text.clone())? {
        let mut newest = None;
        for (input, run) in inputs.iter_mut().zip(runs) {
            if input.peek()?.is_some_and(|entry| entry.text == text) {
                newest = input.take().map(|entry| run.head_of(&entry));
            }
        }
        if let Some(head) = newest {
            merged.key(&KeyEntry { text, next: head.next, last: (head.last.0 - base) as u32 })?;
        }
        if inputs.iter().any(Cursor::is_dry) {
            pause()?;
        }
    }
    merged.finish()
}

/// Entries of a run, block by block.
struct Cursor<'a, T> {
    run: &'a Run,
    read: fn(&Run, usize) -> io::Result<Vec<T>>,
    next_block: usize,
    block: std::vec::IntoIter<T>,
}

trait Blocks {
    fn blocks(run: &Run) -> usize;
}

impl Blocks for Posting {
    fn blocks(run: &Run) -> usize {
        run.posting_blocks()
    }
}

impl Blocks for KeyEntry {
    fn blocks(run: &Run) -> usize {
        run.key_blocks()
    }
}

impl<'a, T: Blocks> Cursor<'a, T> {
    fn new(run: &'a Run, read: fn(&Run, usize) -> io::Result<Vec<T>>) -> Self {
        Self { run, read, next_block: 0, block: Vec::new().into_iter() }
    }

    fn peek(&mut self) -> io::Result<Option<&T>> {
        while self.is_dry() && self.next_block < T::blocks(self.run) {
            let block = (self.read)(self.run, self.next_block).map_err(|e| named(self.run, &e))?;
            self.block = block.into_iter();
            self.next_block += 1;
        }
        Ok(self.block.as_slice().first())
    }

    fn take(&mut self) -> Option<T> {
        self.block.next()
    }

    fn is_dry(&self) -> bool {
        self.block.as_slice().is_empty()
    }
}

/// The cursor with the least key, the first of equals.
fn least<T: Blocks, K: Ord>(
    inputs: &mut [Cursor<'_, T>],
    key: impl Fn(&T) -> K,
) -> io::Result<Option<(usize, K)>> {
    let mut least: Option<(usize, K)> = None;
    for (i, input) in inputs.iter_mut().enumerate() {
        if let Some(found) = input.peek()?.map(&key)
            && least.as_ref().is_none_or(|(_, known)| found < *known)
        {
            least = Some((i, found));
        }
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It once became one run of 8,600 million events, whose positions wrapped.
    #[test]
    fn runs_stay_few_and_none_grows_beyond_what_its_positions_can_say() {
        const RUN_EVENTS: usize = 128 << 10;
        let (mut lens, mut events): (Vec<u64>, u64) = (Vec::new(), 0);
        while events < 6 * RUN_EVENTS_MAX {
            lens.push(RUN_EVENTS as u64);
            events += RUN_EVENTS as u64;
            while let Some(first) = chosen(&lens, RUN_EVENTS) {
                let merged = lens[first..first + FAN].iter().sum();
                lens.splice(first..first + FAN, [merged]);
            }
            assert!(lens.iter().all(|len| *len <= RUN_EVENTS_MAX), "after {events} events");
        }
        assert!(lens.len() < 40, "{} runs", lens.len());
        assert_eq!(lens.iter().sum::<u64>(), events);
    }
}
