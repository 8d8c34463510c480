//! The client of [`crate::ceiling`].

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use super::lines::Lines;
use super::{Connection, Durability, From, Outcome, Peer, Tip, Tools};
use crate::Result;
use crate::ceiling::{FROM_END, FROM_START};
use crate::payload::{BYTES, Fresh};
use crate::process::{Process, free_port};

pub struct Ceiling {
    processes: Vec<Process>,
    address: String,
}

impl Peer for Ceiling {
    type Connection = Session;

    async fn start(_: &Tools, dir: &Path, _: Durability) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["ceiling", "--listen", &address, "--file"]).arg(dir.join("log.bin"));
        let process = Process::spawn("ceiling", &mut command, &dir.join("log"))?;
        process.until(async |said| said.contains("listening on").then_some(())).await?;
        Ok(Self { processes: vec![process], address })
    }

    async fn connect(&self) -> Result<Session> {
        Ok(Session {
            lines: Lines::connect(&self.address).await?,
            unanswered: Default::default(),
            answered: 0,
        })
    }

    async fn stream(
        &self,
        from: From,
        mut each: impl FnMut(&[u8]) -> Result<ControlFlow<()>> + Send,
    ) -> Result<()> {
        let mut lines = Lines::connect(&self.address).await?;
        let from = if from == From::Start { FROM_START } else { FROM_END };
        lines.out.extend_from_slice(&from.to_le_bytes());
        loop {
            let unread = lines.unread();
            let length = unread.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
            match length.and_then(|length| unread.get(4..4 + length)) {
                Some(frame) => {
                    let data = frame.len().checked_sub(BYTES).ok_or("a short frame")?;
                    let (bytes, flow) = (4 + frame.len(), each(&frame[data..])?);
                    lines.take(bytes);
                    if flow.is_break() {
                        return Ok(());
                    }
                }
                None => lines.more().await?,
            }
        }
    }

    fn processes(&self) -> &[Process] {
        &self.processes
    }
}

pub struct Session {
    lines: Lines,
    /// Frames of each batch.
    unanswered: std::collections::VecDeque<usize>,
    answered: u64,
}

impl Connection for Session {
    fn send(&mut self, tip: &Tip, events: &[Fresh]) -> Result<()> {
        for (i, event) in events.iter().enumerate() {
            let place = tip.next + i as u64;
            let length = 16 + 8 + tip.key.len() + event.data.len();
            let out = &mut self.lines.out;
            out.extend_from_slice(&(length as u32).to_le_bytes());
            out.extend_from_slice(event.id.as_bytes());
            out.extend_from_slice(&place.to_le_bytes());
            out.extend_from_slice(tip.key.as_bytes());
            out.extend_from_slice(event.data.as_bytes());
        }
        self.unanswered.push_back(events.len());
        Ok(())
    }

    async fn receive(&mut self) -> Result<Outcome> {
        let frames = self.unanswered.pop_front().ok_or("nothing was sent")?;
        self.lines.flush().await?;
        while self.lines.unread().len() < frames {
            self.lines.more().await?;
        }
        self.lines.take(frames);
        self.answered += frames as u64;
        Ok(Outcome::Stored { at: self.answered })
    }

    async fn refresh(&mut self, _: &mut Tip) -> Result<()> {
        Err("the ceiling checks nothing".into())
    }
}
