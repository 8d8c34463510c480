//! Directories that are not what they should be, and a disk that does not let
//! itself be written: each is told by name, none costs data.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use daybook_log::sim::SimDisk;
use daybook_log::{Disk, DiskFile, FORMAT_VERSION, Log, OpenError, RealDisk};

use crate::load::{Load, append, open};
use crate::options;

/// A log of several segments, stopped in peace, and its records.
fn full() -> (SimDisk, Vec<Vec<u8>>) {
    let disk = SimDisk::default();
    let outcome = Load(3).run(&disk);
    (disk, outcome.issued.concat())
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.ends_with(".segment")).collect()
}

fn refusal(disk: &SimDisk) -> OpenError {
    let names = disk.list().unwrap();
    let files: Vec<_> = names.iter().map(|name| disk.file(name)).collect();
    let Err(error) = open(disk) else { panic!("opened") };
    assert_eq!(disk.list().unwrap(), names, "{error}: but files came or went");
    assert_eq!(names.iter().map(|name| disk.file(name)).collect::<Vec<_>>(), files, "{error}: but it wrote");
    error
}

#[test]
fn a_missing_segment_is_damage_wherever_it_was() {
    let (disk, _) = full();
    let segments = segments(&disk);
    assert!(segments.len() > 3);
    for missing in &segments[..segments.len() - 1] {
        let copy = disk.after_kill();
        copy.remove(missing).unwrap();
        assert!(matches!(refusal(&copy), OpenError::Damaged { .. }), "{missing}");
    }
}

#[test]
fn a_file_cut_short_anywhere_is_told() {
    let (disk, _) = full();
    for name in disk.list().unwrap().iter().filter(|name| *name != "spare") {
        let bytes = disk.file(name).unwrap();
        for len in (0..bytes.len()).step_by(if name == "LOG" { 1 } else { 13 }) {
            let copy = disk.after_kill();
            copy.put(name, bytes[..len].to_vec());
            let error = refusal(&copy).to_string();
            assert!(error.contains(name), "{name} cut to {len}: {error}");
        }
    }
}

#[test]
fn files_of_other_names_are_left_alone() {
    let (disk, records) = full();
    let names =
        ["notes.txt", "+000000001.segment", "1.segment", "0000000000.segment.bak", "00000000aa.segment"];
    for name in names {
        disk.put(name, b"precious".to_vec());
    }
    assert!(open(&disk).unwrap().2 == records);
    for name in names {
        assert_eq!(disk.file(name).unwrap(), b"precious");
    }
}

#[test]
fn a_segment_far_ahead_is_refused() {
    let (disk, _) = full();
    disk.put("0000000099.segment", vec![0; 4096]);
    let error = refusal(&disk).to_string();
    assert!(error.contains("0000000099.segment") && error.contains("missing before it"), "{error}");
}

#[test]
fn segments_without_their_identity_are_refused() {
    let (disk, _) = full();
    disk.remove("LOG").unwrap();
    assert!(matches!(refusal(&disk), OpenError::NotALog { .. }));
}

#[test]
fn a_log_from_the_future_is_refused_with_both_numbers_and_untouched() {
    let (disk, _) = full();
    let mut identity = disk.file("LOG").unwrap();
    identity[8] = FORMAT_VERSION as u8 + 1;
    disk.put("LOG", identity);
    let error = refusal(&disk);
    assert!(matches!(&error, OpenError::OtherVersion { known: FORMAT_VERSION, .. }));
    assert!(error.to_string().contains(&format!("format {}", FORMAT_VERSION + 1)), "{error}");
}

#[test]
fn a_segment_from_the_future_is_refused_also_when_it_is_empty() {
    let (disk, _) = full();
    let last = segments(&disk).pop().unwrap();
    let begun = |bytes: &[u8]| {
        let mut header = bytes[..64].to_vec();
        header[8] = FORMAT_VERSION as u8 + 1;
        let crc = crc32c::crc32c(&header[..60]);
        header[60..64].copy_from_slice(&crc.to_le_bytes());
        [header, bytes[64..].to_vec()].concat()
    };
    let bytes = disk.file(&last).unwrap();
    for bytes in [begun(&bytes), begun(&[&bytes[..64], &vec![0; bytes.len() - 64]].concat())] {
        let copy = disk.after_kill();
        copy.put(&last, bytes);
        let error = refusal(&copy);
        assert!(matches!(&error, OpenError::OtherVersion { .. }), "{error}");
        assert!(error.to_string().contains(&last), "{error}");
    }
}

