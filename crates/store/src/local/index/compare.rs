//! Whether a run says what the log says: found out while the log is read once.
//!
//! # Promises
//! 1. What is called wrong is wrong, whatever hashes collide, and names the first
//!    place where it is. What is missing, too much or elsewhere is noticed, for
//!    places, lists of every kind, names, filter and times.
//! 2. Memory: that of the run's filter and fences, and 17 bits for every 64 positions.
//!
//! # How
//! Places stand in the order of the log and are compared one by one. Lists and
//! names do not: of every span of positions both sides make a sum of a hash of
//! each entry, in whatever order they come. Where the sums differ, the span's
//! events are read again and compared entry by entry.
//!
//! # Not here
//! Which runs there are, and what is said of them: `verify/indexes.rs`.

use std::io;

use daybook_log::Place;
use daybook_model::Event;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::codec::KeyEntry;
use super::hash::{Hasher, Kind, session_levels};
use super::names;
use super::run::{HEADER_BYTES, PLACE_BYTES, PLACES, Run, TRAILER_BYTES, damaged};
use super::times;
use crate::local::OpenError;

/// Positions with one sum.
const SPAN: u64 = 1_024;

/// Why a comparison came to no good end.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// The run, at this offset.
    Run(u64, io::Error),
    /// The log could not be read again.
    Log(OpenError),
}

impl From<OpenError> for Wrong {
    fn from(error: OpenError) -> Self {
        Self::Log(error)
    }
}

/// Hands over the events at some places of the log.
pub(crate) type ReadAgain<'a> = &'a dyn Fn(u64, &[Place]) -> Result<Vec<Event>, OpenError>;

pub(crate) struct Comparison {
    run: Run,
    hasher: Hasher,
    spans: Vec<Sums>,
    /// A bit for each position: whether the run says that a key ends there.
    key_ends: Vec<u64>,
    /// The rest of the block of places under way.
    places: std::vec::IntoIter<Place>,
    /// What the filter did not know first. A list that lacks it says more.
    unknown: Option<Wrong>,
}

/// What one side has and the other has not; zero if they say the same.
#[derive(Clone, Copy, Default)]
struct Sums {
    lists: u64,
    names: u64,
}

impl Comparison {
    /// Reads the run's names. `read` is told of bytes of the file as they are read.
    pub fn begin(run: Run, hasher: Hasher, read: &mut dyn FnMut(u64)) -> Result<Self, Wrong> {
        let places = run.len().checked_mul(PLACE_BYTES as u64);
        let places = places.and_then(|bytes| bytes.checked_add(run.len().div_ceil(PLACES) * 4));
        // What follows is reserved by this length.
        if places != Some(run.postings_at - run.places_at) {
            return Err(wrong(HEADER_BYTES as u64, "it has not a place for each of its positions"));
        }
        let spans = vec![Sums::default(); run.len().div_ceil(SPAN) as usize];
        let key_ends = vec![0; run.len().div_ceil(64) as usize];
        let mut this = Self { run, hasher, spans, key_ends, places: Vec::new().into_iter(), unknown: None };
        this.names(read)?;
        Ok(this)
    }

    pub fn base(&self) -> u64 {
        self.run.base
    }

    pub fn end(&self) -> u64 {
        self.run.end
    }

    pub fn name(&self) -> &str {
        &self.run.name
    }

    /// Where in the file the place of this position is, or of the first if it is before.
    pub fn offset_of(&self, position: u64) -> u64 {
        self.run.places_block(position.max(self.run.base)).1
    }

    fn names(&mut self, read: &mut dyn FnMut(u64)) -> Result<(), Wrong> {
        let mut before: Option<String> = None;
        for i in 0..self.run.key_blocks() {
            let at = self.run.key_fences[i].at;
            let block = self.run.key_block(i).map_err(|error| Wrong::Run(at, error))?;
            if block.first().map(|entry| entry.text.as_str()) != Some(&*self.run.key_fences[i].text) {
                return Err(wrong(at, "its names do not begin as their fence says"));
            }
            for entry in block {
                if before.is_some_and(|before| before >= entry.text) {
                    return Err(wrong(at, &format!("the name `{}` is out of order", shown(&entry))));
                }
                self.name_entry(at, &entry)?;
                before = Some(entry.text);
            }
            read(self.run.key_fences.get(i + 1).map_or(self.run.keys_end, |fence| fence.at) - at);
        }
        Ok(())
    }

