//! Reading everything and believing nothing: is the log whole, are the groups'
//! checkpoints, and is the index right about the log? Nothing is written but the lock.
//!
//! # Promises
//! Memory does not grow with the log, but for the filters of the index. A log of more
//! than fourteen million events or three million keys is read more than once for that.

mod indexes;
mod known;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use daybook_log::{Lock, Log, OpenError, RealDisk};
use daybook_model::Position;

use super::index::Hasher;
use super::reached::{Reached, Way};
use super::{checkpoints, codec, restoring};
use indexes::Indexes;
use known::{Known, Limits};

/// What was found to be in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verified {
    pub events: u64,
    pub keys: u64,
    pub bytes: u64,
    /// Of a last write that nobody was told of; cut off when the log is opened.
    pub torn_bytes: u64,
    /// Files of the index that were compared with the log.
    pub runs: u64,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The log is damaged, or cannot be read.
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error("{} holds no log", .0.display())]
    NoLog(PathBuf),
    /// Only the index: deleting it and opening the log makes it again.
    #[error(
        "the index file {} is wrong at offset {offset}: {reason}; no event is lost: delete the file, and `daybook serve` makes it again from the log when it starts",
        path.display()
    )]
    Index { path: PathBuf, offset: u64, reason: String },
}

/// Checks the log of `dir`, which must not be open. `progress` is told how far it is.
pub fn verify(dir: &Path, progress: impl FnMut(Reached)) -> Result<Verified, VerifyError> {
    verify_within(dir, Limits::default(), progress)
}

