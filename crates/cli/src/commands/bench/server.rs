//! The server that a bench measures: a process of its own, so that its memory
//! and threads are not the load generator's.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::exit::Failure;

pub struct Measured {
    pub bus: String,
    child: Option<(Child, tempfile::TempDir)>,
}

impl Measured {
    /// Uses `bus`, or starts a server on a temporary directory below `dir`.
    pub async fn start(bus: Option<String>, dir: Option<PathBuf>) -> Result<Self, Failure> {
        if let Some(bus) = bus {
            return Ok(Self { bus, child: None });
        }
        let dir = match dir {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(dir.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = child.stderr.take().ok_or_else(|| Failure::failed("the server has no stderr"))?;
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(bus) = line.strip_prefix("listening on ") {
                let bus = bus.to_owned();
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Self { bus, child: Some((child, dir)) });
            }
            eprintln!("{line}");
        }
        Err(Failure::failed("the server to measure did not start"))
    }

    /// One counter of `/metrics`.
    pub async fn metric(&self, name: &str) -> Result<f64, Failure> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let host = self.bus.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok())
            .ok_or_else(|| Failure::failed(format!("the server has no metric `{name}`")))
    }

    /// MiB that the server of our own holds now; only Linux tells.
    pub fn resident_mib(&self) -> Option<u64> {
        let (child, _) = self.child.as_ref()?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()?)).ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        Some(kib?.parse::<u64>().ok()? >> 10)
    }

    /// CPU time that the server's process has used; one that we did not start is not ours to ask.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        self.child.as_ref().map_or(Ok(Duration::ZERO), |(child, _)| cpu_of(child.id()))
    }

    pub async fn stop(mut self) {
        if let Some((mut child, _dir)) = self.child.take() {
            let _ = child.kill().await;
        }
    }
}

/// CPU time of a process, from the kernel, in hundredths of a second.
pub fn cpu_of(process: Option<u32>) -> Result<Duration, Failure> {
    let process = process.ok_or_else(|| Failure::failed("the process to measure has ended"))?;
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name may hold anything; it ends with the last parenthesis.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<u64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok(Duration::from_millis((user + system) * 10)),
        _ => Err(Failure::failed("the kernel does not tell the process's CPU time")),
    }
}
