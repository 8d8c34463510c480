//! How far the reading of a whole log is, told to whoever waits for it.

use daybook_log::{Disk, Place};

/// One moment of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub events: u64,
    /// Of the log's files, from the first on.
    pub bytes: u64,
    /// Of all files that will be read.
    pub bytes_total: u64,
}

/// Where each segment begins if all were one file.
pub(super) struct Way {
    starts: Vec<u64>,
    /// What lies before is not read.
    from: u64,
    events: u64,
}

/// Events between two tellings.
const STEP: u64 = 10_000;

impl Way {
    /// Files that cannot be asked count as empty: this is only to look at.
    pub fn new(disk: &dyn Disk) -> Self {
        let names = disk.list().unwrap_or_default();
        let len = |name: &String| disk.open(name, false).and_then(|file| file.len()).unwrap_or(0);
        let mut starts = vec![0];
        for name in names.iter().filter(|name| name.ends_with(".segment")) {
            starts.push(starts[starts.len() - 1] + len(name));
        }
        Self { starts, from: 0, events: 0 }
    }

    /// Bytes of all files.
    pub fn total(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// The event at `place` was read; `tell` is called now and then.
    pub fn event(&mut self, place: Place, tell: impl FnOnce(Reached)) {
        let start = self.starts.get(place.segment as usize).copied().unwrap_or(0);
        let at = start + u64::from(place.offset);
        if self.events == 0 {
            self.from = at;
        }
        self.events += 1;
        if self.events.is_multiple_of(STEP) {
            let behind = |at: u64| at.saturating_sub(self.from);
            tell(Reached { events: self.events, bytes: behind(at), bytes_total: behind(self.total()) });
        }
    }
}
