//! As much of RFC 6455 as a load generator needs: whole text messages, pings
//! answered. It shares two cores with the server, so it does little.

use crate::Result;

use super::lines::Lines;

pub struct WebSocket {
    lines: Lines,
    mask: [u8; 4],
    /// Bytes of the last frame's header.
    header: usize,
}

impl WebSocket {
    pub async fn connect(address: &str, path: &str, subprotocol: &str) -> Result<Self> {
        let mut lines = Lines::connect(address).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        );
        lines.out.extend_from_slice(request.as_bytes());
        loop {
            lines.more().await?;
            let answer = lines.unread();
            let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            if !answer.starts_with(b"HTTP/1.1 101") {
                return Err(format!("no WebSocket there: {}", String::from_utf8_lossy(answer)).into());
            }
            lines.take(end + 4);
            let mask = uuid::Uuid::new_v4().into_bytes();
            return Ok(Self { lines, mask: [mask[0], mask[1], mask[2], mask[3]], header: 0 });
        }
    }

    /// Queues a text message that `write` appends.
    pub fn queue(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.queue_frame(TEXT, write);
    }

    fn queue_frame(&mut self, opcode: u8, write: impl FnOnce(&mut Vec<u8>)) {
        // The length comes first but is known last: room for a header like the
        // last one's, and the body moved only if that was wrong.
        let room = self.header;
        let out = &mut self.lines.out;
        let start = out.len();
        out.resize(start + room, 0);
        write(out);
        let length = out.len() - start - room;
        let mut header = Vec::with_capacity(14);
        header.push(FINAL | opcode);
        match length {
            0..=125 => header.push(MASKED | length as u8),
            126..=0xffff => {
                header.push(MASKED | 126);
                header.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                header.push(MASKED | 127);
                header.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        header.extend_from_slice(&self.mask);
        let mask = u32::from_ne_bytes(self.mask);
        let mut words = out[start + room..].chunks_exact_mut(4);
        for word in words.by_ref() {
            let masked = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]) ^ mask;
            word.copy_from_slice(&masked.to_ne_bytes());
        }
        words.into_remainder().iter_mut().zip(self.mask).for_each(|(byte, mask)| *byte ^= mask);
        self.header = header.len();
        out.splice(start..start + room, header);
    }

    pub async fn flush(&mut self) -> Result<()> {
        self.lines.flush().await
    }

    /// Sends what is queued and hands the next message to `each`.
    pub async fn next<T>(&mut self, each: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        while !self.whole()? {
            self.lines.more().await?;
        }
        self.give(each)
    }

    /// The same if a message is here already.
    pub fn next_now<T>(&mut self, each: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
        while !self.whole()? {
            if !self.lines.more_now()? {
                return Ok(None);
            }
        }
        self.give(each).map(Some)
    }

    /// Whether a whole text message waits. Answers pings on the way.
    fn whole(&mut self) -> Result<bool> {
        loop {
            let Some((opcode, header, length)) = frame(self.lines.unread()) else { return Ok(false) };
            match opcode {
                TEXT => return Ok(self.lines.unread().len() >= header + length),
                _ if self.lines.unread().len() < header + length => return Ok(false),
                PING => {
                    let body = self.lines.unread()[header..header + length].to_vec();
                    self.lines.take(header + length);
                    self.queue_frame(PONG, |out| out.extend_from_slice(&body));
                }
                PONG => self.lines.take(header + length),
                _ => return Err(format!("the bus sent a frame of kind {opcode}").into()),
            }
        }
    }

    fn give<T>(&mut self, each: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        let (_, header, length) = frame(self.lines.unread()).ok_or("no frame")?;
        let result = each(std::str::from_utf8(&self.lines.unread()[header..header + length])?);
        self.lines.take(header + length);
        result
    }
}

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const TEXT: u8 = 1;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Opcode, bytes of the header and of the body, if the header is there.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let opcode = bytes.first()? & 0x0f;
    match *bytes.get(1)? {
        126 => Some((opcode, 4, u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]) as usize)),
        127 => Some((opcode, 10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize)),
        short => Some((opcode, 2, short as usize)),
    }
}
