//! An event as a record: a compact binary envelope and the bytes of `data` as
//! they came. The position is the record's place, not stored.
//!
//! ```text
//! 1 version (2)   2 flags   8 recordedtime (µs)   [8 sequence] [varint first offset, varint size of the batch]
//! then strings, each varint length + UTF-8: id*, type, source, session*, correlation*, time (empty: the recorded time),
//! [subject] [cause*] [principal] [datacontenttype] [dataschema] [traceparent]
//! [varint count, then name, kind 0/1/2, value per extension]   [data: the rest]
//! ```
//! *: a name that may end in a UUID: varint (2 × length + 1 if it does), UTF-8 of what is before it, and the UUID in
//! 16 bytes. Only one in the canonical form, lower case with hyphens: the text comes back byte for byte.
//! Version 1 has plain strings there too.

use daybook_model::{
    DataRef, Event, EventRef, ExtensionValue, Name, NewEvent, NewEventRef, Position, Sequence, Timestamp,
};
use uuid::fmt::Hyphenated;

const VERSION: u8 = 2;
/// The last without packed names.
const VERSION_PLAIN: u8 = 1;

mod flag {
    pub const SUBJECT: u16 = 1 << 0;
    pub const BATCH: u16 = 1 << 1;
    pub const CAUSE: u16 = 1 << 2;
    pub const PRINCIPAL: u16 = 1 << 3;
    pub const CONTENT_TYPE: u16 = 1 << 4;
    pub const SCHEMA: u16 = 1 << 5;
    pub const TRACEPARENT: u16 = 1 << 6;
    pub const EXTENSIONS: u16 = 1 << 7;
    pub const DATA_JSON: u16 = 1 << 8;
    pub const DATA_BINARY: u16 = 1 << 9;
    /// The client named none: needed to compare contents later.
    pub const SOURCE_DEFAULTED: u16 = 1 << 10;
    pub const TIME_DEFAULTED: u16 = 1 << 11;
    pub const CORRELATION_DEFAULTED: u16 = 1 << 12;
}

/// What the server filled in because the client named nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Defaulted {
    pub source: bool,
    pub time: bool,
    pub correlation: bool,
}

impl Defaulted {
    pub fn of(new: &NewEventRef<'_>) -> Self {
        Self {
            source: new.source.is_none(),
            time: new.time.is_none(),
            correlation: new.correlationid.is_none(),
        }
    }
}

/// An event and its place, in the texts of whoever holds them: a record in the making.
#[derive(Clone, Copy)]
pub(crate) struct Stamped<'a> {
    pub new: NewEventRef<'a>,
    /// What stands there, named by the client or not.
    pub source: &'a str,
    pub correlation: &'a str,
    pub session: &'a str,
    /// Made of these two, if somebody has done that already.
    pub names: Option<&'a Names>,
    pub principal: Option<&'a str>,
    pub sequence: Option<Sequence>,
    pub recordedtime: Timestamp,
    pub position: Position,
    pub batch: Option<(Position, u32)>,
}

/// Session and correlation as they stand in a record: the same in most of a batch.
#[derive(Debug)]
pub(crate) struct Names(Vec<u8>);

impl Names {
    pub fn new(session: &str, correlation: &str) -> Self {
        let mut bytes = Vec::with_capacity(session.len() + correlation.len() + 4);
        put_names(&mut bytes, session, correlation);
        Self(bytes)
    }
}

fn put_names(out: &mut Vec<u8>, session: &str, correlation: &str) {
    put_name(out, session);
    put_name(out, correlation);
}

