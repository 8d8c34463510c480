//! Reading everything and believing nothing: is the log whole, are the groups'
//! checkpoints, and is the index right about the log? Nothing is written but the lock.

mod indexes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use daybook_log::{Lock, Log, OpenError, RealDisk};
use daybook_model::Position;
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use super::reached::{Reached, Way};
use super::{checkpoints, codec, restoring};
use indexes::Indexes;

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
pub fn verify(dir: &Path, mut progress: impl FnMut(Reached)) -> Result<Verified, VerifyError> {
    let disk = Arc::new(RealDisk::read_only(dir));
    let no_log = || VerifyError::NoLog(dir.to_owned());
    let id = Log::identify(&*disk)?.ok_or_else(no_log)?;
    let _lock = Lock::take_to_read(dir)?;
    restoring::refuse_unfinished(dir)?;
    let mut found = Verified::default();
    let mut ids: HashSet<u64> = HashSet::new();
    let mut next: HashMap<Box<str>, u64> = HashMap::new();
    let mut last_time = i64::MIN;
    let mut way = Way::new(&*disk);
    let mut indexes = Indexes::of(dir, disk.clone(), id)?;
    let mut reached = Reached { events: 0, bytes: 0, bytes_total: way.total() };
    // An error of the index's, which is none of the log's record.
    let mut trouble = None;
    let checked = Log::verify(&*disk, |position, place, body| {
        let (event, _) = codec::decode(Position(position), body).map_err(|e| e.to_string())?;
        // 64 bits of hash: two of a billion ids are alike once in forty logs.
        if !ids.insert(xxhash_rust::xxh3::xxh3_64(event.id.as_bytes())) {
            return Err(format!("position {position}: the id `{}` occurs twice", event.id));
        }
        if event.recordedtime.0 < last_time {
            return Err(format!("position {position}: recordedtime goes backwards"));
        }
        last_time = event.recordedtime.0;
        if let (Some(subject), Some(sequence)) = (&event.subject, event.sequence) {
            let expected = next.get(subject.as_str()).copied().unwrap_or(0);
            if sequence.0 != expected {
                return Err(format!("position {position}: `{subject}` has {sequence}, expected {expected}"));
            }
            match next.get_mut(subject.as_str()) {
                Some(known) => *known += 1,
                None => drop(next.insert(subject.as_str().into(), 1)),
            }
        }
        found.bytes += body.len() as u64;
        let told = indexes.event(&event, place, &mut |read, bytes| progress(reached.and(read, bytes)));
        told.map_err(|error| trouble.insert(error).to_string())?;
        way.event(place, |at| {
            reached = at;
            let (read, bytes) = indexes.read();
            progress(reached.and(read, bytes));
        });
        Ok(())
    });
    if let Some(error) = trouble {
        return Err(error.into());
    }
    let checked = checked?.ok_or_else(no_log)?;
    found.events = checked.next;
    found.torn_bytes = checked.cut_bytes;
    found.keys = next.len() as u64;
    checkpoints::whole_files(&RealDisk::read_only(&dir.join("groups")), checked.id)?;
    found.runs = indexes.done(found.events, &mut |read, bytes| progress(reached.and(read, bytes)))?;
    Ok(found)
}