/// Headers with right checksums and lengths that nobody can have.
#[test]
fn no_length_on_disk_is_believed() {
    let (disk, records) = full();
    let last = segments(&disk).pop().unwrap();
    let bytes = disk.file(&last).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let end = end.next_multiple_of(8);
    let previous = &bytes[end - 96..end];
    assert!(previous.starts_with(b"DBba"), "the log ends in a mark");
    for (count, body, record) in
        [(1, u32::MAX, 0), (u32::MAX, 8, 0), (1, 8, u32::MAX), (1, 256 << 20, 256 << 20), (0, u32::MAX, 0)]
    {
        let mut header = previous.to_vec();
        header[8..16].copy_from_slice(&(end as u64).to_le_bytes());
        header[24..28].copy_from_slice(&u32::to_le_bytes(count));
        header[28..32].copy_from_slice(&u32::to_le_bytes(body));
        let crc = crc32c::crc32c(&header[..92]);
        header[92..96].copy_from_slice(&crc.to_le_bytes());
        let mut bad = bytes.clone();
        bad[end..end + 96].copy_from_slice(&header);
        bad[end + 96..end + 100].copy_from_slice(&u32::to_le_bytes(record));
        let copy = disk.after_kill();
        copy.put(&last, bad);
        // Nothing vouches for it: it is no batch, and cut off.
        let (_, recovered, found) = open(&copy).unwrap();
        assert!(found == records && recovered.cut_bytes > 0, "count {count}, {body} bytes, {record}");
    }
}

/// A disk whose segments claim to be as long as anything can be.
struct Endless(SimDisk);
struct EndlessFile(Arc<dyn DiskFile>);

impl Disk for Endless {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(EndlessFile(self.0.open(name, create)?)))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}

impl DiskFile for EndlessFile {
    fn len(&self) -> io::Result<u64> {
        Ok(1 << 63)
    }
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[test]
fn a_file_of_2_to_the_63_bytes_is_refused_before_it_is_read() {
    let (disk, _) = full();
    let refused = Log::open(Arc::new(Endless(disk)), options(), |_, _, _| Ok(())).err().unwrap();
    assert!(refused.to_string().contains("0000000000.segment"), "{refused}");
    assert!(refused.to_string().contains("longer than any segment"), "{refused}");
}

#[test]
fn a_read_only_disk_is_told_and_can_still_be_verified() {
    let (disk, records) = full();
    disk.set_read_only();
    let error = refusal(&disk);
    assert!(matches!(&error, OpenError::Io { path, .. } if path.starts_with("sim")), "{error}");
    let mut found = Vec::new();
    Log::verify(&disk, |_, _, body| {
        found.push(body.to_vec());
        Ok(())
    })
    .unwrap();
    assert!(found == records);
}

#[test]
fn a_full_disk_holds_up_neither_opening_nor_reading_a_log_and_refuses_a_new_one() {
    let (disk, records) = full();
    disk.set_full(true);
    assert!(open(&disk).unwrap().2 == records);
    let empty = SimDisk::default();
    empty.set_full(true);
    assert!(refusal_of_new(&empty).contains("LOG"));
    empty.set_full(false);
    assert!(open(&empty).unwrap().2.is_empty());
}

fn refusal_of_new(disk: &SimDisk) -> String {
    open(disk).err().unwrap().to_string()
}

#[test]
fn a_batch_beyond_the_limit_is_refused_and_the_log_goes_on() {
    let disk = SimDisk::default();
    let (mut log, ..) = open(&disk).unwrap();
    let large = vec![0; 129 << 20];
    let refused = log.append([large.as_slice(), large.as_slice()].into_iter()).unwrap_err();
    assert!(matches!(refused, daybook_log::Error::TooLarge { .. }));
    let batch = Load(0).batch(0);
    append(&mut log, &batch).unwrap();
    log.sync().unwrap();
    assert_eq!(open(&disk.after_power_loss(3)).unwrap().2, batch);
}

#[test]
fn a_directory_opened_for_reading_only_gives_files_that_nobody_can_write_to() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("LOG"), b"precious").unwrap();
    let disk = RealDisk::read_only(dir.path());
    let file = disk.open("LOG", false).unwrap();
    assert!(file.write_all_at(b"worthless", 0).is_err());
    assert!(file.set_len(0).is_err());
    assert!(disk.open("spare", true).is_err());
    assert_eq!(disk.list().unwrap(), ["LOG"]);
    assert_eq!(std::fs::read(dir.path().join("LOG")).unwrap(), b"precious");
}