    fn name_entry(&mut self, block: u64, entry: &KeyEntry) -> Result<(), Wrong> {
        let last = u64::from(entry.last);
        if last >= self.run.len() {
            let what = format!("`{}` is said to end behind the file's last position", shown(entry));
            return Err(wrong(block, &what));
        }
        let (kind, text) = kind_of(entry);
        let hash = self.hasher.hash(kind, text);
        let mut sum = ends(hash, last);
        if kind == Kind::Subject {
            let (word, bit) = (&mut self.key_ends[(last / 64) as usize], 1 << (last % 64));
            if *word & bit != 0 {
                let position = self.run.base + last;
                return Err(wrong(block, &format!("two keys are said to end at position {position}")));
            }
            *word |= bit;
            sum = sum.wrapping_add(goes_on(hash, last, entry.next));
        } else if entry.next != self.run.base + last + 1 {
            return Err(wrong(
                block,
                &format!("the type `{text}` has another number than its last position"),
            ));
        }
        let span = &mut self.spans[(last / SPAN) as usize];
        span.names = span.names.wrapping_sub(sum);
        Ok(())
    }

    /// The log has `event` at `place`. To be told of every position of the run, in order.
    pub fn event(&mut self, event: &Event, place: Place) -> Result<(), Wrong> {
        let position = event.position.0;
        let at = position - self.run.base;
        let block = self.run.places_block(position).1;
        if self.places.as_slice().is_empty() {
            let places = self.run.places(position).map_err(|error| Wrong::Run(block, error))?;
            self.places = places.into_iter();
        }
        if self.places.next() != Some(place) {
            return Err(wrong(block, &format!("position {position} is not where it says")));
        }
        if at == 0 && self.run.first_time != event.recordedtime.0 {
            let trailer = self.run.bytes - TRAILER_BYTES as u64;
            return Err(wrong(trailer, &format!("position {position} was not recorded when it says")));
        }
        if !self.run.id_times.may_hold(times::time_of(&event.id)) {
            let what = format!("the id `{}` of position {position} is not of the times it tells", event.id);
            return Err(wrong(0, &what));
        }
        let span = &mut self.spans[(at / SPAN) as usize];
        for (kind, text) in filed(event) {
            let hash = self.hasher.hash(kind, text);
            if !self.run.may_contain(hash) {
                let what =
                    format!("its filter does not know the {} `{text}` of position {position}", kind.name());
                self.unknown.get_or_insert(wrong(self.run.keys_end, &what));
            }
            span.lists = span.lists.wrapping_add(listed(hash, at));
            if kind == Kind::Subject && self.key_ends[(at / 64) as usize] & 1 << (at % 64) != 0 {
                let next = event.sequence.map_or(0, |sequence| sequence.0 + 1);
                span.names = span.names.wrapping_add(goes_on(hash, at, next));
            }
        }
        Ok(())
    }

    /// The log has no more of the run's positions: reads its lists. `again` reads
    /// events that were compared before.
    pub fn finish(mut self, again: ReadAgain<'_>, read: &mut dyn FnMut(u64)) -> Result<(), Wrong> {
        self.lists(read)?;
        for i in 0..self.spans.len() {
            let sums = self.spans[i];
            if sums.lists != 0 || sums.names != 0 {
                let from = i as u64 * SPAN;
                let until = self.run.len().min(from + SPAN);
                let events = self.events(from, until, again)?;
                if sums.lists != 0 {
                    self.compare_lists(from, until, &events)?;
                }
                if sums.names != 0 {
                    self.compare_names(from, until, &events)?;
                }
            }
        }
        self.unknown.map_or(Ok(()), Err)
    }

