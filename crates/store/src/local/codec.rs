//! An event as a record: a compact binary envelope and the bytes of `data` as
//! they came. The position is the record's place, not stored.
//!
//! ```text
//! 1 version (1)   2 flags   8 recordedtime (µs)   [8 sequence] [varint first offset, varint size of the batch]
//! then strings, each varint length + UTF-8: id, type, source, session, correlation, time (empty: the recorded time),
//! [subject] [cause] [principal] [datacontenttype] [dataschema] [traceparent]
//! [varint count, then name, kind 0/1/2, value per extension]   [data: the rest]
//! ```

use daybook_model::{Data, Event, ExtensionValue, JsonText, NewEvent, Position, Sequence, Timestamp};

const VERSION: u8 = 1;

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
    pub fn of(new: &NewEvent) -> Self {
        Self {
            source: new.source.is_none(),
            time: new.time.is_none(),
            correlation: new.correlationid.is_none(),
        }
    }
}

pub(crate) fn encode(event: &Event, defaulted: Defaulted, out: &mut Vec<u8>) {
    let mut flags = 0;
    let mut set = |on: bool, bit: u16| flags |= if on { bit } else { 0 };
    set(event.subject.is_some(), flag::SUBJECT);
    set(event.batch.is_some(), flag::BATCH);
    set(event.causationid.is_some(), flag::CAUSE);
    set(event.authid.is_some(), flag::PRINCIPAL);
    set(event.datacontenttype.is_some(), flag::CONTENT_TYPE);
    set(event.dataschema.is_some(), flag::SCHEMA);
    set(event.traceparent.is_some(), flag::TRACEPARENT);
    set(!event.extensions.is_empty(), flag::EXTENSIONS);
    set(matches!(event.data, Some(Data::Json(_))), flag::DATA_JSON);
    set(matches!(event.data, Some(Data::Binary(_))), flag::DATA_BINARY);
    set(defaulted.source, flag::SOURCE_DEFAULTED);
    set(defaulted.time, flag::TIME_DEFAULTED);
    set(defaulted.correlation, flag::CORRELATION_DEFAULTED);
    out.push(VERSION);
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&event.recordedtime.0.to_le_bytes());
    if let Some(sequence) = event.sequence {
        out.extend_from_slice(&sequence.0.to_le_bytes());
    }
    if let Some((first, size)) = event.batch {
        put_varint(out, event.position.0 - first.0);
        put_varint(out, u64::from(size));
    }
    put_text(out, &event.id);
    put_text(out, &event.kind);
    put_text(out, &event.source);
    put_text(out, &event.sessionid);
    put_text(out, &event.correlationid);
    put_text(out, if defaulted.time { "" } else { &event.time });
    let optional = [
        &event.subject,
        &event.causationid,
        &event.authid,
        &event.datacontenttype,
        &event.dataschema,
        &event.traceparent,
    ];
    for text in optional.into_iter().flatten() {
        put_text(out, text);
    }
    if !event.extensions.is_empty() {
        put_varint(out, event.extensions.len() as u64);
        for (name, value) in &event.extensions {
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
    match &event.data {
        Some(Data::Json(raw)) => out.extend_from_slice(raw.get().as_bytes()),
        Some(Data::Binary(bytes)) => out.extend_from_slice(bytes),
        None => {}
    }
}

/// A record that is no event: damage that a checksum did not see, or a newer program's.
#[derive(Debug, thiserror::Error)]
#[error("the record is no event of this version: {0}")]
pub(crate) struct NoEvent(&'static str);

pub(crate) fn decode(position: Position, body: &[u8]) -> Result<(Event, Defaulted), NoEvent> {
    let mut input = Input(body);
    if input.take(1)?[0] != VERSION {
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
    let id = input.text()?;
    let kind = input.text()?;
    let source = input.text()?;
    let sessionid = input.text()?;
    let correlationid = input.text()?;
    let mut time = input.text()?;
    if has(flag::TIME_DEFAULTED) {
        time = recordedtime.to_string();
    }
    let mut optional = |bit| if has(bit) { input.text().map(Some) } else { Ok(None) };
    let subject = optional(flag::SUBJECT)?;
    let causationid = optional(flag::CAUSE)?;
    let authid = optional(flag::PRINCIPAL)?;
    let datacontenttype = optional(flag::CONTENT_TYPE)?;
    let dataschema = optional(flag::SCHEMA)?;
    let traceparent = optional(flag::TRACEPARENT)?;
    let mut extensions = Vec::new();
    if has(flag::EXTENSIONS) {
        for _ in 0..input.varint()? {
            let name = input.text()?;
            let value = match input.take(1)?[0] {
                0 => ExtensionValue::Boolean(input.take(1)?[0] != 0),
                1 => ExtensionValue::Integer(i32::from_le_bytes(input.array()?)),
                2 => ExtensionValue::String(input.text()?),
                _ => return Err(NoEvent("an extension has an unknown kind")),
            };
            extensions.push((name, value));
        }
    }
    let data = if has(flag::DATA_JSON) {
        let text = str::from_utf8(input.0).map_err(|_| NoEvent("its data is no UTF-8"))?;
        // It was checked when it was published, and its checksum says that it is unchanged.
        Some(Data::Json(JsonText::known_good(text)))
    } else if has(flag::DATA_BINARY) {
        Some(Data::Binary(input.0.to_vec()))
    } else {
        None
    };
    let defaulted = Defaulted {
        source: has(flag::SOURCE_DEFAULTED),
        time: has(flag::TIME_DEFAULTED),
        correlation: has(flag::CORRELATION_DEFAULTED),
    };
    let event = Event {
        id,
        source,
        kind,
        subject,
        sequence,
        correlationid,
        causationid,
        sessionid,
        authid,
        time,
        recordedtime,
        position,
        batch,
        datacontenttype,
        dataschema,
        traceparent,
        extensions,
        data,
    };
    Ok((event, defaulted))
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

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], NoEvent> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(NoEvent("it ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NoEvent> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
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

    fn text(&mut self) -> Result<String, NoEvent> {
        let len = usize::try_from(self.varint()?).map_err(|_| NoEvent("a text is too long"))?;
        let bytes = self.take(len)?;
        str::from_utf8(bytes).map(str::to_owned).map_err(|_| NoEvent("a text is no UTF-8"))
    }
}