impl Stamped<'_> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (new, defaulted) = (&self.new, Defaulted::of(&self.new));
        let mut flags = 0;
        let mut set = |on: bool, bit: u16| flags |= if on { bit } else { 0 };
        set(new.subject.is_some(), flag::SUBJECT);
        set(self.batch.is_some(), flag::BATCH);
        set(new.causationid.is_some(), flag::CAUSE);
        set(self.principal.is_some(), flag::PRINCIPAL);
        set(new.datacontenttype.is_some(), flag::CONTENT_TYPE);
        set(new.dataschema.is_some(), flag::SCHEMA);
        set(new.traceparent.is_some(), flag::TRACEPARENT);
        set(!new.extensions.is_empty(), flag::EXTENSIONS);
        set(matches!(new.data, Some(DataRef::Json(_))), flag::DATA_JSON);
        set(matches!(new.data, Some(DataRef::Binary(_))), flag::DATA_BINARY);
        set(defaulted.source, flag::SOURCE_DEFAULTED);
        set(defaulted.time, flag::TIME_DEFAULTED);
        set(defaulted.correlation, flag::CORRELATION_DEFAULTED);
        out.push(VERSION);
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.recordedtime.0.to_le_bytes());
        if let Some(sequence) = self.sequence {
            out.extend_from_slice(&sequence.0.to_le_bytes());
        }
        if let Some((first, size)) = self.batch {
            put_varint(out, self.position.0 - first.0);
            put_varint(out, u64::from(size));
        }
        put_name(out, new.id);
        put_text(out, new.kind);
        put_text(out, self.source);
        match self.names {
            Some(Names(bytes)) => out.extend_from_slice(bytes),
            None => put_names(out, self.session, self.correlation),
        }
        put_text(out, new.time.unwrap_or_default());
        if let Some(subject) = new.subject {
            put_text(out, subject);
        }
        if let Some(cause) = new.causationid {
            put_name(out, cause);
        }
        let optional = [new.datacontenttype, new.dataschema, new.traceparent];
        for text in std::iter::once(self.principal).chain(optional).flatten() {
            put_text(out, text);
        }
        if !new.extensions.is_empty() {
            put_varint(out, new.extensions.len() as u64);
            for (name, value) in new.extensions {
                put_text(out, name);
                match value {
                    ExtensionValue::Boolean(value) => out.extend_from_slice(&[0, u8::from(*value)]),
                    ExtensionValue::Integer(value) => {
                        out.push(1);
                        out.extend_from_slice(&value.to_le_bytes());
                    }
                    ExtensionValue::String(value) => {
                        out.push(2);
                        put_text(out, value);
                    }
                }
            }
        }
        match new.data {
            Some(DataRef::Json(text)) => out.extend_from_slice(text.as_bytes()),
            Some(DataRef::Binary(bytes)) => out.extend_from_slice(bytes),
            None => {}
        }
    }

    /// As readers see it.
    pub fn event(&self) -> Event {
        let new = self.new.to_event();
        Event {
            id: new.id,
            source: self.source.to_owned(),
            kind: new.kind,
            subject: new.subject,
            sequence: self.sequence,
            correlationid: self.correlation.to_owned(),
            causationid: new.causationid,
            sessionid: self.session.to_owned(),
            authid: self.principal.map(str::to_owned),
            time: new.time.unwrap_or_else(|| self.recordedtime.to_string()),
            recordedtime: self.recordedtime,
            position: self.position,
            batch: self.batch,
            datacontenttype: new.datacontenttype,
            dataschema: new.dataschema,
            traceparent: new.traceparent,
            extensions: new.extensions,
            data: new.data,
        }
    }
}

