//! Where events are found: by position, id, key, type, correlation, session.
//!
//! The youngest events are indexed in memory; older ones in immutable runs of
//! consecutive positions, each a file, merged geometrically so that there are
//! few. A question that most runs must answer with no (is this id known? this
//! key?) is answered by a filter in memory, or by the time that the id names.
//!
//! # Promises
//! 1. Every answer is right, whatever hashes collide: ids and keys are compared
//!    with what is stored, lists of positions are candidates that readers check.
//! 2. Memory: what [`Limits::bytes`] allows for the youngest events, and those on
//!    their way by then; nothing more is taken until a run is written. About 12 bits
//!    an id and key, a second time for the runs that are being merged, and the
//!    fences (one for every 4 KiB of a run).
//! 3. Nothing here is needed: what is missing, half written or damaged is made
//!    again from the log when it is opened.
//!
//! # Not here
//! Events themselves; locks (the caller holds one while it asks what is in memory).

mod codec;
mod compare;
mod filed;
mod filter;
#[cfg(test)]
mod fuzz;
mod hash;
mod lists;
mod mem;
mod merge;
mod names;
mod pieces;
mod postings;
mod run;
mod runs;
mod times;
mod worker;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use daybook_log::{LogId, Place};
use daybook_model::{Filter, Timestamp};

use super::gate::Cause;
use crate::SubjectInfo;
pub(crate) use compare::{Comparison, Wrong};
pub(crate) use filed::{Alike, Filed, Id, alikes};
pub(crate) use hash::{Hasher, Kind};
use lists::lists;
pub(crate) use mem::KeyHead;
use mem::Mem;
pub(crate) use names::Keys;
pub(crate) use run::{Run, range_of};
pub(crate) use runs::{OpenedRuns, Runs, open_runs};
pub(crate) use worker::Worker;

/// Positions [`from`, `until`), looked at from the end if `reverse`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub from: u64,
    pub until: u64,
    pub reverse: bool,
}

/// What may be in memory of events that no run has yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// So many become a run.
    pub events: usize,
    /// Roughly, those being written included. Half of it becomes a run too: with less,
    /// runs would be small wherever every event has a key of its own.
    pub bytes: usize,
}

pub(crate) struct Index {
    hasher: Hasher,
    mem: Mem,
    /// On its way to become a run.
    frozen: Option<Arc<Mem>>,
    runs: Runs,
    limits: Limits,
    /// Why nothing could be written the last time.
    trouble: Option<String>,
}

/// An id that may be known: candidates, newest first.
pub(crate) struct Lookup {
    pub hash: u64,
    pub near: Vec<u64>,
    pub far: Vec<Arc<Run>>,
}

/// Everything that does not change under a reader.
pub(crate) struct View {
    hasher: Hasher,
    frozen: Option<Arc<Mem>>,
    runs: Runs,
}

impl Index {
    pub fn new(log: LogId, runs: Runs, limits: Limits) -> Self {
        let hasher = Hasher::new(log);
        let base = runs.last().map_or(0, |run| run.end);
        Self { hasher, mem: Mem::new(hasher, base), frozen: None, runs, limits, trouble: None }
    }

