//! Group checkpoints: two files per group, written in turn, so that a torn
//! write leaves the one before. Their failures do not concern the log.
//!
//! # Promises
//! 1. A checkpoint that was confirmed, or that a store was opened with, is never
//!    lost again: what is found is written again and synced before it is used.
//!    The process before may have died before its sync, and a page that a failed
//!    sync left clean in memory would never reach the disk.
//! 2. Two files of a group that are both damaged are told, never taken for a new group.
//! 3. Space is claimed ahead: a state that grows little needs none of a full disk.
//!
//! # After a crash
//! One of the two files may be torn: the other one counts.
//!
//! # Not here
//! What a state says: whether it is of this log's past, who reads it checks.
//!
//! ```text
//! 0 8 magic "DAYBKCKP"   8 16 log id   24 8 counter   32 4 bytes of the name   36 4 bytes of the state
//! 40 4 CRC32C of all else   44 4 zero   48 name, state, anything
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, mpsc};

use daybook_log::{Disk, DiskFile, LogId, OpenError};
use tokio::sync::oneshot;

use crate::planted::{Bug, has};
use crate::{Answer, CheckpointError};

const MAGIC: [u8; 8] = *b"DAYBKCKP";
const HEADER: usize = 48;
/// A file's length is a multiple of this, …
const BLOCK: usize = 4096;
/// … and so many times what it first had to hold.
const AHEAD: usize = 2;
/// No checkpoint is as large: what a file claims is not believed beyond.
const FILE_BYTES_MAX: u64 = 256 << 20;

struct Save {
    group: String,
    bytes: Vec<u8>,
    reply: oneshot::Sender<Result<(), CheckpointError>>,
}

pub(super) struct Checkpoints {
    /// Told to whoever saves when nobody writes.
    gone: &'static str,
    saves: mpsc::Sender<Save>,
    loaded: Mutex<HashMap<String, Vec<u8>>>,
}

struct Writer {
    disk: Arc<dyn Disk>,
    log: LogId,
    /// Per group: its files' number and the counter last written.
    slots: HashMap<String, Slot>,
    next_number: u32,
    /// A power cut takes away none of the names.
    names_durable: bool,
}

#[derive(Clone, Copy)]
struct Slot {
    number: u32,
    counter: u64,
}

impl Slot {
    fn file(self) -> String {
        format!("{:06}.{}", self.number, if self.counter.is_multiple_of(2) { "a" } else { "b" })
    }
}

/// What a whole file says.
struct Whole {
    group: String,
    counter: u64,
    state: Vec<u8>,
}

/// What a group's newer file says, and where.
struct Found {
    slot: Slot,
    state: Vec<u8>,
}

impl Checkpoints {
    pub fn open(disk: Arc<dyn Disk>, log: LogId) -> Result<Self, OpenError> {
        let (found, next_number) = read(&*disk, log)?;
        let slots = found.iter().map(|(group, found)| (group.clone(), found.slot)).collect();
        let path = disk.path("");
        let mut writer = Writer { disk, log, slots, next_number, names_durable: false };
        writer.keep(&found)?;
        let (saves, inbox) = mpsc::channel::<Save>();
        std::thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || {
                while let Ok(save) = inbox.recv() {
                    let result = writer.save(&save.group, &save.bytes);
                    let group = save.group;
                    let _ =
                        save.reply.send(result.map_err(|e| CheckpointError { group, reason: e.to_string() }));
                }
            })
            .map_err(|source| OpenError::Io { what: "start the checkpoint writer of", path, source })?;
        let loaded = found.into_iter().map(|(group, found)| (group, found.state)).collect();
        Ok(Self { gone: "the store is closed", saves, loaded: Mutex::new(loaded) })
    }

    /// None are there, and none are taken.
    pub fn refused(why: &'static str) -> Self {
        Self { gone: why, saves: mpsc::channel().0, loaded: Mutex::default() }
    }

    pub fn save(&self, group: &str, bytes: Vec<u8>) -> Answer<Result<(), CheckpointError>> {
        let (reply, answer) = oneshot::channel();
        let (group, why) = (group.to_owned(), self.gone);
        let _ = self.saves.send(Save { group: group.clone(), bytes, reply });
        Box::pin(async move {
            let gone = |_| Err(CheckpointError { group, reason: why.into() });
            answer.await.unwrap_or_else(gone)
        })
    }

    /// What was there when the store was opened.
    pub fn loaded(&self) -> Vec<(String, Vec<u8>)> {
        let loaded = self.loaded.lock().expect("no code panics while it holds this lock");
        loaded.iter().map(|(group, state)| (group.clone(), state.clone())).collect()
    }
}

