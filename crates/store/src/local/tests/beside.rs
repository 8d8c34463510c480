//! A log that is opened for reading while somebody writes to it.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use daybook_log::{Disk, DiskFile, RealDisk};
use daybook_model::Position;

use super::super::{Disks, EventStore, LocalStore, Options};
use super::{Fixture, OLD};

/// Shows a part of a segment as it was before, the first time that it is read: what was
/// written behind it meanwhile is seen. A file of the index that was listed is gone.
struct Behind {
    real: RealDisk,
    once: Arc<AtomicBool>,
    part: Range<usize>,
}

struct BehindFile(Arc<dyn DiskFile>, Arc<AtomicBool>, Range<usize>);

impl Disk for Behind {
    fn path(&self, name: &str) -> PathBuf {
        self.real.path(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.real.list()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        if name.ends_with(".run") && !self.once.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = self.real.open(name, create)?;
        Ok(Arc::new(BehindFile(file, self.once.clone(), self.part.clone())))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        unreachable!("nothing is written")
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        unreachable!("nothing is written")
    }

    fn sync_dir(&self) -> io::Result<()> {
        unreachable!("nothing is written")
    }
}

impl DiskFile for BehindFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)?;
        if buffer.len() > self.2.end && !self.1.swap(true, Ordering::SeqCst) {
            buffer[self.2.clone()].fill(0);
        }
        Ok(())
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unreachable!("nothing is written")
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!("nothing is written")
    }

    fn sync_data(&self) -> io::Result<()> {
        unreachable!("nothing is written")
    }
}

#[tokio::test]
async fn what_a_writer_changes_while_a_reader_opens_is_not_taken_for_damage() {
    let f = Fixture::new().await;
    f.merged().await;
    let data = f.data();
    let behind =
        |dir: &Path| Behind { real: RealDisk::read_only(dir), once: Arc::default(), part: 2_000..4_000 };
    let as_it_is = |dir: &Path| Arc::new(RealDisk::read_only(dir)) as Arc<dyn Disk>;
    let (index, groups) = (data.join("index"), data.join("groups"));
    let log: Arc<dyn Disk> = Arc::new(behind(&data));
    // An index of other events is none: all of the segment is read.
    let disks = [
        Disks { log, index: as_it_is(&data.join("nowhere")), groups: as_it_is(&groups) },
        Disks { log: as_it_is(&data), index: Arc::new(behind(&index)), groups: as_it_is(&groups) },
    ];
    for disks in disks {
        let reader = LocalStore::read_only_on(&data, disks, Options::default()).unwrap();
        assert_eq!(*reader.head().borrow(), Position(OLD));
    }
}