    /// Bytes and number of the runs, and events that are in memory only.
    pub fn size(&self) -> (u64, u64, u64) {
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.places.len());
        let bytes = self.runs.iter().map(|run| run.bytes).sum();
        (bytes, self.runs.len() as u64, (self.mem.places.len() + frozen) as u64)
    }

    /// Where new events go.
    pub fn memory(&mut self) -> &mut Mem {
        &mut self.mem
    }

    pub fn hasher(&self) -> Hasher {
        self.hasher
    }

    /// Everything from here on is answered from memory.
    pub fn memory_from(&self) -> u64 {
        self.mem.base
    }

    /// The oldest position of which memory still knows everything but the event itself.
    pub fn remembered_from(&self) -> u64 {
        self.frozen.as_ref().map_or(self.mem.base, |frozen| frozen.base)
    }

    /// The position after the newest that is here.
    pub fn end(&self) -> u64 {
        self.mem.end()
    }

    pub fn view(&self) -> View {
        View { hasher: self.hasher, frozen: self.frozen.clone(), runs: self.runs.clone() }
    }

    /// Sets aside what is in memory to be written, if it is time and the last
    /// such is done.
    pub fn freeze(&mut self) -> bool {
        if self.frozen.is_some() || !self.is_full() {
            return false;
        }
        let next = Mem::after(&self.mem);
        self.frozen = Some(Arc::new(std::mem::replace(&mut self.mem, next)));
        true
    }

    /// Whether what is in memory is enough for a run.
    fn is_full(&self) -> bool {
        let Limits { events, bytes } = self.limits;
        let held = self.mem.places.len();
        held >= events || held > 0 && self.mem.bytes() >= bytes / 2
    }

    /// What the events take that no run has yet.
    pub fn memory_bytes(&self) -> usize {
        self.mem.bytes() + self.frozen.as_ref().map_or(0, |frozen| frozen.bytes())
    }

    fn is_over_limit(&self) -> bool {
        self.memory_bytes() >= self.limits.bytes
    }

    /// Why memory should hold no more, if it should not.
    pub fn crowded(&self) -> Option<(Cause, String)> {
        if self.frozen.is_none() || !self.is_full() {
            return None;
        }
        match &self.trouble {
            Some(why) => {
                let why = format!("the index cannot be written: {why}; publishing resumes when it can");
                Some((Cause::Index, why))
            }
            None => self
                .is_over_limit()
                .then(|| (Cause::Backlog, "the index is written slower than events come".into())),
        }
    }

    fn flushed(&mut self, run: Arc<Run>) {
        let mut runs: Vec<_> = self.runs.to_vec();
        runs.push(run);
        self.runs = runs.into();
        self.frozen = None;
        self.trouble = None;
    }

    fn merged(&mut self, run: Arc<Run>) {
        let mut runs: Vec<_> = self.runs.to_vec();
        let first = runs.partition_point(|old| old.base < run.base);
        let last = runs.partition_point(|old| old.end <= run.end);
        runs.splice(first..last, [run]);
        self.runs = runs.into();
    }

    /// Whether no event of this id is here, without any doubt.
    pub fn is_new(&self, id: Id) -> bool {
        let may = |run: &Arc<Run>| run.id_times.may_hold(id.time) && run.may_contain(id.hash);
        self.mem.is_new(id)
            && self.frozen.as_ref().is_none_or(|frozen| frozen.is_new(id))
            && !self.runs.iter().any(may)
    }

    pub fn lookup_id(&self, id: &str) -> Lookup {
        let hash = self.hasher.hash(Kind::Id, id);
        let all = Range { from: 0, until: u64::MAX, reverse: true };
        let mut near = Vec::new();
        self.mem.positions(hash, &all, usize::MAX, &mut near);
        if let Some(frozen) = &self.frozen {
            frozen.positions(hash, &all, usize::MAX, &mut near);
        }
        let time = times::time_of(id);
        let may = |run: &&Arc<Run>| run.id_times.may_hold(time) && run.may_contain(hash);
        let far = self.runs.iter().rev().filter(may).cloned().collect();
        Lookup { hash, near, far }
    }

    /// The key's head if it is in memory; else the runs that may know it, newest first.
    pub fn lookup_head(&self, subject: &str) -> Result<KeyHead, Lookup> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.keys.get(subject));
        if let Some(head) = self.mem.keys.get(subject).or_else(frozen) {
            return Ok(*head);
        }
        let hash = self.hasher.hash(Kind::Subject, subject);
        let far = self.runs.iter().rev().filter(|run| run.may_contain(hash)).cloned().collect();
        Err(Lookup { hash, near: Vec::new(), far })
    }

    /// The place of a position that is in memory.
    pub fn place(&self, position: u64) -> Option<Place> {
        self.mem.place(position).or_else(|| self.frozen.as_ref()?.place(position))
    }

    /// Time of the newest event, if it is in memory.
    pub fn last_time(&self) -> Option<Timestamp> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.times.last());
        self.mem.times.last().or_else(frozen).map(|time| Timestamp(*time))
    }

    /// First position recorded at or after `time`, if memory can tell.
    pub fn position_at(&self, time: Timestamp) -> Option<u64> {
        let in_mem = |mem: &Mem| {
            // Its first event being earlier, everything before it is earlier too.
            let first = *mem.times.first()?;
            let at = mem.times.partition_point(|recorded| *recorded < time.0) as u64;
            (first < time.0 || mem.base == 0).then_some(mem.base + at)
        };
        in_mem(&self.mem).or_else(|| in_mem(self.frozen.as_deref()?)).or_else(|| {
            let is_empty = self.mem.end() == 0;
            is_empty.then_some(0)
        })
    }

    /// Candidates of one list in memory only.
    pub fn positions(&self, hash: u64, range: &Range, limit: usize, out: &mut Vec<u64>) {
        self.mem.positions(hash, range, limit, out);
    }

    /// Keys of a prefix in memory only.
    pub fn keys(&self, keys: &Keys, out: &mut BTreeMap<Arc<str>, KeyHead>) {
        keys.of_mem(&self.mem, out);
    }

    /// Hashes of the lists that together hold every match of `filter`; `None` if
    /// scanning is as good. `expand` names the keys of a prefix.
    pub fn lists(
        &self,
        filter: &Filter,
        expand: impl Fn(&Keys) -> io::Result<Vec<Arc<str>>>,
    ) -> io::Result<Option<Vec<u64>>> {
        lists(self.hasher, filter, expand)
    }
}

