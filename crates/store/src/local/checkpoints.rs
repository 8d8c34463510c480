//! Group checkpoints: two files per group, written in turn, so that a torn
//! write leaves the one before. Their failures do not concern the log.
//!
//! # Not here
//! What a state says: whether it is of this log's past, who reads it checks.
//!
//! ```text
//! 0 8 magic "DAYBKCKP"   8 16 log id   24 8 counter   32 4 bytes of the name   36 4 bytes of the state
//! 40 4 CRC32C of all else   44 4 zero   48 name, state
//! ```

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};

use daybook_log::LogId;
use tokio::sync::oneshot;

use crate::planted::{Bug, has};
use crate::{Answer, CheckpointError};
use daybook_log::OpenError;

const MAGIC: [u8; 8] = *b"DAYBKCKP";
const HEADER: usize = 48;

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
    dir: PathBuf,
    log: LogId,
    /// Per group: its files' number and the counter last written.
    slots: HashMap<String, Slot>,
    next_number: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    number: u32,
    counter: u64,
}

impl Checkpoints {
    pub fn open(dir: &Path, log: LogId) -> Result<Self, OpenError> {
        let dir = dir.join("groups");
        let io = |what, path: &Path, source| OpenError::Io { what, path: path.to_owned(), source };
        // Durably: a checkpoint must not vanish with its directory.
        daybook_log::RealDisk::open(&dir).map_err(|e| io("create", &dir, e))?;
        let mut writer = Writer { dir: dir.clone(), log, slots: HashMap::new(), next_number: 0 };
        let mut loaded: HashMap<String, (u64, Vec<u8>)> = HashMap::new();
        for entry in fs::read_dir(&dir).map_err(|e| io("list", &dir, e))? {
            let path = entry.map_err(|e| io("list", &dir, e))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let Some((number, _)) = name.split_once('.').filter(|(_, slot)| ["a", "b"].contains(slot)) else {
                continue;
            };
            let Ok(number) = number.parse::<u32>() else { continue };
            writer.next_number = writer.next_number.max(number + 1);
            let bytes = fs::read(&path).map_err(|e| io("read", &path, e))?;
            // A torn slot is expected; the other one counts then.
            let Some((owner, group, counter, state)) = decode(&bytes) else { continue };
            if owner != log {
                let reason = "the checkpoint belongs to another log".into();
                return Err(OpenError::NotALog { path, reason });
            }
            let slot = writer.slots.entry(group.clone()).or_insert(Slot { number, counter });
            slot.counter = slot.counter.max(counter);
            if loaded.get(&group).is_none_or(|(known, _)| *known < counter) {
                loaded.insert(group, (counter, state));
            }
        }
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
            .map_err(|e| io("start the checkpoint writer of", &dir, e))?;
        let loaded = loaded.into_iter().map(|(group, (_, state))| (group, state)).collect();
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
        let letter = if slot.counter % 2 == 0 { "a" } else { "b" };
        let path = self.dir.join(format!("{:06}.{letter}", slot.number));
        let is_new = !path.exists();
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        let bytes = encode(self.log, group, slot.counter, state);
        file.write_all(&bytes)?;
        // A shorter state leaves the old end behind it; the length in the header ends it.
        file.sync_data()?;
        if is_new {
            fs::File::open(&self.dir)?.sync_all()?;
        }
        if known.is_none() {
            self.next_number += 1;
        }
        self.slots.insert(group.to_owned(), slot);
        Ok(())
    }
}

/// Whether these are all bytes of one checkpoint.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    decode(bytes).is_some()
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
    use super::*;

    #[test]
    fn a_torn_slot_leaves_the_checkpoint_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogId([7; 16]);
        let mut writer =
            Writer { dir: dir.path().join("groups"), log, slots: HashMap::new(), next_number: 0 };
        fs::create_dir_all(&writer.dir).unwrap();
        writer.save("g", b"first").unwrap();
        writer.save("g", b"second").unwrap();
        let newest = writer.dir.join("000000.a");
        let mut bytes = fs::read(&newest).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&newest, bytes).unwrap();
        let loaded = Checkpoints::open(dir.path(), log).unwrap().loaded();
        assert_eq!(loaded, [("g".to_owned(), b"first".to_vec())]);
    }

    #[test]
    fn a_checkpoint_of_another_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer {
            dir: dir.path().join("groups"),
            log: LogId([1; 16]),
            slots: HashMap::new(),
            next_number: 0,
        };
        fs::create_dir_all(&writer.dir).unwrap();
        writer.save("g", b"state").unwrap();
        assert!(Checkpoints::open(dir.path(), LogId([2; 16])).is_err());
    }
}
