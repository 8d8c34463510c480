//! The seam to the file system: everything the log does to disk goes through
//! here, so that a test can crash it at any call.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use crate::format::segment_of;

/// What disks and the page cache are written in: a part of one that is not in
/// memory has to be read first. No file system here has larger ones.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// A directory of files. Names have no slashes.
pub trait Disk: Send + Sync + 'static {
    /// For messages only.
    fn path(&self, name: &str) -> PathBuf;
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens for reading and writing; made if `create`, which then must not exist.
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
}

pub trait DiskFile: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// The same with bytes that nobody will read soon: what can goes to the disk
    /// without a copy in memory; false if it could not. Nobody else may use the
    /// file meanwhile.
    fn write_all_past_cache_at(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        self.write_all_at(bytes, offset)?;
        Ok(false)
    }
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Claims space for `len` bytes of an empty file, which then read as zeros:
    /// to write them needs no more. False, and nothing done, where that cannot
    /// be had without writing them.
    fn allocate(&self, _len: u64) -> io::Result<bool> {
        Ok(false)
    }
    /// Data and what is needed to find it.
    fn sync_data(&self) -> io::Result<()>;
}

/// The operating system's file system.
pub struct RealDisk {
    dir: PathBuf,
    read_only: bool,
}

impl RealDisk {
    /// Makes the directory and those above it if they are absent, durably.
    pub fn open(dir: &Path) -> io::Result<Self> {
        make_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), read_only: false })
    }

    /// Neither makes nor changes anything; a directory that is not there is empty.
    pub fn read_only(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), read_only: true }
    }

    fn writable(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }
}

impl Disk for RealDisk {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        if self.read_only && !self.dir.is_dir() {
            return Ok(names);
        }
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Whatever has a segment's name counts, a link to one on another disk too:
            // taken for absent, it would be taken for the end of the log.
            if !entry.file_type()?.is_dir() || segment_of(&name).is_some() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        if self.read_only {
            if create {
                self.writable()?;
            }
            return Ok(Arc::new(RealFile(fs::File::open(self.path(name))?)));
        }
        let file = fs::OpenOptions::new().read(true).write(true).create_new(create).open(self.path(name));
        let file = match file {
            // Still good to read from: a copy on a disk that is mounted read-only.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem && !create => {
                fs::File::open(self.path(name))
            }
            file => file,
        };
        Ok(Arc::new(RealFile(file?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.writable()?;
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.writable()?;
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.writable()?;
        fs::File::open(&self.dir)?.sync_all()
    }
}

/// Bytes that are free for us on the file system of `dir`.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = match dir.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    make_dir(above)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::File::open(above)?.sync_all()
}

struct RealFile(fs::File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    /// Some file systems cannot, and none takes parts of a block: then as usual.
    fn write_all_past_cache_at(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        let aligned = [bytes.as_ptr().addr() as u64, bytes.len() as u64, offset];
        let flags = rustix::fs::fcntl_getfl(&self.0)?;
        let whole = aligned.iter().all(|number| number.is_multiple_of(BLOCK_BYTES));
        let mut past_cache = whole && rustix::fs::fcntl_setfl(&self.0, flags | OFlags::DIRECT).is_ok();
        if past_cache {
            let written = self.0.write_all_at(bytes, offset);
            rustix::fs::fcntl_setfl(&self.0, flags)?;
            match written {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => past_cache = false,
                written => written?,
            }
        }
        if !past_cache {
            self.0.write_all_at(bytes, offset)?;
        }
        Ok(past_cache)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            allocated => Ok(allocated.map(|()| true)?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
