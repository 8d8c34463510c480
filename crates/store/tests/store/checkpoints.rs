//! Checkpoints on a disk that crashes and fails at any call, over several
//! processes: what was confirmed, and what a process was opened with, stays.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use daybook_log::sim::SimDisk;
use daybook_log::suite::Suite;
use daybook_store::EventStore;
use daybook_store::local::{Disks, LocalStore, OpenError, Options};

const GROUPS: [&str; 2] = ["g", "h"];
const SAVES: u64 = 3;

/// A process that saves; what it was opened with and what was confirmed to it.
#[derive(Default)]
struct Life {
    /// By group, the least that must be there from now on.
    kept: BTreeMap<String, u64>,
    confirmed: bool,
}

fn open(log: &SimDisk, groups: &SimDisk) -> Result<(LocalStore, tempfile::TempDir), OpenError> {
    let dir = tempfile::tempdir().unwrap();
    let index = Arc::new(SimDisk::default());
    let disks = Disks { log: Arc::new(log.clone()), index, groups: Arc::new(groups.clone()) };
    let options = Options { first_segment_bytes: 4 << 10, segment_bytes: 4 << 10, ..Options::default() };
    LocalStore::open_on(dir.path(), disks, options).map(|store| (store, dir))
}

async fn found(store: &LocalStore) -> BTreeMap<String, u64> {
    let number = |bytes: &[u8]| str::from_utf8(bytes).unwrap().trim().parse().unwrap();
    store.checkpoints().await.unwrap().iter().map(|(group, bytes)| (group.clone(), number(bytes))).collect()
}

/// States of different lengths: some grow beyond what was claimed.
fn state(number: u64) -> Vec<u8> {
    format!("{number:>width$}", width = 10 + 3_000 * (number as usize % 3)).into_bytes()
}

async fn live(log: &SimDisk, groups: &SimDisk) -> Life {
    let mut life = Life::default();
    let Ok((store, _dir)) = open(log, groups) else { return life };
    life.kept = found(&store).await;
    let begin = life.kept.clone();
    for i in 1..=SAVES {
        for group in GROUPS {
            let number = begin.get(group).unwrap_or(&0) + i;
            // One that fails is no reason to stop: the next may succeed.
            if store.save_checkpoint(group, state(number)).await.is_ok() {
                life.kept.insert(group.to_owned(), number);
                life.confirmed = true;
            }
        }
    }
    store.close().await;
    life
}

/// At least that is there after a power cut.
async fn check(log: &SimDisk, groups: &SimDisk, kept: &BTreeMap<String, u64>, context: &str) {
    let (store, _dir) = open(log, groups).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = found(&store).await;
    for (group, least) in kept {
        let number = found.get(group).unwrap_or_else(|| panic!("{context}: nothing is left of {group}"));
        assert!(number >= least, "{context}: {group} is at {number}, and {least} was kept");
    }
    store.close().await;
}

#[tokio::test]
async fn a_checkpoint_that_was_confirmed_or_served_is_never_lost() {
    let phases = [
        "power lost",
        "killed",
        "EIO",
        "ENOSPC",
        "in the second process",
        "confirmed before",
        "served what was not confirmed",
    ];
    let mut suite = Suite::begin("checkpoints under crashes and errors", &phases);
    let (log, calm) = (SimDisk::default(), SimDisk::default());
    live(&log, &calm).await;
    let calls = calm.calls();
    for seed in suite.seeds(1, 4) {
        for (call, fault) in (1..=calls).flat_map(|call| (0..4).map(move |fault| (call, fault))) {
            suite.case();
            let groups = SimDisk::default();
            let what = match fault {
                0 | 1 => {
                    groups.crash_at(call);
                    ["power lost", "killed"][fault]
                }
                2 => {
                    groups.fail_at(call, ErrorKind::Other);
                    "EIO"
                }
                _ => {
                    groups.fail_at(call, ErrorKind::StorageFull);
                    "ENOSPC"
                }
            };
            suite.hit(what);
            let first = live(&log, &groups).await;
            if first.confirmed {
                suite.hit("confirmed before");
            }
            let context = format!("{what} at call {call} ({:?})", groups.failed());
            check(&log, &groups.after_power_loss(seed ^ call << 32), &first.kept, &context).await;
            // The next process finds what is in memory, goes on, and then goes down with
            // the machine: at any call of its own.
            let begin =
                if what == "power lost" { groups.after_power_loss(seed) } else { groups.after_kill() };
            for second_call in (1 + (seed + call) % 5..calls).step_by(suite.pick(9, 2) as usize) {
                suite.case();
                let groups = begin.after_kill();
                groups.crash_at(second_call);
                let mut kept = first.kept.clone();
                let second = live(&log, &groups).await;
                if second.kept.iter().any(|(group, number)| first.kept.get(group) != Some(number)) {
                    suite.hit("served what was not confirmed");
                }
                kept.extend(second.kept);
                suite.hit("in the second process");
                let context = format!("{context}, then power lost at call {second_call}");
                let after = groups.after_power_loss(seed ^ second_call << 32 ^ call << 48);
                check(&log, &after, &kept, &context).await;
            }
        }
    }
    suite.end();
}
