//! The runs that are there when the store is opened.

use std::io;
use std::sync::Arc;

use daybook_log::{Disk, LogId, SealedSegment};

use super::run::{self, Run};

/// Consecutive from position 0, oldest first.
pub(crate) type Runs = Arc<[Arc<Run>]>;

#[derive(Default)]
pub(crate) struct OpenedRuns {
    pub runs: Runs,
    /// Segments that the runs cover to their end: the log need not be read there.
    pub sealed: Vec<SealedSegment>,
    /// What was left out, and why: it is made again.
    pub dropped: Vec<String>,
}

/// Takes the longest chain of good runs and removes every other file.
pub(crate) fn open_runs(disk: &dyn Disk, log: LogId) -> io::Result<OpenedRuns> {
    let names = disk.list()?;
    let mut known: Vec<(u64, u64, &String)> =
        names.iter().filter_map(|name| run::range_of(name).map(|(base, end)| (base, end, name))).collect();
    // At each position the longest first: it replaced the others.
    known.sort_by_key(|(base, end, _)| (*base, std::cmp::Reverse(*end)));
    let mut runs: Vec<Arc<Run>> = Vec::new();
    let mut dropped = Vec::new();
    for (base, _, name) in known {
        if base != runs.last().map_or(0, |run| run.end) {
            continue;
        }
        match Run::open(disk, name, log) {
            Ok(run) => runs.push(Arc::new(run)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                dropped.push(format!("{name}: {error}"))
            }
            Err(error) => return Err(error),
        }
    }
    let sealed = loop {
        match sealed(&runs) {
            Ok(sealed) => break sealed,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let run = runs.pop().map(|run| run.name.clone()).unwrap_or_default();
                dropped.push(format!("{run}: {error}"));
            }
            Err(error) => return Err(error),
        }
    };
    for name in &names {
        let ours = name.ends_with(".run") || name.ends_with(".tmp");
        if ours && !runs.iter().any(|run| run.name == **name) {
            disk.remove(name)?;
        }
    }
    Ok(OpenedRuns { runs: runs.into(), sealed, dropped })
}

/// A segment is sealed if the runs know the first position of the next one.
fn sealed(runs: &[Arc<Run>]) -> io::Result<Vec<SealedSegment>> {
    let mut starts: Vec<(u32, u64)> = runs.iter().flat_map(|run| run.segments.iter().copied()).collect();
    // One that spans two runs is named by both.
    starts.dedup_by_key(|(segment, _)| *segment);
    // The last event is asked for at once; better to notice here.
    if let Some(last) = runs.last() {
        last.places(last.end - 1)?;
    }
    let mut sealed = Vec::new();
    for pair in starts.windows(2) {
        let ((segment, base), (_, next)) = (pair[0], pair[1]);
        let run = runs.iter().find(|run| (run.base..run.end).contains(&(next - 1)));
        let last = run.map(|run| run.places(next - 1)).transpose()?;
        let Some(last) = last.and_then(|places| places.first().copied()) else {
            return Err(run::damaged("its segment table is wrong"));
        };
        sealed.push(SealedSegment::ending_with(segment, base, next, last));
    }
    Ok(sealed)
}