fn verify_within(
    dir: &Path,
    limits: Limits,
    mut progress: impl FnMut(Reached),
) -> Result<Verified, VerifyError> {
    let disk = Arc::new(RealDisk::read_only(dir));
    let no_log = || VerifyError::NoLog(dir.to_owned());
    let id = Log::identify(&*disk)?.ok_or_else(no_log)?;
    let _lock = Lock::take_to_read(dir)?;
    restoring::refuse_unfinished(dir)?;
    let mut found = Verified::default();
    let mut known = Known::new(Hasher::new(id), limits);
    let mut indexes = Indexes::of(dir, disk.clone(), id)?;
    let mut way = Way::new(&*disk);
    let log_bytes = way.total();
    let mut reached = Reached { events: 0, bytes: 0, bytes_total: log_bytes };
    // The log's bytes count as often as they are read.
    let mut tell = |reached: Reached, (read, bytes): (u64, u64), readings: u64| {
        let bytes_total = readings * log_bytes + bytes;
        progress(Reached { bytes: reached.bytes + read, bytes_total, ..reached });
    };
    let mut last_time = i64::MIN;
    // An error of the index's, which is none of the log's record.
    let mut trouble = None;
    let checked = Log::verify(&*disk, |position, place, body| {
        let (event, _) = codec::decode(Position(position), body).map_err(|e| e.to_string())?;
        known.event(&event)?;
        if event.recordedtime.0 < last_time {
            return Err(format!("position {position}: recordedtime goes backwards"));
        }
        last_time = event.recordedtime.0;
        found.bytes += body.len() as u64;
        let readings = known.readings();
        let told = indexes.event(&event, place, &mut |read| tell(reached, read, readings));
        told.map_err(|error| trouble.insert(error).to_string())?;
        way.event(place, |at| {
            reached = at;
            tell(reached, indexes.read(), readings);
        });
        Ok(())
    });
    if let Some(error) = trouble {
        return Err(error.into());
    }
    let checked = checked?.ok_or_else(no_log)?;
    found.events = checked.next;
    found.torn_bytes = checked.cut_bytes;
    let read = indexes.read();
    // Told last, but what it holds is not needed any more.
    let runs = indexes.done(found.events, &mut |read| tell(reached, read, known.readings()));
    let mut readings = 0;
    while known.begin_rest() {
        readings += 1;
        let mut way = Way::new(&*disk);
        Log::verify(&*disk, |position, place, body| {
            let (event, _) = codec::decode(Position(position), body).map_err(|e| e.to_string())?;
            known.event(&event)?;
            way.event(place, |at| {
                let (events, bytes) = (readings * found.events, readings * log_bytes);
                let all = Reached { events: events + at.events, bytes: bytes + at.bytes, ..at };
                tell(all, read, known.readings());
            });
            Ok(())
        })?;
    }
    found.keys = known.keys();
    checkpoints::whole_files(&RealDisk::read_only(&dir.join("groups")), checked.id)?;
    found.runs = runs?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use daybook_log::{LogId, Options};
    use daybook_model::{Event, Sequence};

    use super::*;
    use crate::local::codec::{Defaulted, encode};
    use crate::local::tests::fuzz::full;

    const EVENTS: u64 = 25_000;
    const NARROW: Limits = Limits { ids: 6_000, keys: 100 };

    /// A log of these events, whatever the store would say of them.
    fn written(event: impl Fn(u64) -> Event) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::open(dir.path()).unwrap());
        let options =
            Options { new_id: LogId([7; 16]), first_segment_bytes: 64 << 10, segment_bytes: 1 << 20 };
        let (mut log, _) = Log::open(disk, options, |_, _, _| Ok(())).unwrap();
        let mut body = Vec::new();
        for first in (0..EVENTS).step_by(500) {
            let bodies: Vec<_> = (first..first + 500)
                .map(|i| {
                    body.clear();
                    encode(&event(i), Defaulted::default(), &mut body);
                    body.clone()
                })
                .collect();
            log.append(bodies.iter().map(Vec::as_slice)).unwrap();
        }
        log.sync().unwrap();
        log.vouch().unwrap();
        dir
    }

    fn event(i: u64) -> Event {
        let (subject, sequence) = (Some(format!("k/{}", i % 300)), Some(Sequence(i / 300)));
        Event { position: Position(i), id: format!("e{i}"), subject, sequence, batch: None, ..full() }
    }

    #[test]
    fn a_log_that_is_read_more_than_once_is_whole_and_tells_how_far_it_is() {
        let dir = written(event);
        let mut told = Vec::new();
        let found = verify_within(dir.path(), NARROW, |at| told.push(at)).unwrap();
        assert_eq!((found.events, found.keys), (EVENTS, 300));
        let last = told[told.len() - 1];
        assert!(last.events > 3 * EVENTS && last.bytes <= last.bytes_total, "{last:?}");
        assert!(told.is_sorted_by_key(|at| (at.events, at.bytes)));
    }

    #[test]
    fn ids_sequences_and_times_that_cannot_be_are_told_with_file_and_offset() {
        let first_time = full().recordedtime;
        let earlier = daybook_model::Timestamp(first_time.0 - 1);
        let wrong: [(&dyn Fn(u64) -> Event, &str); 3] = [
            (&|i| Event { id: event(i % (EVENTS - 1)).id, ..event(i) }, "the id `e0` occurs twice"),
            (
                &|i| Event { sequence: Some(Sequence(i / 300 + i / (EVENTS - 1))), ..event(i) },
                "`k/99` has 84, expected 83",
            ),
            (
                &|i| Event { recordedtime: if i < EVENTS - 1 { first_time } else { earlier }, ..event(i) },
                "recordedtime goes backwards",
            ),
        ];
        for (event, expected) in wrong {
            let dir = written(event);
            for limits in [NARROW, Limits::default()] {
                match verify_within(dir.path(), limits, |_| ()) {
                    Err(VerifyError::Log(OpenError::Damaged { path, offset, reason })) => {
                        assert!(path.extension().is_some_and(|ending| ending == "segment") && offset > 0);
                        assert_eq!(reason, format!("position {}: {expected}", EVENTS - 1));
                    }
                    other => panic!("{expected}: {other:?}"),
                }
            }
        }
    }
}
