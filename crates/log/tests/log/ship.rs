//! A copy on another disk goes on with its own log and with no other.

use std::sync::Arc;

use daybook_log::sim::SimDisk;
use daybook_log::{OpenError, Shipper};

use crate::load::{append, open};

fn ship(source: &SimDisk, copy: &SimDisk) -> Result<u64, OpenError> {
    let mut shipper = Shipper::open(Arc::new(source.clone()), Arc::new(copy.clone()))?;
    while shipper.ship(None)?.more {}
    Ok(shipper.next())
}

/// A log of `records` in one batch each, then `last` records in one batch.
fn log(records: u8, last: usize) -> SimDisk {
    let disk = SimDisk::default();
    let (mut log, ..) = open(&disk).unwrap();
    for i in 0..records {
        append(&mut log, &[vec![i; 100]]).unwrap();
        log.sync().unwrap();
    }
    append(&mut log, &vec![vec![last as u8; 100]; last]).unwrap();
    log.sync().unwrap();
    disk
}

/// The copy's end once lay inside a batch of the other history, which was taken for a
/// torn tail: nothing was copied, and it counted as done.
#[test]
fn a_copy_of_another_history_is_refused_wherever_its_batches_end() {
    for records in [1, 5, 30, 60] {
        for (ours, theirs) in [(1, 3), (3, 1), (2, 2), (1, 9)] {
            let copy = SimDisk::default();
            let shipped = ship(&log(records, ours), &copy).unwrap();
            assert_eq!(shipped, u64::from(records) + ours as u64);
            let mut other = log(records, theirs);
            if ours == theirs {
                // The same up to here: it goes on.
                assert_eq!(ship(&other, &copy).unwrap(), shipped);
                other = log(records + 1, theirs);
            }
            let error = ship(&other, &copy).unwrap_err().to_string();
            assert!(error.contains("another history"), "{records} and {ours}, then {theirs}: {error}");
        }
    }
}