/// A record that is no event: damage that a checksum did not see, or a newer program's.
#[derive(Debug, thiserror::Error)]
#[error("the record is no event of this version: {0}")]
pub(crate) struct NoEvent(&'static str);

pub(crate) fn decode(position: Position, body: &[u8]) -> Result<(Event, Defaulted), NoEvent> {
    with(position, body, |event, defaulted| (event.to_event(), defaulted))
}

/// Hands `take` the event in the bytes of its record.
pub(crate) fn with<T>(
    position: Position,
    body: &[u8],
    take: impl FnOnce(&EventRef<'_>, Defaulted) -> T,
) -> Result<T, NoEvent> {
    let mut input = Input(body);
    let version = input.take(1)?[0];
    if !(VERSION_PLAIN..=VERSION).contains(&version) {
        return Err(NoEvent("its version is unknown"));
    }
    let flags = u16::from_le_bytes(input.array()?);
    let has = |bit| flags & bit != 0;
    let recordedtime = Timestamp(i64::from_le_bytes(input.array()?));
    let sequence = if has(flag::SUBJECT) { Some(Sequence(u64::from_le_bytes(input.array()?))) } else { None };
    let batch = if has(flag::BATCH) {
        let first =
            position.0.checked_sub(input.varint()?).ok_or(NoEvent("its batch begins before the log"))?;
        let size = u32::try_from(input.varint()?).map_err(|_| NoEvent("its batch is too large"))?;
        Some((Position(first), size))
    } else {
        None
    };
    let id = input.name(version)?;
    let kind = input.text()?;
    let source = input.text()?;
    let sessionid = input.name(version)?;
    let correlationid = input.name(version)?;
    let time = input.text()?;
    let subject = if has(flag::SUBJECT) { Some(input.text()?) } else { None };
    let causationid = if has(flag::CAUSE) { Some(input.name(version)?) } else { None };
    let mut optional = |bit| if has(bit) { input.text().map(Some) } else { Ok(None) };
    let authid = optional(flag::PRINCIPAL)?;
    let datacontenttype = optional(flag::CONTENT_TYPE)?;
    let dataschema = optional(flag::SCHEMA)?;
    let traceparent = optional(flag::TRACEPARENT)?;
    let extensions = if has(flag::EXTENSIONS) { input.extensions()? } else { Vec::new() };
    let data = if has(flag::DATA_JSON) {
        // It was checked when it was published, and its checksum says that it is unchanged.
        Some(DataRef::Json(str::from_utf8(input.0).map_err(|_| NoEvent("its data is no UTF-8"))?))
    } else if has(flag::DATA_BINARY) {
        Some(DataRef::Binary(input.0))
    } else {
        None
    };
    let defaulted = Defaulted {
        source: has(flag::SOURCE_DEFAULTED),
        time: has(flag::TIME_DEFAULTED),
        correlation: has(flag::CORRELATION_DEFAULTED),
    };
    let event = EventRef {
        id,
        source,
        kind,
        subject,
        sequence,
        correlationid,
        causationid,
        sessionid,
        authid,
        time: (!defaulted.time).then_some(time),
        recordedtime,
        position,
        batch,
        datacontenttype,
        dataschema,
        traceparent,
        extensions: &extensions,
        data,
    };
    Ok(take(&event, defaulted))
}

/// What the client sent, as far as idempotence asks.
pub(crate) fn as_sent(event: Event, defaulted: Defaulted) -> NewEvent {
    NewEvent {
        id: event.id,
        source: (!defaulted.source).then_some(event.source),
        kind: event.kind,
        subject: event.subject,
        sequence: event.sequence,
        correlationid: (!defaulted.correlation).then_some(event.correlationid),
        causationid: event.causationid,
        time: (!defaulted.time).then_some(event.time),
        datacontenttype: event.datacontenttype,
        dataschema: event.dataschema,
        traceparent: event.traceparent,
        extensions: event.extensions,
        data: event.data,
    }
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_name(out: &mut Vec<u8>, text: &str) {
    let (plain, uuid) = packed(text).map_or((text, None), |(plain, uuid)| (plain, Some(uuid)));
    put_varint(out, (plain.len() as u64) << 1 | u64::from(uuid.is_some()));
    out.extend_from_slice(plain.as_bytes());
    out.extend_from_slice(uuid.as_ref().map_or(&[][..], |uuid| uuid));
}

/// What stands before the UUID at the end of `text`, if there is one. Upper case
/// and other forms would not come back.
fn packed(text: &str) -> Option<(&str, [u8; 16])> {
    let (plain, last) = text.split_at_checked(text.len().checked_sub(Hyphenated::LENGTH)?)?;
    let last: &[u8; Hyphenated::LENGTH] = last.as_bytes().try_into().ok()?;
    let (mut uuid, mut digits) = ([0; 16], 0);
    for (byte, at) in uuid.iter_mut().zip(UUID_BYTES_AT) {
        let (high, low) = (DIGITS[usize::from(last[at])], DIGITS[usize::from(last[at + 1])]);
        digits |= high | low;
        *byte = high << 4 | low;
    }
    let hyphens = [8, 13, 18, 23].iter().all(|at| last[*at] == b'-');
    (hyphens && digits < 16).then_some((plain, uuid))
}

/// Where the digits of each byte begin.
const UUID_BYTES_AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The value of a hexadecimal digit in lower case; 255 for all else.
const DIGITS: [u8; 256] = {
    let mut digits = [255; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// A record of an event that has its place.
#[cfg(test)]
pub(crate) fn encode(event: &Event, defaulted: Defaulted, out: &mut Vec<u8>) {
    Stamped {
        new: as_sent(event.clone(), defaulted).lend(),
        source: &event.source,
        correlation: &event.correlationid,
        session: &event.sessionid,
        names: None,
        principal: event.authid.as_deref(),
        sequence: event.sequence,
        recordedtime: event.recordedtime,
        position: event.position,
        batch: event.batch,
    }
    .encode(out);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], NoEvent> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(NoEvent("it ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NoEvent> {
        self.chunk().copied()
    }

    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], NoEvent> {
        let (head, rest) = self.0.split_first_chunk().ok_or(NoEvent("it ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, NoEvent> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(NoEvent("a number is too long"))
    }

    fn text(&mut self) -> Result<&'a str, NoEvent> {
        let len = self.varint()?;
        self.utf8(len)
    }

    fn name(&mut self, version: u8) -> Result<Name<'a>, NoEvent> {
        if version == VERSION_PLAIN {
            return Ok(Name { plain: self.text()?, uuid: None });
        }
        let head = self.varint()?;
        let plain = self.utf8(head >> 1)?;
        let uuid = if head & 1 == 0 { None } else { Some(self.chunk()?) };
        Ok(Name { plain, uuid })
    }

    fn extensions(&mut self) -> Result<Vec<(String, ExtensionValue)>, NoEvent> {
        let mut extensions = Vec::new();
        for _ in 0..self.varint()? {
            let name = self.text()?.to_owned();
            let value = match self.take(1)?[0] {
                0 => ExtensionValue::Boolean(self.take(1)?[0] != 0),
                1 => ExtensionValue::Integer(i32::from_le_bytes(self.array()?)),
                2 => ExtensionValue::String(self.text()?.to_owned()),
                _ => return Err(NoEvent("an extension has an unknown kind")),
            };
            extensions.push((name, value));
        }
        Ok(extensions)
    }

    fn utf8(&mut self, len: u64) -> Result<&'a str, NoEvent> {
        let len = usize::try_from(len).map_err(|_| NoEvent("a text is too long"))?;
        str::from_utf8(self.take(len)?).map_err(|_| NoEvent("a text is no UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daybook_model::{Data, JsonText};

    const UUID: &str = "0198c0de-0000-7000-8abc-0123456789ab";

    fn event(id: &str) -> Event {
        Event {
            id: id.into(),
            source: "/s".into(),
            kind: "T".into(),
            subject: Some("account/1".into()),
            sequence: Some(Sequence(7)),
            correlationid: UUID.into(),
            causationid: Some(format!("order-{UUID}")),
            sessionid: format!("bank/1/{UUID}"),
            authid: None,
            time: "2026-11-24T09:30:00Z".into(),
            recordedtime: Timestamp(5),
            position: Position(12),
            batch: Some((Position(10), 3)),
            datacontenttype: None,
            dataschema: None,
            traceparent: None,
            extensions: vec![("zone".into(), ExtensionValue::String("a".into()))],
            data: Some(Data::Json(JsonText::known_good("{\"a\":1}"))),
        }
    }

    #[test]
    fn names_come_back_byte_for_byte_whatever_they_look_like() {
        let shifted = format!("{UUID}0");
        let braced = format!("{{{UUID}}}");
        let (upper, simple) = (UUID.to_uppercase(), UUID.replace('-', ""));
        let urn = format!("urn:uuid:{UUID}");
        let cut = &UUID[1..];
        let odd = format!("läufer/{UUID}");
        // A letter of two bytes where a UUID would begin.
        let split = format!("x{}", "ä".repeat(18));
        for id in ["1", UUID, &shifted, &braced, &upper, &simple, &urn, cut, &odd, &split] {
            let event = event(id);
            let mut record = Vec::new();
            encode(&event, Defaulted::default(), &mut record);
            assert_eq!(decode(Position(12), &record).unwrap().0, event, "{id}");
        }
    }

    #[test]
    fn a_uuid_takes_sixteen_bytes() {
        let bytes = |id: &str| {
            let mut record = Vec::new();
            encode(&event(id), Defaulted::default(), &mut record);
            record.len()
        };
        assert_eq!(bytes(UUID), bytes("1") + 15);
        assert_eq!(bytes(&UUID.to_uppercase()), bytes("1") + 35);
    }

    /// Byte for byte as the first program wrote it.
    #[test]
    fn a_record_of_version_1_reads_for_ever() {
        let mut record = vec![1];
        record.extend_from_slice(&0x0107_u16.to_le_bytes());
        record.extend_from_slice(&5i64.to_le_bytes());
        record.extend_from_slice(&7u64.to_le_bytes());
        record.extend_from_slice(&[2, 3]);
        let texts = [UUID, "T", "/s", "bank/1/2", "c", "2026-11-24T09:30:00Z", "account/1", "cause"];
        for text in texts {
            record.push(text.len() as u8);
            record.extend_from_slice(text.as_bytes());
        }
        record.extend_from_slice(b"{\"a\":1}");
        let expected = Event {
            correlationid: "c".into(),
            causationid: Some("cause".into()),
            sessionid: "bank/1/2".into(),
            extensions: vec![],
            ..event(UUID)
        };
        assert_eq!(decode(Position(12), &record).unwrap(), (expected, Defaulted::default()));
    }

    #[test]
    fn a_record_that_is_cut_short_is_no_event() {
        let mut event = event(UUID);
        event.data = None;
        let mut record = Vec::new();
        encode(&event, Defaulted::default(), &mut record);
        for len in 0..record.len() {
            assert!(decode(Position(12), &record[..len]).is_err(), "{len} bytes");
        }
    }
}