impl View {
    /// Candidates of one list older than what is in memory, in the range's order.
    pub fn positions(&self, hash: u64, range: &Range, limit: usize, out: &mut Vec<u64>) -> io::Result<()> {
        let end = out.len() + limit;
        let frozen = |out: &mut Vec<u64>| {
            if let Some(frozen) = &self.frozen {
                frozen.positions(hash, range, end.saturating_sub(out.len()), out);
            }
        };
        if range.reverse {
            frozen(out);
        }
        let visit = |run: &Arc<Run>, out: &mut Vec<u64>| {
            let left = end.saturating_sub(out.len());
            if left == 0 { Ok(()) } else { run.positions(hash, range, left, out).map_err(|e| named(run, &e)) }
        };
        if range.reverse {
            self.runs.iter().rev().try_for_each(|run| visit(run, out))?;
        } else {
            self.runs.iter().try_for_each(|run| visit(run, out))?;
            frozen(out);
        }
        Ok(())
    }

    /// Places from `from` on, at least one, up to where it is convenient.
    pub fn places(&self, from: u64) -> io::Result<Vec<Place>> {
        let after = self.runs.partition_point(|run| run.end <= from);
        match self.runs.get(after).filter(|run| run.base <= from) {
            Some(run) => run.places(from).map_err(|e| named(run, &e)),
            None => Ok(self.frozen.as_ref().and_then(|frozen| frozen.place(from)).into_iter().collect()),
        }
    }

    pub fn keys(&self, keys: &Keys, out: &mut BTreeMap<Arc<str>, KeyHead>) -> io::Result<()> {
        if let Some(frozen) = &self.frozen {
            keys.of_mem(frozen, out);
        }
        self.runs.iter().try_for_each(|run| keys.of_run(run, out).map_err(|e| named(run, &e)))
    }

    pub fn lists(
        &self,
        filter: &Filter,
        expand: impl Fn(&Keys) -> io::Result<Vec<Arc<str>>>,
    ) -> io::Result<Option<Vec<u64>>> {
        lists(self.hasher, filter, expand)
    }

    /// Positions among which the first event recorded at or after `time` is, or
    /// that stand directly before it.
    pub fn around(&self, time: Timestamp) -> (u64, u64) {
        let after = self.runs.partition_point(|run| run.first_time < time.0);
        let end = self.frozen.as_ref().map(|frozen| frozen.base).or(self.runs.last().map(|run| run.end));
        let until = self.runs.get(after).map(|run| run.base).or(end).unwrap_or(0);
        (after.checked_sub(1).map_or(0, |i| self.runs[i].base), until)
    }
}

impl Lookup {
    /// The key's head in the runs that may know it.
    pub fn head(&self, subject: &str) -> io::Result<Option<KeyHead>> {
        for run in &self.far {
            if let Some(head) = run.head(self.hash, subject).map_err(|e| named(run, &e))? {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// Candidates in the runs, newest first.
    pub fn far_positions(&self) -> io::Result<Vec<u64>> {
        let all = Range { from: 0, until: u64::MAX, reverse: true };
        let mut found = Vec::new();
        for run in &self.far {
            run.positions(self.hash, &all, usize::MAX / 2, &mut found).map_err(|e| named(run, &e))?;
        }
        Ok(found)
    }
}

/// An index that cannot be read is a nuisance with a remedy.
fn named(run: &Run, error: &io::Error) -> io::Error {
    let remedy = "stop the server, delete the directory `index` in the data directory, start again: it is made anew from the log";
    io::Error::new(error.kind(), format!("the index file {} cannot be read ({error}); {remedy}", run.name))
}

pub(crate) fn info(subject: &str, head: KeyHead) -> SubjectInfo {
    SubjectInfo { subject: subject.to_owned(), events: head.next, last: head.last }
}
