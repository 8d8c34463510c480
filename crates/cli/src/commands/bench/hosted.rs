//! The host that a bench measures: `daybook run` in a process of its own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::server::cpu_of;
use crate::exit::Failure;

pub struct Hosted {
    pub url: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Hosted {
    pub async fn start(
        bus: &str,
        script: &str,
        instances: u32,
        dir: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        Self::start_all(bus, &[("bench.lua", script)], instances, dir, &[]).await
    }

    /// Several scripts, by their file names, in one host.
    pub async fn start_all(
        bus: &str,
        scripts: &[(&str, &str)],
        instances: u32,
        dir: Option<PathBuf>,
        options: &[String],
    ) -> Result<Self, Failure> {
        let dir = match dir {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        };
        let files: Vec<PathBuf> = scripts.iter().map(|(name, _)| dir.path().join(name)).collect();
        for (file, (_, script)) in files.iter().zip(scripts) {
            std::fs::write(file, script)?;
        }
        let mut child = Command::new(std::env::current_exe()?)
            .arg("run")
            .args(&files)
            .args(options)
            .args(["--listen", "127.0.0.1:0", "--bus", bus, "--instances", &instances.to_string(), "--state"])
            .arg(dir.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = child.stderr.take().ok_or_else(|| Failure::failed("the host has no stderr"))?;
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(url) = line.strip_prefix("listening on ") {
                let url = url.to_owned();
                tokio::spawn(async move {
                    while let Ok(Some(line)) = lines.next_line().await {
                        eprintln!("{line}");
                    }
                });
                return Ok(Self { url, child, _dir: dir });
            }
            eprintln!("{line}");
        }
        Err(Failure::failed("the host to measure did not start"))
    }

    /// CPU time that its process has used.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        cpu_of(self.child.id())
    }

    pub async fn stop(mut self) {
        let _ = self.child.kill().await;
    }
}
