//! JSON by hand, for the messages that carry nearly all bytes.

use std::io::Write as _;
use std::sync::Arc;

use super::client::ClientMessage;
use super::server::{Delivery, Receipted, ServerMessage, Shared};
use crate::{Position, Timestamp};

/// A message that can be written into a frame.
pub trait Written {
    /// Appends it as one JSON object.
    fn write(&self, out: &mut Vec<u8>);
}

impl Written for ClientMessage {
    fn write(&self, out: &mut Vec<u8>) {
        let Self::Publish(m) = self else { return by_serde(self, out) };
        out.extend_from_slice(br#"{"op":"publish","id":"#);
        integer(out, m.id);
        out.extend_from_slice(br#","events":"#);
        list(out, m.events.iter(), |out, event| event.write_json(out));
        if let Some(delivery) = &m.delivery {
            out.extend_from_slice(br#","delivery":"#);
            text(out, delivery);
        }
        out.push(b'}');
    }
}

impl<T: Written> Written for Arc<T> {
    fn write(&self, out: &mut Vec<u8>) {
        T::write(self, out);
    }
}

impl Written for ServerMessage {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Receipt(m) => {
                out.extend_from_slice(br#"{"op":"receipt","id":"#);
                integer(out, m.id);
                out.extend_from_slice(br#","events":"#);
                list(out, &m.events, receipted);
            }
            Self::Page(m) => {
                out.extend_from_slice(br#"{"op":"page","id":"#);
                integer(out, m.id);
                events(out, &m.events);
                if let Some(Position(next)) = m.next {
                    out.extend_from_slice(br#","next":"#);
                    decimal(out, next);
                }
            }
            Self::Events(m) => {
                begin(out, m.subscription);
                separated(out, &m.events, |out, event| event.write_json(out));
                return end_events(out);
            }
            Self::Deliver(m) => {
                out.extend_from_slice(br#"{"op":"deliver","subscription":"#);
                integer(out, m.subscription);
                out.extend_from_slice(br#","deliveries":"#);
                list(out, &m.deliveries, delivery);
            }
            _ => return by_serde(self, out),
        }
        out.push(b'}');
    }
}

/// An `events` message up to its first event, for whoever has the events as JSON
/// already: they follow, a comma between two, and then [`end_events`].
pub fn begin_events(subscription: u64) -> Vec<u8> {
    let mut out = Vec::new();
    begin(&mut out, subscription);
    out
}

fn begin(out: &mut Vec<u8>, subscription: u64) {
    out.extend_from_slice(br#"{"op":"events","subscription":"#);
    integer(out, subscription);
    out.extend_from_slice(br#","events":["#);
}

pub fn end_events(out: &mut Vec<u8>) {
    out.extend_from_slice(b"]}");
}

fn by_serde<T: serde::Serialize>(message: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, message).expect("messages have string keys and write to memory");
}

fn events(out: &mut Vec<u8>, events: &[Shared]) {
    out.extend_from_slice(br#","events":"#);
    list(out, events, |out, event| event.write_json(out));
}

fn receipted(out: &mut Vec<u8>, m: &Receipted) {
    out.extend_from_slice(br#"{"id":"#);
    text(out, &m.id);
    out.extend_from_slice(br#","position":"#);
    decimal(out, m.position.0);
    if let Some(sequence) = m.sequence {
        out.extend_from_slice(br#","sequence":"#);
        decimal(out, sequence.0);
    }
    out.extend_from_slice(br#","recordedtime":"#);
    time(out, m.recordedtime);
    out.extend_from_slice(if m.duplicate { br#","duplicate":true}"# } else { br#","duplicate":false}"# });
}

fn delivery(out: &mut Vec<u8>, m: &Delivery) {
    out.extend_from_slice(br#"{"token":"#);
    text(out, &m.token);
    out.extend_from_slice(br#","attempt":"#);
    integer(out, m.attempt.into());
    out.extend_from_slice(br#","event":"#);
    m.event.write_json(out);
    out.push(b'}');
}

pub(super) fn list<T>(out: &mut Vec<u8>, all: impl IntoIterator<Item = T>, one: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    separated(out, all, one);
    out.push(b']');
}

fn separated<T>(out: &mut Vec<u8>, all: impl IntoIterator<Item = T>, mut one: impl FnMut(&mut Vec<u8>, T)) {
    for (i, item) in all.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        one(out, item);
    }
}

/// A JSON string.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    let plain =
        text.bytes().fold(true, |plain, byte| plain & (byte >= 0x20) & (byte != b'"') & (byte != b'\\'));
    if plain {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("a text writes to memory");
    }
}

/// A number as a string.
pub(crate) fn decimal(out: &mut Vec<u8>, number: u64) {
    out.push(b'"');
    integer(out, number);
    out.push(b'"');
}

pub(crate) fn time(out: &mut Vec<u8>, time: Timestamp) {
    match time.digits() {
        Some(digits) => {
            out.push(b'"');
            out.extend_from_slice(&digits);
            out.push(b'"');
        }
        None => write!(out, "\"{time}\"").expect("memory takes it"),
    }
}

pub(super) fn integer(out: &mut Vec<u8>, mut number: u64) {
    let (mut digits, mut at) = ([0; 20], 20);
    while number >= 100 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&pair(number % 100));
        number /= 100;
    }
    if number >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&pair(number));
    } else {
        at -= 1;
        digits[at] = b'0' + number as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Two decimal digits.
fn pair(number: u64) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

pub(crate) const UUID_CHARS: usize = 36;

/// A UUID in the canonical form: lower case with hyphens.
pub(crate) fn uuid_text(uuid: &[u8; 16]) -> [u8; UUID_CHARS] {
    let mut text = [b'-'; UUID_CHARS];
    for (byte, at) in uuid.iter().zip(UUID_BYTES_AT) {
        text[at..at + 2].copy_from_slice(&HEX[usize::from(*byte)]);
    }
    text
}

/// Where the digits of each byte begin.
const UUID_BYTES_AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The two digits of every byte.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        all[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Deliver, Events, Page, Publish, Receipt};
    use crate::{Event, NewEvent, Sequence};

    #[test]
    fn messages_are_written_by_hand_as_serde_writes_them() {
        let event: Event = serde_json::from_str(
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"T","correlationid":"c","sessionid":"s",
                "time":"t","recordedtime":"2026-11-24T09:30:00.123456Z","position":"10","data":{ "a":1 }}"#,
        )
        .unwrap();
        let shared = || Shared(event.clone().into());
        let receipted = |sequence, duplicate| Receipted {
            id: "a\"b".into(),
            position: Position(0),
            sequence,
            recordedtime: Timestamp(-1),
            duplicate,
        };
        let from_server: [ServerMessage; 6] = [
            Receipt { id: 0, events: vec![receipted(None, false), receipted(Some(Sequence(9)), true)] }
                .into(),
            Page { id: 1, events: vec![], next: None }.into(),
            Page { id: u64::MAX, events: vec![shared(), shared()], next: Some(Position(12)) }.into(),
            Events { subscription: 3, events: vec![shared()] }.into(),
            Deliver {
                subscription: 4,
                deliveries: vec![Delivery { token: "t".into(), attempt: 1, event: shared() }],
            }
            .into(),
            crate::wire::Drain { reconnect_ms: 5 }.into(),
        ];
        for message in &from_server {
            let mut out = Vec::new();
            message.write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(message).unwrap());
        }
        for delivery in [None, Some("token".to_owned())] {
            let message: ClientMessage =
                Publish { id: 1, events: vec![NewEvent::new("a", "T")].into(), delivery }.into();
            let mut out = Vec::new();
            message.write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&message).unwrap());
        }
    }
}