impl Writer {
    fn save(&mut self, group: &str, state: &[u8]) -> io::Result<()> {
        let known = self.slots.get(group).copied();
        let slot = known
            .map_or(Slot { number: self.next_number, counter: 1 }, |s| Slot { counter: s.counter + 1, ..s });
        let file = self.file(&slot.file())?;
        self.write(&*file, group, slot, state)?;
        if known.is_none() {
            // The other file too, while there is space.
            let twin = self.file(&Slot { counter: 0, ..slot }.file())?;
            claim(&*twin, HEADER + group.len() + state.len())?;
        }
        self.sync_names()?;
        if known.is_none() {
            self.next_number += 1;
        }
        self.slots.insert(group.to_owned(), slot);
        Ok(())
    }

    /// Makes durable what was found.
    fn keep(&mut self, found: &HashMap<String, Found>) -> Result<(), OpenError> {
        if found.is_empty() || has(Bug::FoundCheckpointUnsynced) {
            return Ok(());
        }
        for (group, Found { slot, state }) in found {
            let name = slot.file();
            let kept = self.disk.open(&name, false).and_then(|file| self.write(&*file, group, *slot, state));
            kept.map_err(|source| OpenError::Io { what: "write", path: self.disk.path(&name), source })?;
        }
        let path = self.disk.path("");
        self.sync_names().map_err(|source| OpenError::Io { what: "sync the directory", path, source })
    }

    fn file(&mut self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        match self.disk.open(name, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.names_durable = false;
                self.disk.open(name, true)
            }
            file => file,
        }
    }

    fn write(&self, file: &dyn DiskFile, group: &str, slot: Slot, state: &[u8]) -> io::Result<()> {
        let bytes = encode(self.log, group, slot.counter, state);
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "{} bytes are more than a checkpoint may have",
                bytes.len()
            )));
        }
        claim(file, bytes.len())?;
        // A shorter state leaves the old end behind it; the length in the header ends it.
        file.write_all_at(&bytes, 0)?;
        file.sync_data()
    }

    fn sync_names(&mut self) -> io::Result<()> {
        if !self.names_durable && !has(Bug::CheckpointNameUnsynced) {
            self.disk.sync_dir()?;
            self.names_durable = true;
        }
        Ok(())
    }
}

/// Zeros at the end of a file that is too short for `bytes`.
fn claim(file: &dyn DiskFile, bytes: usize) -> io::Result<()> {
    let len = file.len()?;
    if len >= bytes as u64 {
        return Ok(());
    }
    let size = (bytes * AHEAD).next_multiple_of(BLOCK) as u64;
    file.write_all_at(&vec![0; (size - len) as usize], len)
}

/// The newest state of each group, and the next free number.
fn read(disk: &dyn Disk, log: LogId) -> Result<(HashMap<String, Found>, u32), OpenError> {
    let mut found: HashMap<String, Found> = HashMap::new();
    let mut next_number = 0;
    for_each_file(disk, log, |_, number, content| {
        next_number = next_number.max(number.saturating_add(1));
        let Content::Whole(Whole { group, counter, state }, _) = content else { return };
        if found.get(&group).is_none_or(|known| known.slot.counter < counter) {
            found.insert(group, Found { slot: Slot { number, counter }, state });
        }
    })?;
    Ok((found, next_number))
}

