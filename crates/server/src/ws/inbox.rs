//! Everything that comes from one client: bytes from the socket, messages out.

use std::io;

use tokio::io::AsyncReadExt;

use super::frame::{Bad, Frame, Frames};
use super::socket::Reader;

pub(super) struct Inbox {
    half: Reader,
    frames: Frames,
}

impl Inbox {
    pub fn new(half: Reader, frame_bytes: usize) -> Self {
        Self { half, frames: Frames::new(frame_bytes) }
    }

    /// Waits for bytes; false at the end. Dropped halfway, nothing is lost.
    pub async fn more(&mut self) -> io::Result<bool> {
        Ok(self.half.read_buf(self.frames.room()).await? > 0)
    }

    /// The next message of what has come.
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, Bad> {
        self.frames.next()
    }

    /// Takes what comes, whatever it is, until the client hangs up.
    pub async fn ignore(&mut self) {
        let mut nowhere = [0; 4 << 10];
        while self.half.read(&mut nowhere).await.is_ok_and(|bytes| bytes > 0) {}
    }
}
