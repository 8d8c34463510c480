//! What stands before a frame's body.

use super::{Bad, CONTROL_BYTES, Opcode};

/// The longest header that is sent; the longest that is received has a mask too.
pub(super) const SENT_BYTES: usize = 10;

const LAST: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// Lengths that say where the length stands.
const IN_TWO_BYTES: u8 = 126;
const IN_EIGHT_BYTES: u8 = 127;

pub(super) struct Header {
    pub opcode: Opcode,
    /// Of its message's pieces.
    pub last: bool,
    pub length: usize,
    /// Of the header itself.
    pub bytes: usize,
    mask: [u8; 4],
}

impl Header {
    /// `None` if not all of it has come.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, Bad> {
        let Some((&[first, second], rest)) = bytes.split_first_chunk() else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(Bad::Protocol("reserved bits are set, and no extension was agreed on"));
        }
        if second & MASKED == 0 {
            return Err(Bad::Protocol("a client's frames must be masked"));
        }
        let opcode = Opcode::read(first)?;
        let last = first & LAST != 0;
        let short = second & !MASKED;
        if opcode.is_control() && (!last || usize::from(short) > CONTROL_BYTES) {
            return Err(Bad::Protocol("a control frame that is long or in pieces"));
        }
        let (length, rest) = match short {
            IN_TWO_BYTES => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            IN_EIGHT_BYTES => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        if length > i64::MAX as u64 {
            return Err(Bad::Protocol("a length beyond 63 bits"));
        }
        let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let length = usize::try_from(length).map_err(|_| Bad::TooLarge)?;
        Ok(Some(Self { opcode, last, length, bytes: bytes.len() - rest.len(), mask: *mask }))
    }

    /// Takes the mask off the body.
    pub fn unmask(&self, body: &mut [u8]) {
        let [a, b, c, d] = self.mask;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let mut words = body.chunks_exact_mut(8);
        for word in words.by_ref() {
            let word: &mut [u8; 8] = word.try_into().expect("chunks have 8 bytes");
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        let rest = words.into_remainder().iter_mut();
        rest.zip(self.mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
}

impl Opcode {
    fn read(first: u8) -> Result<Self, Bad> {
        Ok(match first & 0x0f {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return Err(Bad::Protocol("an opcode that means nothing")),
        })
    }
}

/// The header of a whole message, unmasked as a server's frames are, and its length.
pub(super) fn sent(opcode: Opcode, length: usize) -> ([u8; SENT_BYTES], usize) {
    let mut header = [0; SENT_BYTES];
    header[0] = LAST | opcode as u8;
    let bytes = match length {
        0..=CONTROL_BYTES => {
            header[1] = length as u8;
            2
        }
        126..=0xffff => {
            header[1] = IN_TWO_BYTES;
            header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = IN_EIGHT_BYTES;
            header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    (header, bytes)
}
