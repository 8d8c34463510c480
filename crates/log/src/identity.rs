//! Which log this is: `LOG`, read before anything is touched. Written
//! once, and again when a newer format is about to be.

use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::format::{FORMAT_VERSION, OLDEST_FORMAT, u32_at};
use crate::{Disk, OpenError};

/// 16 random bytes that name a log for ever; checkpoints carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId(pub [u8; 16]);

const FILE: &str = "LOG";
const MAGIC: [u8; 8] = *b"DAYBKLOG";
/// magic 8, format 4, log id 16, CRC32C 4
const BYTES: usize = 32;

/// What `LOG` says.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    pub id: LogId,
    /// No segment has a higher one.
    pub format: u32,
}

/// The log's identity; `None` if the directory holds none yet.
pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Identity>, OpenError> {
    let io = |what, source| OpenError::Io { what, path: disk.path(FILE), source };
    let names = disk.list().map_err(|source| OpenError::Io { what: "list", path: disk.path(""), source })?;
    if !names.iter().any(|name| name == FILE) {
        // Segments without identity: somebody's copy gone wrong, not an empty directory.
        if let Some(name) = names.iter().find(|name| name.ends_with(".segment")) {
            let reason = format!("the file `{FILE}` is missing beside segments");
            return Err(OpenError::NotALog { path: disk.path(name), reason });
        }
        return Ok(None);
    }
    let file = disk.open(FILE, false).map_err(|e| io("open", e))?;
    let not_a_log = |reason: &str| OpenError::NotALog { path: disk.path(FILE), reason: reason.into() };
    if file.len().map_err(|e| io("read", e))? < BYTES as u64 {
        return Err(not_a_log("it is too short"));
    }
    let mut bytes = [0; BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(|e| io("read", e))?;
    if bytes[..8] != MAGIC {
        return Err(not_a_log("it does not begin as one"));
    }
    let format = u32_at(&bytes, 8);
    if !(OLDEST_FORMAT..=FORMAT_VERSION).contains(&format) {
        return Err(other_format(disk, FILE, format));
    }
    if u32_at(&bytes, 28) != crc32c::crc32c(&bytes[..28]) {
        return Err(OpenError::Damaged {
            path: disk.path(FILE),
            offset: 0,
            reason: "its checksum is wrong".into(),
        });
    }
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[12..28]);
    Ok(Some(Identity { id: LogId(id), format }))
}

pub(crate) fn other_format(disk: &dyn Disk, name: &str, found: u32) -> OpenError {
    OpenError::OtherVersion { path: disk.path(name), found: found.to_string(), known: FORMAT_VERSION }
}

/// Before anything of this format is written into an older log: a program that
/// does not know it must not take it for damage.
pub(crate) fn bring_up_to_date(disk: &dyn Disk, known: Identity) -> Result<(), OpenError> {
    if known.format < FORMAT_VERSION { write(disk, known.id) } else { Ok(()) }
}

pub(crate) fn write(disk: &dyn Disk, id: LogId) -> Result<(), OpenError> {
    let io = |what, source| OpenError::Io { what, path: disk.path(FILE), source };
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..28].copy_from_slice(&id.0);
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    // Under another name first: a torn identity would look like a foreign file.
    let fresh = "LOG.new";
    let _ = disk.remove(fresh);
    let file = disk.open(fresh, true).map_err(|e| io("create", e))?;
    file.write_all_at(&bytes, 0).map_err(|e| io("write", e))?;
    file.sync_data().map_err(|e| io("sync", e))?;
    disk.rename(fresh, FILE).map_err(|e| io("rename", e))?;
    disk.sync_dir().map_err(|e| io("sync the directory of", e))
}

const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(25);

/// Holds `LOCK` against a second process for as long as it lives. The kernel
/// lets go of it when the process dies, however it dies.
pub struct Lock(std::fs::File);

impl Lock {
    /// For those who only read, with the right to do no more: a server is kept out, and
    /// refused if it is there, but other readers are not. On a disk that nobody can
    /// write to and nobody has served from there is nobody to keep out.
    pub fn take_to_read(dir: &Path) -> Result<Option<Self>, OpenError> {
        let refusal = match Self::take(dir) {
            Err(OpenError::Io { what, path, source }) => (what, path, source),
            lock => return lock.map(Some),
        };
        let (what, path, source) = refusal;
        let no_disk_to_write = source.kind() == io::ErrorKind::ReadOnlyFilesystem;
        if !no_disk_to_write && source.kind() != io::ErrorKind::PermissionDenied {
            return Err(OpenError::Io { what, path, source });
        }
        match std::fs::File::open(&path) {
            Ok(file) => Self::wait(dir, file, FlockOperation::NonBlockingLockShared).map(Some),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound && no_disk_to_write => Ok(None),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => {
                let why = "it keeps a server out meanwhile, and you may not write to the directory; let its owner make it, empty, or do this";
                Err(OpenError::Io { what: "make", path, source: io::Error::new(source.kind(), why) })
            }
            Err(source) => Err(OpenError::Io { what, path, source }),
        }
    }

    /// Whether somebody holds it, without patience.
    pub fn is_held(dir: &Path) -> bool {
        std::fs::File::open(dir.join("LOCK"))
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    }

    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("LOCK");
        let file =
            std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|source| OpenError::Io { what: "open", path, source })?;
        let mut lock = Self::wait(dir, file, FlockOperation::NonBlockingLockExclusive)?;
        // Who has it is a courtesy: on a full disk the log opens without.
        let _ = lock.0.set_len(0).and_then(|()| lock.0.rewind());
        let _ = write!(lock.0, "{}", std::process::id());
        Ok(lock)
    }

    /// A moment's patience: a process that is ending, or a child on its way to
    /// `exec`, may still hold it.
    fn wait(dir: &Path, mut file: std::fs::File, how: FlockOperation) -> Result<Self, OpenError> {
        for attempt in 0..=LOCK_TRIES {
            if attempt > 0 {
                std::thread::sleep(LOCK_PAUSE);
            }
            if flock(&file, how).is_ok() {
                return Ok(Self(file));
            }
        }
        let mut text = String::new();
        let _ = file.read_to_string(&mut text);
        Err(OpenError::InUse { path: dir.to_owned(), pid: text.trim().parse().ok() })
    }
}
