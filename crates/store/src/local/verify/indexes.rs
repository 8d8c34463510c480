//! The files of the index beside the log that is being read.
//!
//! # Promises
//! 1. A file that is wrong ends no check of the log: that it is wrong is kept, the
//!    first such, and told when the log is known to be whole.
//! 2. Of each file no more is in memory than a server has of it too, and that only
//!    while the log is where the file's positions are.
//!
//! # Not here
//! Whether all positions are covered: what no file covers is indexed when the log is
//! opened, and so is what lies behind a gap.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daybook_log::{Disk, LogId, Place, Reader, RealDisk};
use daybook_model::{Event, Position};

use super::{OpenError, VerifyError};
use crate::local::codec;
use crate::local::index::{Comparison, Hasher, Run, Wrong, range_of};

pub(super) struct Indexes {
    dir: PathBuf,
    disk: RealDisk,
    log: Arc<dyn Disk>,
    id: LogId,
    /// Not begun, the next one last: where it begins, and its name.
    waiting: Vec<(u64, String)>,
    /// Those that tell of the position that the log is at.
    open: Vec<Comparison>,
    first_wrong: Option<VerifyError>,
    agree: u64,
    read_bytes: u64,
    bytes: u64,
}

impl Indexes {
    /// All files of the index of the log in `dir`.
    pub fn of(dir: &Path, log: Arc<dyn Disk>, id: LogId) -> Result<Self, OpenError> {
        let dir = dir.join("index");
        let disk = RealDisk::read_only(&dir);
        let names = disk.list();
        let names = names.map_err(|source| OpenError::Io { what: "list", path: dir.clone(), source })?;
        let mut waiting: Vec<(u64, String)> = names
            .into_iter()
            .filter(|name| name.ends_with(".run"))
            .map(|name| (range_of(&name).map_or(0, |(base, _)| base), name))
            .collect();
        let len = |name: &str| disk.open(name, false).and_then(|file| file.len()).unwrap_or(0);
        let bytes = waiting.iter().map(|(_, name)| len(name)).sum();
        waiting.reverse();
        let (open, first_wrong) = (Vec::new(), None);
        Ok(Self { dir, disk, log, id, waiting, open, first_wrong, agree: 0, read_bytes: 0, bytes })
    }

    /// How many bytes of all were read.
    pub fn read(&self) -> (u64, u64) {
        (self.read_bytes, self.bytes)
    }

    /// The log has `event` at `place`. To be told of all, in order; `tell` is called
    /// now and then while files are read as a whole.
    pub fn event(
        &mut self,
        event: &Event,
        place: Place,
        tell: &mut dyn FnMut((u64, u64)),
    ) -> Result<(), OpenError> {
        let position = event.position.0;
        while self.waiting.last().is_some_and(|(base, _)| *base <= position) {
            self.begin(tell)?;
        }
        let mut i = 0;
        while i < self.open.len() {
            let compared = self.open[i].event(event, place);
            let is_done = self.open[i].end() == position + 1;
            if compared.is_ok() && !is_done {
                i += 1;
                continue;
            }
            let comparison = self.open.remove(i);
            let name = comparison.name().to_owned();
            let compared = compared.and_then(|()| self.finish(comparison, tell));
            self.note(&name, compared)?;
        }
        Ok(())
    }

    /// The log has no more: how many files say the same as it, unless one does not.
    pub fn done(mut self, events: u64, tell: &mut dyn FnMut((u64, u64))) -> Result<u64, VerifyError> {
        while !self.waiting.is_empty() {
            self.begin(tell)?;
        }
        for comparison in std::mem::take(&mut self.open) {
            let offset = comparison.offset_of(events);
            let what = format!(
                "it tells where position {} is, and the log has {events} events",
                events.max(comparison.base())
            );
            let what = std::io::Error::new(ErrorKind::InvalidData, what);
            self.note(comparison.name(), Err(Wrong::Run(offset, what)))?;
        }
        self.first_wrong.map_or(Ok(self.agree), Err)
    }

    fn begin(&mut self, tell: &mut dyn FnMut((u64, u64))) -> Result<(), OpenError> {
        let Some((_, name)) = self.waiting.pop() else { return Ok(()) };
        let opened = Run::open(&self.disk, &name, self.id).map_err(|error| Wrong::Run(0, error));
        let hasher = Hasher::new(self.id);
        let (read_bytes, bytes) = (&mut self.read_bytes, self.bytes);
        let begun = opened.and_then(|run| {
            Comparison::begin(run, hasher, &mut |read| {
                *read_bytes += read;
                tell((*read_bytes, bytes));
            })
        });
        match begun {
            Ok(comparison) => self.open.push(comparison),
            Err(error) => self.note(&name, Err(error))?,
        }
        Ok(())
    }

    fn finish(&mut self, comparison: Comparison, tell: &mut dyn FnMut((u64, u64))) -> Result<(), Wrong> {
        let again = |from: u64, places: &[Place]| read_again(&self.log, from, places);
        let (read_bytes, bytes) = (&mut self.read_bytes, self.bytes);
        comparison.finish(&again, &mut |read| {
            *read_bytes += read;
            tell((*read_bytes, bytes));
        })
    }

    fn note(&mut self, name: &str, compared: Result<(), Wrong>) -> Result<(), OpenError> {
        match compared {
            Ok(()) => self.agree += 1,
            Err(Wrong::Log(error)) => return Err(error),
            Err(Wrong::Run(offset, error)) => {
                let path = self.dir.join(name);
                let wrong = match error.kind() {
                    ErrorKind::InvalidData => VerifyError::Index { path, offset, reason: error.to_string() },
                    _ => OpenError::Io { what: "read", path, source: error }.into(),
                };
                self.first_wrong.get_or_insert(wrong);
            }
        }
        Ok(())
    }
}

fn read_again(log: &Arc<dyn Disk>, from: u64, places: &[Place]) -> Result<Vec<Event>, OpenError> {
    let io = |source| OpenError::Io { what: "read again", path: log.path(""), source };
    let reader = Reader::over(log.clone()).map_err(io)?;
    let mut events = Vec::with_capacity(places.len());
    let mut no_event = None;
    let read = reader.read_each(places, |i, body| match codec::decode(Position(from + i as u64), body) {
        Ok((event, _)) => {
            events.push(event);
            true
        }
        Err(error) => {
            no_event = Some(std::io::Error::other(error));
            false
        }
    });
    read.map_err(|error| io(std::io::Error::other(error)))?;
    no_event.map_or(Ok(events), |error| Err(io(error)))
}
