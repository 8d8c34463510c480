//! The processes of a system under test: started here, measured through
//! `/proc`, ended by their own id and never by name.

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;

/// One server, which may have children of its own. Dropping it kills it.
pub struct Process {
    child: Mutex<Child>,
    id: u32,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it says goes to `log`, made anew.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Self { id: child.id(), child: Mutex::new(child), name: name.to_owned(), log: log.to_owned() })
    }

    /// Waits until `ready` yields something; fails at once when the process ends.
    pub async fn until<T>(&self, ready: impl AsyncFn(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(ready) = ready(&said).await {
                return Ok(ready);
            }
            if let Some(status) = self.ended()? {
                return Err(format!("{} ended at start ({status}): {}", self.name, said.trim()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("{} was not ready within a minute: {}", self.name, said.trim()).into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// User and system time of the process and its descendants.
    pub fn cpu(&self) -> Duration {
        let table = stats();
        ticks(family(&table, self.id).iter().map(|pid| table[pid].ticks).sum())
    }

    /// Resident bytes of the process and its descendants. Pages that several
    /// share are counted for each.
    pub fn rss(&self) -> u64 {
        let table = stats();
        let pages: u64 = family(&table, self.id).iter().map(|pid| table[pid].pages).sum();
        pages * rustix::param::page_size() as u64
    }

    /// Ends it with `signal`, and by force after a minute.
    pub fn end(&self, signal: Signal) -> Result<()> {
        if self.ended()?.is_none() {
            self.signal(self.id, signal);
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.ended()?.is_none() {
            if Instant::now() > deadline {
                self.kill()?;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Ends it and its descendants with no chance to clean up.
    pub fn kill(&self) -> Result<()> {
        if self.ended()?.is_none() {
            let family = family(&stats(), self.id);
            family.iter().for_each(|pid| self.signal(*pid, Signal::KILL));
            self.lock().wait()?;
        }
        Ok(())
    }

    fn ended(&self) -> Result<Option<ExitStatus>> {
        Ok(self.lock().try_wait()?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process that is gone already needs none.
    fn signal(&self, pid: u32, signal: Signal) {
        if let Some(pid) = Pid::from_raw(pid as i32) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// User and system time of this process.
pub fn own_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    ticks(stat.as_deref().and_then(parse).map_or(0, |stat| stat.own_ticks))
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

struct Stat {
    parent: u32,
    /// Without children.
    own_ticks: u64,
    ticks: u64,
    pages: u64,
}

fn stats() -> HashMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect()
}

/// See proc(5). The command in parentheses may hold anything.
fn parse(stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
    // 14 to 17: user and system time, its own and that of children it waited for.
    let ticks = (14..=17).filter_map(number).sum();
    let own_ticks = number(14)? + number(15)?;
    Some(Stat { parent: number(4)? as u32, own_ticks, ticks, pages: number(24)? })
}

fn family(table: &HashMap<u32, Stat>, root: u32) -> Vec<u32> {
    let mut found: Vec<u32> = table.contains_key(&root).then_some(root).into_iter().collect();
    let mut looked_at = 0;
    while let Some(&parent) = found.get(looked_at) {
        found.extend(table.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        looked_at += 1;
    }
    found
}

/// A port that is free right now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Bytes that the file system gave to everything below `dir`.
pub fn disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_under_its_parent_whatever_its_name() {
        let stat = parse("77 (a) b) S 5 77 77 0 -1 4194304 1 0 0 0 30 12 3 1 20 0 1 0 9 8192 21 1").unwrap();

        assert_eq!((stat.parent, stat.ticks, stat.pages), (5, 46, 21));
    }
}
