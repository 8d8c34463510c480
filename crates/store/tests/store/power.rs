//! Real power loss: ext4 on a loop device, shut down without a flush by the
//! ioctl that its own tests use. What was not synced is gone, as far as ext4 and
//! the kernel are concerned. Needs root; says so where it cannot run.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use daybook_log::sim::Random;
use daybook_log::suite::Suite;
use daybook_store::EventStore;
use daybook_store::local::{LocalStore, Options, verify};

use crate::child::{Told, Writer, check};

const CYCLES_PER_LOG: u64 = 10;

/// `EXT4_IOC_SHUTDOWN` with "no flush of the journal"; Rust would need `unsafe` for it.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

fn run(command: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(command).args(args).output().map_err(|e| format!("`{command}`: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "`{command} {}`: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A file system of its own.
struct Loop {
    dir: tempfile::TempDir,
    device: String,
}

impl Loop {
    fn new() -> Result<Self, String> {
        if run("id", &["-u"])? != "0" {
            return Err("it needs root for a loop device".into());
        }
        run("python3", &["--version"])?;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let image = dir.path().join("image");
        let file = std::fs::File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(96 << 20).map_err(|e| e.to_string())?;
        std::fs::create_dir(dir.path().join("mount")).map_err(|e| e.to_string())?;
        let device = run("losetup", &["--find", "--show", &image.display().to_string()])?;
        let made = Self { dir, device };
        run("mkfs.ext4", &["-q", "-F", &made.device])?;
        made.mount()?;
        Ok(made)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn mount(&self) -> Result<String, String> {
        run("mount", &[&self.device, &self.path().display().to_string()])
    }

    fn unmount(&self) -> Result<String, String> {
        run("umount", &[&self.path().display().to_string()])
    }

    fn lose_power(&self) -> Result<String, String> {
        run("python3", &["-c", SHUTDOWN, &self.path().display().to_string()])
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = self.unmount();
        let _ = run("losetup", &["--detach", &self.device]);
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_a_power_loss_on_ext4() {
    let phases = ["under load", "on an older log", "a checkpoint saved"];
    let mut suite = Suite::begin("power loss on a loop-mounted ext4", &phases);
    let mut disk = match Loop::new() {
        Ok(disk) => disk,
        Err(why) => return suite.skip(&why),
    };
    let mut all = Told::default();
    for (cycle, seed) in (0u64..).zip(suite.seeds(2, 100)) {
        suite.case();
        if cycle > 0 && cycle % CYCLES_PER_LOG == 0 {
            disk = Loop::new().unwrap();
            all = Told::default();
        }
        if !all.acknowledged.is_empty() {
            suite.hit("on an older log");
        }
        let data = disk.path().join("deep/data");
        let writer = Writer::start(&data, &[]);
        let pause = 80 + Random::new(seed).below(200) as u64;
        std::thread::sleep(Duration::from_millis(pause));
        disk.lose_power().unwrap();
        let told = writer.kill();
        for (hit, phase) in
            [(!told.acknowledged.is_empty(), "under load"), (!told.saved.is_empty(), "a checkpoint saved")]
        {
            if hit {
                suite.hit(phase);
            }
        }
        all.acknowledged.extend(told.acknowledged);
        all.saved.extend(told.saved);
        disk.unmount().unwrap();
        disk.mount().unwrap();
        check(&data, &all, &format!("power loss {cycle}, {pause} ms after the start")).await;
    }
    suite.end();
}

#[tokio::test]
async fn a_log_on_a_read_only_mount_is_refused_by_name_verified_and_read() {
    let mut suite = Suite::begin("read-only mount", &["refused", "verified", "read"]);
    let disk = match Loop::new() {
        Ok(disk) => disk,
        Err(why) => return suite.skip(&why),
    };
    suite.case();
    let data = disk.path().join("data");
    let writer = Writer::start(&data, &[]);
    std::thread::sleep(Duration::from_millis(300));
    let told = writer.kill();
    check(&data, &told, "before it became read-only").await;
    // Busy for as long as the kernel still closes what the process had open.
    let mut tries = 0..200;
    while let Err(why) = run("mount", &["-o", "remount,ro", &disk.path().display().to_string()]) {
        assert!(tries.next().is_some(), "{why}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let refused = LocalStore::open(&data, Options::default()).err().unwrap().to_string();
    assert!(refused.contains(&data.display().to_string()) && refused.contains("ead-only"), "{refused}");
    suite.hit("refused");
    let verified = verify(&data, |_| ()).unwrap();
    assert!(verified.events >= told.acknowledged.len() as u64);
    suite.hit("verified");
    let store = LocalStore::open_read_only(&data, Options::default()).unwrap();
    assert_eq!(store.head().borrow().0, verified.events);
    suite.hit("read");
    suite.end();
}
