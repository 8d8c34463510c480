//! A disk of one megabyte that can be made larger. Needs root; says so where it
//! cannot be had.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounted as a new directory at `path`.
    pub fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &path);
        if !mounted.status.success() {
            eprintln!("not run: a tmpfs cannot be mounted here ({mounted:?})");
            return None;
        }
        Some(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn enlarge(&self) {
        assert!(mount(&["-o", "remount,size=64m"], &self.0).status.success());
    }

    pub fn forbid_writing(&self) {
        assert!(mount(&["-o", "remount,ro"], &self.0).status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(args: &[&str], path: &Path) -> Output {
    Command::new("mount").args(args).arg(path).output().unwrap()
}
