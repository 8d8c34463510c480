//! The processes of a run: started, signalled, and none left behind.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::actor::{CALM, Role};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Kill,
    Stop,
    Continue,
    Terminate,
}

pub struct Processes {
    folder: PathBuf,
    seed: u64,
    bus: SocketAddr,
    all: BTreeMap<String, Process>,
}

struct Process {
    what: Program,
    boots: u64,
    child: Option<Child>,
}

enum Program {
    Server(PathBuf),
    Actor(Role),
}

/// How long a process may take to go when it is asked.
const GOODBYE: Duration = Duration::from_secs(10);

impl Processes {
    pub fn new(folder: &Path, seed: u64, bus: SocketAddr) -> Self {
        Self { folder: folder.to_owned(), seed, bus, all: BTreeMap::new() }
    }

    pub fn add_server(&mut self, name: &str, binary: &Path) {
        self.add(name, Program::Server(binary.to_owned()));
    }

    pub fn add_actor(&mut self, name: &str, role: Role) {
        self.add(name, Program::Actor(role));
    }

    fn add(&mut self, name: &str, what: Program) {
        self.all.insert(name.to_owned(), Process { what, boots: 0, child: None });
    }

    pub fn names(&self) -> Vec<String> {
        self.all.keys().cloned().collect()
    }

    /// A new process of this name, once the one before has ended.
    pub fn start(&mut self, name: &str) -> io::Result<()> {
        let Some(process) = self.all.get_mut(name) else { return Ok(()) };
        if let Some(before) = process.child.take() {
            end(before);
        }
        process.boots += 1;
        let said =
            OpenOptions::new().create(true).append(true).open(self.folder.join(format!("{name}.log")))?;
        let mut command = match &process.what {
            Program::Server(binary) => {
                let mut command = Command::new(binary);
                command.arg("serve").arg("--data").arg(self.folder.join("data"));
                command.args(["--listen", &self.bus.to_string()]);
                command
            }
            Program::Actor(role) => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["actor", &role.to_string(), &format!("{name}#{}", process.boots)]);
                command.args(["--bus", &self.bus.to_string(), "--seed", &self.seed.to_string()]);
                command.arg("--history").arg(self.folder.join(format!("{name}.history")));
                command.arg("--calm").arg(self.folder.join(CALM));
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        process.child = Some(command.spawn()?);
        Ok(())
    }

    /// Starts again what has ended by itself.
    pub fn start_ended(&mut self) -> io::Result<()> {
        for name in self.names() {
            let Some(process) = self.all.get_mut(&name) else { continue };
            // A publisher has nothing to do any more.
            if matches!(process.what, Program::Actor(Role::Publisher)) {
                continue;
            }
            let ended = match &mut process.child {
                Some(child) => child.try_wait()?.is_some(),
                None => true,
            };
            if ended {
                self.start(&name)?;
            }
        }
        Ok(())
    }

    pub fn signal(&mut self, name: &str, signal: Signal) {
        let Some(child) = self.all.get_mut(name).and_then(|process| process.child.as_mut()) else { return };
        send(child, signal);
        if signal == Signal::Kill {
            let _ = child.wait();
        }
    }

    /// Asks everybody to go, and makes them.
    pub fn end_all(&mut self) {
        for process in self.all.values_mut() {
            if let Some(child) = &mut process.child {
                send(child, Signal::Continue);
                send(child, Signal::Terminate);
            }
        }
        for process in self.all.values_mut() {
            if let Some(child) = process.child.take() {
                end(child);
            }
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in self.all.values_mut() {
            if let Some(child) = &mut process.child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn end(mut child: Child) {
    let deadline = Instant::now() + GOODBYE;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Only to a child that was not waited for: its number cannot be another's.
fn send(child: &mut Child, signal: Signal) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let number = match signal {
        Signal::Kill => libc::SIGKILL,
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
        Signal::Terminate => libc::SIGTERM,
    };
    // SAFETY: a plain system call; the child is ours and still there.
    #[allow(unsafe_code)]
    unsafe {
        libc::kill(child.id() as libc::pid_t, number);
    }
}