    fn lists(&mut self, read: &mut dyn FnMut(u64)) -> Result<(), Wrong> {
        let mut last: Option<(u64, u64)> = None;
        for i in 0..self.run.posting_blocks() {
            let fence = self.run.posting_fences[i];
            let block = self.run.posting_block(i).map_err(|error| Wrong::Run(fence.at, error))?;
            let first = block.first().map(|entry| (entry.hash, entry.positions.first().copied()));
            if first != Some((fence.hash, Some(fence.first))) {
                return Err(wrong(fence.at, "its lists do not begin as their fence says"));
            }
            let entries =
                block.iter().flat_map(|entry| entry.positions.iter().map(|at| (entry.hash, u64::from(*at))));
            for (hash, at) in entries {
                if last.is_some_and(|last| last > (hash, at)) {
                    return Err(wrong(fence.at, "its lists are out of order"));
                }
                if at >= self.run.len() {
                    return Err(wrong(fence.at, "a list holds a position behind the file's last"));
                }
                if let Some(ended) = last.filter(|last| last.0 != hash) {
                    self.list_ends(ended);
                }
                let span = &mut self.spans[(at / SPAN) as usize];
                span.lists = span.lists.wrapping_sub(listed(hash, at));
                last = Some((hash, at));
            }
            read(
                self.run.posting_fences.get(i + 1).map_or(self.run.postings_end, |fence| fence.at) - fence.at,
            );
        }
        if let Some(ended) = last {
            self.list_ends(ended);
        }
        Ok(())
    }

    fn list_ends(&mut self, (hash, at): (u64, u64)) {
        if matches!(Kind::of(hash), Some(Kind::Subject | Kind::Type)) {
            let span = &mut self.spans[(at / SPAN) as usize];
            span.names = span.names.wrapping_add(ends(hash, at));
        }
    }

    /// Those of the positions [`from`, `until`) behind the run's base.
    fn events(&self, from: u64, until: u64, again: ReadAgain<'_>) -> Result<Vec<Event>, Wrong> {
        let mut places = Vec::new();
        while (places.len() as u64) < until - from {
            let position = self.run.base + from + places.len() as u64;
            let some = self.run.places(position);
            places.extend(some.map_err(|error| Wrong::Run(self.run.places_block(position).1, error))?);
        }
        places.truncate((until - from) as usize);
        Ok(again(self.run.base + from, &places)?)
    }

    fn compare_lists(&self, from: u64, until: u64, events: &[Event]) -> Result<(), Wrong> {
        let mut expected: Vec<_> = (from..)
            .zip(events)
            .flat_map(|(at, event)| filed(event).map(move |(kind, text)| (at, kind, text)))
            .map(|(at, kind, text)| ((at, self.hasher.hash(kind, text)), kind, text))
            .collect();
        expected.sort_unstable_by_key(|(entry, ..)| *entry);
        let mut seen = vec![false; expected.len()];
        for i in 0..self.run.posting_blocks() {
            let offset = self.run.posting_fences[i].at;
            for posting in self.run.posting_block(i).map_err(|error| Wrong::Run(offset, error))? {
                for at in posting.positions.iter().map(|at| u64::from(*at)) {
                    if !(from..until).contains(&at) {
                        continue;
                    }
                    let entry = (at, posting.hash);
                    let first = expected.partition_point(|(known, ..)| *known < entry);
                    let alike = expected[first..].iter().take_while(|(known, ..)| *known == entry).count();
                    if let Some(i) = (first..first + alike).find(|i| !seen[*i]) {
                        seen[i] = true;
                        continue;
                    }
                    let (position, kind) =
                        (self.run.base + at, Kind::of(posting.hash).map_or("kind", Kind::name));
                    let what = match alike {
                        0 => format!("position {position} is in the list of another {kind} than its own"),
                        _ => format!("position {position} is twice in the list of its {kind}"),
                    };
                    return Err(wrong(offset, &what));
                }
            }
        }
        match seen.iter().position(|seen| !seen) {
            None => Ok(()),
            Some(missing) => {
                let ((at, hash), kind, text) = expected[missing];
                let what = format!(
                    "position {} is missing from the list of its {} `{text}`",
                    self.run.base + at,
                    kind.name()
                );
                Err(wrong(self.run.posting_block_of(hash, at as u32), &what))
            }
        }
    }