/// What [`whole_files`] finds.
pub(super) struct Files {
    /// Name and bytes of each file that is whole.
    pub whole: Vec<(String, Vec<u8>)>,
    /// Some file is neither whole nor empty: cut off by a crash, or being written.
    pub torn: bool,
}

/// For a copy, and to see whether all is well.
pub(super) fn whole_files(disk: &dyn Disk, log: LogId) -> Result<Files, OpenError> {
    let mut files = Files { whole: Vec::new(), torn: false };
    for_each_file(disk, log, |name, _, content| match content {
        Content::Whole(_, bytes) => files.whole.push((name.to_owned(), bytes)),
        Content::Torn => files.torn = true,
        Content::Empty => {}
    })?;
    Ok(files)
}

/// The whole files that `read` finds while somebody writes, so that what was
/// confirmed before is among them. One file is read after the other: the newest may
/// have been the one not read yet, and be torn by the next but one save when it is.
/// So what was found beside a torn file counts only once it is found again: then
/// nothing had changed while that one was read. `again` is asked before each further try.
pub(super) fn confirmed_files(
    mut read: impl FnMut() -> Result<Files, OpenError>,
    mut again: impl FnMut() -> bool,
) -> Result<Vec<(String, Vec<u8>)>, OpenError> {
    let mut before = None;
    loop {
        match read() {
            Err(OpenError::Damaged { .. }) if again() => before = None,
            Ok(Files { whole, torn: true }) if before.as_ref() != Some(&whole) && again() => {
                before = Some(whole);
            }
            found => return found.map(|files| files.whole),
        }
    }
}

/// What a file holds.
enum Content {
    /// What it says, and its bytes.
    Whole(Whole, Vec<u8>),
    Torn,
    /// Space, claimed for a save to come.
    Empty,
}

/// Hands over each file's name, number and content.
fn for_each_file(
    disk: &dyn Disk,
    log: LogId,
    mut each: impl FnMut(&str, u32, Content),
) -> Result<(), OpenError> {
    let io = |what, name: &str, source| OpenError::Io { what, path: disk.path(name), source };
    let mut broken_before: Option<(u32, String)> = None;
    for name in disk.list().map_err(|e| io("list", "", e))? {
        let Some((number, _)) = name.split_once('.').filter(|(_, slot)| ["a", "b"].contains(slot)) else {
            continue;
        };
        let Ok(number) = number.parse::<u32>() else { continue };
        let bytes = bytes_of(disk, &name).map_err(|e| io("read", &name, e))?;
        let Some((owner, group, counter, state)) = decode(&bytes) else {
            if bytes.iter().all(|byte| *byte == 0) {
                each(&name, number, Content::Empty);
                continue;
            }
            each(&name, number, Content::Torn);
            // The other one is whole before this one is written.
            if let Some((_, twin)) = broken_before.filter(|(before, _)| *before == number) {
                let reason = format!(
                    "neither it nor `{twin}` holds a whole checkpoint; without both files the group would begin anew"
                );
                return Err(OpenError::Damaged { path: disk.path(&name), offset: 0, reason });
            }
            broken_before = Some((number, name));
            continue;
        };
        if owner != log {
            let reason = "the checkpoint belongs to another log".into();
            return Err(OpenError::NotALog { path: disk.path(&name), reason });
        }
        each(&name, number, Content::Whole(Whole { group, counter, state }, bytes));
    }
    Ok(())
}

fn bytes_of(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name, false)?;
    let len = file.len()?.min(FILE_BYTES_MAX);
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

