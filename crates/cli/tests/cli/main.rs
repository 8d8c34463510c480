//! The binary as a person or a script meets it: output, refusals, exit codes.
//! Every test starts the real `daybook` on a free port and a directory of its own.

mod backup;
mod commands;
mod config;
mod groups;
mod guide;
mod inject;
mod refusals;
mod script_tests;
mod services;
mod signals;
mod small_disk;
mod transfer;
mod verify;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub const DAYBOOK: &str = env!("CARGO_BIN_EXE_daybook");

/// A running `daybook serve`; killed when dropped.
pub struct Serve {
    child: Child,
    pub bus: String,
}

impl Serve {
    pub fn start(data: &Path) -> Self {
        Self::try_start(data, "127.0.0.1:0").unwrap_or_else(|stderr| panic!("no server: {stderr}"))
    }

    /// What it wrote to stderr if it did not start.
    pub fn try_start(data: &Path, listen: &str) -> Result<Self, String> {
        Self::try_start_with(data, listen, &[])
    }

    #[allow(clippy::zombie_processes)] // `Drop` waits for it.
    pub fn try_start_with(data: &Path, listen: &str, more: &[&str]) -> Result<Self, String> {
        let mut child = Command::new(DAYBOOK)
            .args(["serve", "--listen", listen, "--data"])
            .arg(data)
            .args(more)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if stderr.read_line(&mut line).unwrap() == 0 {
                child.wait().unwrap();
                return Err(said);
            }
            if let Some(bus) = line.trim_end().strip_prefix("listening on ") {
                let bus = bus.to_owned();
                // Read on, so that it never blocks on a full pipe.
                std::thread::spawn(move || for _ in stderr.lines() {});
                return Ok(Self { child, bus });
            }
            said.push_str(&line);
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Runs a command against this bus.
    pub fn run(&self, args: &[&str], stdin: &str) -> Ran {
        run(&[args, &["--bus", &self.bus]].concat(), stdin)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    #[track_caller]
    pub fn lines(&self) -> Vec<serde_json::Value> {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub fn run(args: &[&str], stdin: &str) -> Ran {
    let mut child = Command::new(DAYBOOK)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let text = stdin.to_owned();
    let feeder = std::thread::spawn(move || {
        // It may refuse before it has read everything.
        let _ = input.write_all(text.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output.into()
}

/// One line for `daybook publish`.
pub fn line(id: &str, subject: &str, sequence: Option<u64>) -> String {
    let sequence = sequence.map_or(String::new(), |s| format!(r#","sequence":"{s}""#));
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/t","type":"Happened","subject":"{subject}"{sequence},"data":{{"n":1}}}}"#
    ) + "\n"
}