    fn compare_names(&self, from: u64, until: u64, events: &[Event]) -> Result<(), Wrong> {
        for event in events {
            let position = event.position.0;
            let of_key = event
                .subject
                .as_deref()
                .zip(event.sequence)
                .map(|(text, seq)| (Kind::Subject, text, seq.0 + 1));
            for (kind, text, next) in
                of_key.into_iter().chain([(Kind::Type, event.kind.as_str(), position + 1)])
            {
                let name =
                    if kind == Kind::Type { names::of_type(text, event.position).0 } else { text.to_owned() };
                let offset = self
                    .run
                    .key_fences
                    .get(self.run.key_block_of(&name))
                    .map_or(self.run.postings_end, |f| f.at);
                let head = self.run.head(self.hasher.hash(kind, text), &name);
                let wrong =
                    |what: String| Err(wrong(offset, &format!("the {} `{text}` {what}", kind.name())));
                match head.map_err(|error| Wrong::Run(offset, error))? {
                    None => return wrong(format!("of position {position} is missing")),
                    Some(head) if head.last.0 < position => {
                        return wrong(format!(
                            "is said to end at position {}, and position {position} is of it",
                            head.last
                        ));
                    }
                    Some(head) if head.last.0 == position && head.next != next => {
                        return wrong(format!(
                            "is said to go on with {} behind position {position}, it does with {next}",
                            head.next
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        for i in 0..self.run.key_blocks() {
            let offset = self.run.key_fences[i].at;
            for entry in self.run.key_block(i).map_err(|error| Wrong::Run(offset, error))? {
                let last = u64::from(entry.last);
                if !(from..until).contains(&last) {
                    continue;
                }
                let (kind, text) = kind_of(&entry);
                let event = &events[(last - from) as usize];
                let own =
                    if kind == Kind::Type { Some(event.kind.as_str()) } else { event.subject.as_deref() };
                if own != Some(text) {
                    let what = format!(
                        "the {} `{text}` is said to end at position {}, which is not of it",
                        kind.name(),
                        event.position
                    );
                    return Err(wrong(offset, &what));
                }
            }
        }
        Ok(())
    }
}

fn wrong(offset: u64, what: &str) -> Wrong {
    Wrong::Run(offset, damaged(what))
}

/// Everything that an event is filed under, some of it twice if its session's id is odd.
fn filed(event: &Event) -> impl Iterator<Item = (Kind, &str)> {
    let key = event.subject.as_deref().filter(|_| event.sequence.is_some());
    let always = [
        (Kind::Id, event.id.as_str()),
        (Kind::Type, event.kind.as_str()),
        (Kind::Correlation, event.correlationid.as_str()),
        (Kind::Session, event.sessionid.as_str()),
    ];
    let levels = session_levels(&event.sessionid).map(|level| (Kind::Session, level));
    always.into_iter().chain(key.map(|key| (Kind::Subject, key))).chain(levels)
}

/// What stands among the names: a key, or a type.
fn kind_of(entry: &KeyEntry) -> (Kind, &str) {
    let plain = names::plain(&entry.text);
    (if plain.len() < entry.text.len() { Kind::Type } else { Kind::Subject }, plain)
}

fn shown(entry: &KeyEntry) -> &str {
    kind_of(entry).1
}

/// An entry of a list.
fn listed(hash: u64, at: u64) -> u64 {
    xxh3_64_with_seed(&hash.to_le_bytes(), at)
}

/// A name's last position.
fn ends(hash: u64, at: u64) -> u64 {
    listed(hash, !at)
}

/// A key's last position, and what its next event is.
fn goes_on(hash: u64, at: u64, next: u64) -> u64 {
    listed(listed(hash, at), next)
}

#[cfg(test)]
mod tests;
