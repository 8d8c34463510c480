//! Reading everything and believing nothing: is the log whole, are the groups'
//! checkpoints, and is the index right about the log? Nothing is written but the lock.

use std::path::{Path, PathBuf};

use daybook_log::{Disk, Lock, Log, OpenError, Place, RealDisk};
use daybook_model::Position;
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use super::index::Run;
use super::reached::{Reached, Way};
use super::{checkpoints, codec, restoring};

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
    #[error("the index file {} is wrong at offset {offset}: {reason}; delete it, it is made again from the log", path.display())]
    Index { path: PathBuf, offset: u64, reason: String },
}

/// Checks the log of `dir`, which must not be open. `progress` is told how far it is.
pub fn verify(dir: &Path, mut progress: impl FnMut(Reached)) -> Result<Verified, VerifyError> {
    let disk = RealDisk::read_only(dir);
    if Log::identify(&disk)?.is_none() {
        return Err(VerifyError::NoLog(dir.to_owned()));
    }
    let _lock = Lock::take_to_read(dir)?;
    restoring::refuse_unfinished(dir)?;
    let io = |what, source| OpenError::Io { what, path: dir.to_owned(), source };
    let mut found = Verified::default();
    let mut places: Vec<Place> = Vec::new();
    let mut ids: HashSet<u64> = HashSet::new();
    let mut next: HashMap<Box<str>, u64> = HashMap::new();
    let mut last_time = i64::MIN;
    let mut way = Way::new(&disk);
    let checked = Log::verify(&disk, |position, place, body| {
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
        places.push(place);
        way.event(place, &mut progress);
        Ok(())
    })?;
    let Some(checked) = checked else { return Err(VerifyError::NoLog(dir.to_owned())) };
    found.events = checked.next;
    found.torn_bytes = checked.cut_bytes;
    found.keys = next.len() as u64;
    checkpoints::whole_files(&RealDisk::read_only(&dir.join("groups")), checked.id)?;
    let index = dir.join("index");
    if index.is_dir() {
        let disk = RealDisk::read_only(&index);
        for name in disk.list().map_err(|e| io("list the index in", e))? {
            if name.ends_with(".run") {
                let wrong = |(offset, error): (u64, std::io::Error)| VerifyError::Index {
                    path: index.join(&name),
                    offset,
                    reason: error.to_string(),
                };
                let run = Run::open(&disk, &name, checked.id).map_err(|error| wrong((0, error)))?;
                run.verify(&places).map_err(wrong)?;
                found.runs += 1;
            }
        }
    }
    Ok(found)
}