pub(super) fn encode(log: LogId, group: &str, counter: u64, state: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    out[..8].copy_from_slice(&MAGIC);
    out[8..24].copy_from_slice(&log.0);
    out[24..32].copy_from_slice(&counter.to_le_bytes());
    out[32..36].copy_from_slice(&(group.len() as u32).to_le_bytes());
    out[36..40].copy_from_slice(&(state.len() as u32).to_le_bytes());
    out.extend_from_slice(group.as_bytes());
    out.extend_from_slice(state);
    let crc = crc32c::crc32c(&out);
    out[40..44].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(super) fn decode(bytes: &[u8]) -> Option<(LogId, String, u64, Vec<u8>)> {
    let header = bytes.first_chunk::<HEADER>()?;
    if header[..8] != MAGIC {
        return None;
    }
    let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (name_len, state_len) = (u32_at(32) as usize, u32_at(36) as usize);
    let mut whole = bytes.get(..HEADER.checked_add(name_len)?.checked_add(state_len)?)?.to_vec();
    whole[40..44].fill(0);
    if crc32c::crc32c(&whole) != u32_at(40) && !has(Bug::TornCheckpointTaken) {
        return None;
    }
    let mut id = [0; 16];
    id.copy_from_slice(&header[8..24]);
    let mut counter = [0; 8];
    counter.copy_from_slice(&header[24..32]);
    let group = String::from_utf8(whole[HEADER..HEADER + name_len].to_vec()).ok()?;
    Some((LogId(id), group, u64::from_le_bytes(counter), whole[HEADER + name_len..].to_vec()))
}

#[cfg(test)]
mod tests {
    use daybook_log::sim::SimDisk;

    use super::*;

    const LOG: LogId = LogId([7; 16]);

    fn writer(disk: &SimDisk) -> Writer {
        let disk = Arc::new(disk.clone());
        Writer { disk, log: LOG, slots: HashMap::new(), next_number: 0, names_durable: false }
    }

    fn loaded(disk: &SimDisk) -> Result<Vec<(String, Vec<u8>)>, OpenError> {
        Checkpoints::open(Arc::new(disk.clone()), LOG).map(|checkpoints| checkpoints.loaded())
    }

    fn flip(disk: &SimDisk, name: &str) {
        let mut bytes = disk.file(name).unwrap();
        bytes[HEADER] ^= 1;
        disk.put(name, bytes);
    }

    #[test]
    fn a_torn_file_leaves_the_checkpoint_before_it_and_two_are_damage() {
        let disk = SimDisk::default();
        let mut writer = writer(&disk);
        writer.save("g", b"first").unwrap();
        writer.save("g", b"second").unwrap();
        flip(&disk, "000000.a");
        assert_eq!(loaded(&disk).unwrap(), [("g".to_owned(), b"first".to_vec())]);
        flip(&disk, "000000.b");
        let refused = loaded(&disk).unwrap_err().to_string();
        assert!(refused.contains("000000.b") && refused.contains("000000.a"), "{refused}");
    }

    const FILES: [&str; 2] = ["000000.a", "000000.b"];

    /// Both files of a group at some moment, what was confirmed by then and what was begun.
    #[derive(Clone, Default)]
    struct Moment {
        files: [Option<Vec<u8>>; 2],
        confirmed: u64,
        begun: u64,
    }

    fn state(number: u64) -> Vec<u8> {
        b"state".repeat(12 * number as usize)
    }

    /// Moments of six saves: before, between and behind each few bytes that are written.
    fn moments() -> Vec<Moment> {
        const PIECE: usize = 64;
        let disk = SimDisk::default();
        let mut writer = writer(&disk);
        let (mut now, mut moments) = (Moment::default(), vec![Moment::default()]);
        for number in 1..=6 {
            now.begun = number;
            writer.save("g", &state(number)).unwrap();
            // The one that is written, then the other: claimed by a group's first save.
            for at in [number % 2, (number + 1) % 2] {
                let new = disk.file(FILES[at as usize]).unwrap();
                now.files[at as usize].get_or_insert_default().resize(new.len(), 0);
                for begin in (0..new.len()).step_by(PIECE) {
                    let piece = begin..new.len().min(begin + PIECE);
                    let torn = now.files[at as usize].as_mut().expect("made above");
                    if torn[piece.clone()] != new[piece.clone()] {
                        torn[piece.clone()].copy_from_slice(&new[piece]);
                        moments.push(now.clone());
                    }
                }
            }
            now.confirmed = number;
            moments.push(now.clone());
        }
        moments
    }

    /// A copy reads one file after the other, at any two moments. It once had an older
    /// checkpoint than was confirmed before, or none.
    #[test]
    fn a_copy_made_while_checkpoints_are_written_has_what_was_confirmed_before() {
        let moments = moments();
        let read = |first: &Moment, second: &Moment| {
            let source = SimDisk::default();
            for (name, bytes) in FILES.iter().zip([&first.files[0], &second.files[1]]) {
                bytes.iter().for_each(|bytes| source.put(name, bytes.clone()));
            }
            whole_files(&source, LOG)
        };
        let (mut none, mut older, mut torn, mut unreadable) = (0, 0, 0, 0);
        for (first, then) in moments.iter().enumerate() {
            for (second, later) in moments.iter().enumerate().skip(first) {
                match read(then, later) {
                    Ok(files) => torn += usize::from(files.torn),
                    Err(_) => unreadable += 1,
                }
                // If that is no answer, it reads again, and nobody writes any more.
                for last in &moments[second..] {
                    let context = format!("{first}, {second}, {} of {}", last.confirmed, last.begun);
                    let mut reads = [read(then, later)].into_iter();
                    let files = confirmed_files(|| reads.next().unwrap_or_else(|| read(last, last)), || true);
                    let copy = SimDisk::default();
                    for (name, bytes) in files.unwrap_or_else(|error| panic!("{context}: {error}")) {
                        copy.put(&name, bytes);
                    }
                    let found = loaded(&copy).unwrap().pop().map(|(_, state)| state).unwrap_or_default();
                    let number = (then.confirmed..=last.begun).find(|number| found == state(*number));
                    assert!(number.is_some(), "{context}: {} bytes", found.len());
                    none += usize::from(number == Some(0));
                    older += usize::from(number < Some(last.confirmed));
                }
            }
        }
        let met = [none, older, torn, unreadable];
        assert!(met.iter().all(|times| *times > 0), "never met: {met:?}");
    }

    #[test]
    fn a_checkpoint_of_another_log_is_refused() {
        let disk = SimDisk::default();
        writer(&disk).save("g", b"state").unwrap();
        assert!(Checkpoints::open(Arc::new(disk), LogId([2; 16])).is_err());
    }

    #[test]
    fn a_state_that_grows_little_needs_nothing_of_a_full_disk() {
        let disk = SimDisk::default();
        let mut writer = writer(&disk);
        writer.save("g", &[1; 5_000]).unwrap();
        disk.set_full(true);
        for i in 2..8 {
            writer.save("g", &vec![i; 5_000 + 400 * usize::from(i)]).unwrap();
        }
        writer.save("g", &[9; 50_000]).unwrap_err();
        assert_eq!(loaded(&disk.after_kill()).unwrap(), [("g".to_owned(), vec![7; 7_800])]);
        disk.set_full(false);
        writer.save("g", &[9; 50_000]).unwrap();
        assert_eq!(loaded(&disk.after_power_loss(1)).unwrap(), [("g".to_owned(), vec![9; 50_000])]);
    }

    #[test]
    fn a_file_that_claims_to_be_endless_is_no_checkpoint() {
        let disk = SimDisk::default();
        let mut bytes = encode(LOG, "g", 1, b"state");
        for (at, lens) in [(32, [u32::MAX, 5]), (36, [1, u32::MAX]), (32, [u32::MAX, u32::MAX])] {
            bytes[at..at + 4].copy_from_slice(&lens[(at - 32) / 4].to_le_bytes());
            disk.put("000000.b", bytes.clone());
            assert_eq!(loaded(&disk).unwrap(), []);
        }
    }
}
