//! Frames of RFC 6455 as a server reads and writes them: bytes in, messages out.
//!
//! # Promises
//! 1. A message is handed out whole, in place where it came in one frame, and
//!    however its bytes were cut on their way.
//! 2. What the RFC forbids a client is refused: unmasked frames, reserved bits
//!    and opcodes, control frames that are long or in pieces, pieces of nothing,
//!    text that is not UTF-8. A length written longer than need be is none of it:
//!    nobody is harmed, and some clients have one way to write them.
//! 3. A message longer than the limit is refused when its header is there, and no
//!    memory is taken for more than has come, but for [`KEPT_BYTES`].
//!
//! # After a refusal
//! The bytes that follow mean nothing: the caller says goodbye with
//! [`Bad::close`] and takes nothing more.
//!
//! # Not here
//! Sockets, and who answers a ping: `inbox.rs`, `outbox.rs`. Extensions: none is
//! ever agreed on.

mod header;
#[cfg(test)]
mod tests;

use std::ops::Range;

use header::Header;

/// What is asked of the socket at least.
const READ_BYTES: usize = 8 << 10;
/// A buffer that was larger is given back when it is empty.
const KEPT_BYTES: usize = 64 << 10;
const CONTROL_BYTES: usize = 125;

/// What a client has said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Text(&'a str),
    Binary,
    Ping(&'a [u8]),
    Pong,
    /// With the code it gave, if it gave one.
    Close(Option<u16>),
}

/// Why the connection cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Protocol(&'static str),
    NotUtf8,
    TooLarge,
}

impl Bad {
    pub fn close(&self) -> (u16, &'static str) {
        match self {
            Self::Protocol(why) => (close::PROTOCOL, why),
            Self::NotUtf8 => (close::NOT_UTF8, "a text that is not UTF-8"),
            Self::TooLarge => (close::TOO_LARGE, "a frame that is too large"),
        }
    }
}

/// Codes that a connection ends with.
pub(super) mod close {
    pub const AWAY: u16 = 1001;
    pub const PROTOCOL: u16 = 1002;
    pub const NOT_UTF8: u16 = 1007;
    pub const POLICY: u16 = 1008;
    pub const TOO_LARGE: u16 = 1009;
    pub const NORMAL: u16 = 1000;

    /// Whether a client may give it.
    pub fn is_valid(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// Reads one connection's frames.
pub(super) struct Frames {
    /// Of one message.
    limit: usize,
    buffer: Vec<u8>,
    taken: usize,
    /// Of the frame that is not there yet.
    missing: usize,
    /// What came of a message in pieces, and as what it began.
    pieces: Vec<u8>,
    begun: Option<Opcode>,
}

/// Where a whole message lies.
enum Found {
    Buffer(Opcode, Range<usize>),
    Pieces(Opcode),
}

impl Frames {
    pub fn new(limit: usize) -> Self {
        let (buffer, pieces) = (Vec::new(), Vec::new());
        Self { limit, buffer, taken: 0, missing: 0, pieces, begun: None }
    }

    /// Where to add what comes: it has room.
    pub fn room(&mut self) -> &mut Vec<u8> {
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_BYTES);
        } else {
            self.buffer.drain(..self.taken);
        }
        self.taken = 0;
        let least = READ_BYTES.max(self.missing.min(KEPT_BYTES));
        if self.buffer.capacity() - self.buffer.len() < least {
            self.buffer.reserve(least);
        }
        &mut self.buffer
    }

    /// The next whole message, if it is there.
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, Bad> {
        let Some(found) = self.find()? else { return Ok(None) };
        let (opcode, body) = match found {
            Found::Buffer(opcode, at) => (opcode, &self.buffer[at]),
            Found::Pieces(opcode) => (opcode, &self.pieces[..]),
        };
        Ok(Some(match opcode {
            Opcode::Text => Frame::Text(std::str::from_utf8(body).map_err(|_| Bad::NotUtf8)?),
            Opcode::Ping => Frame::Ping(body),
            Opcode::Pong => Frame::Pong,
            Opcode::Close => Frame::Close(code_of(body)?),
            Opcode::Binary | Opcode::Continuation => Frame::Binary,
        }))
    }

    fn find(&mut self) -> Result<Option<Found>, Bad> {
        if self.begun.is_none() {
            // Those of the last message were looked at.
            self.pieces.clear();
            self.pieces.shrink_to(KEPT_BYTES);
        }
        loop {
            let unread = &self.buffer[self.taken..];
            let Some(header) = Header::read(unread)? else {
                self.missing = 0;
                return Ok(None);
            };
            self.expects(&header)?;
            let whole = header.bytes + header.length;
            if unread.len() < whole {
                self.missing = whole - unread.len();
                return Ok(None);
            }
            let body = self.taken + header.bytes..self.taken + whole;
            self.taken += whole;
            header.unmask(&mut self.buffer[body.clone()]);
            if header.opcode.is_control() || header.last && self.begun.is_none() {
                return Ok(Some(Found::Buffer(header.opcode, body)));
            }
            self.pieces.extend_from_slice(&self.buffer[body]);
            let begun = *self.begun.get_or_insert(header.opcode);
            if header.last {
                self.begun = None;
                return Ok(Some(Found::Pieces(begun)));
            }
        }
    }

    /// Refuses what may not come now.
    fn expects(&self, header: &Header) -> Result<(), Bad> {
        match (header.opcode, self.begun) {
            (opcode, _) if opcode.is_control() => Ok(()),
            (Opcode::Continuation, None) => Err(Bad::Protocol("a continuation of nothing")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                Err(Bad::Protocol("a message within another one's pieces"))
            }
            _ if header.length > self.limit - self.pieces.len() => Err(Bad::TooLarge),
            _ => Ok(()),
        }
    }
}

impl Opcode {
    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The code in the body of a close frame.
fn code_of(body: &[u8]) -> Result<Option<u16>, Bad> {
    let Some((code, reason)) = body.split_first_chunk::<2>() else {
        return if body.is_empty() { Ok(None) } else { Err(Bad::Protocol("half a close code")) };
    };
    let code = u16::from_be_bytes(*code);
    if !close::is_valid(code) {
        return Err(Bad::Protocol("a close code that may not be sent"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Bad::NotUtf8);
    }
    Ok(Some(code))
}

/// Adds a frame whose body `write` appends. The header's length is known only
/// then, so the longest one is left room for, and the body moved if it was less.
pub(super) fn write(out: &mut Vec<u8>, opcode: Opcode, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + header::SENT_BYTES, 0);
    write(out);
    let body = start + header::SENT_BYTES;
    let (header, bytes) = header::sent(opcode, out.len() - body);
    out[start..start + bytes].copy_from_slice(&header[..bytes]);
    out.drain(start + bytes..body);
}

/// Adds a close frame; its reason is cut to what fits.
pub(super) fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES - 2)];
    write(out, Opcode::Close, |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(reason.as_bytes());
    });
}
