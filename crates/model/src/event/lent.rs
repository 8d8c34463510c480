//! An event in the texts of whoever holds them: of a record, of an [`Event`].
//!
//! # Promises
//! 1. It is written as the [`Event`] that it becomes is written, byte for byte.
//! 2. Nothing is copied until it is written or becomes an [`Event`].

use super::{Data, Event, ExtensionValue};
use crate::wire::write::{UUID_CHARS, uuid_text};
use crate::{Position, Sequence, Timestamp};

/// As [`Event`], but lent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EventRef<'a> {
    pub id: Name<'a>,
    pub source: &'a str,
    /// The CloudEvents attribute `type`.
    pub kind: &'a str,
    pub subject: Option<&'a str>,
    pub sequence: Option<Sequence>,
    pub correlationid: Name<'a>,
    pub causationid: Option<Name<'a>>,
    pub sessionid: Name<'a>,
    pub authid: Option<&'a str>,
    /// Absent: the recorded time.
    pub time: Option<&'a str>,
    pub recordedtime: Timestamp,
    pub position: Position,
    pub batch: Option<(Position, u32)>,
    pub datacontenttype: Option<&'a str>,
    pub dataschema: Option<&'a str>,
    pub traceparent: Option<&'a str>,
    pub extensions: &'a [(String, ExtensionValue)],
    pub data: Option<DataRef<'a>>,
}

/// A text that may end in a UUID, which is then kept as its bytes: in the
/// canonical form, lower case with hyphens, it has 36.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Name<'a> {
    pub plain: &'a str,
    pub uuid: Option<&'a [u8; 16]>,
}

/// As [`Data`], but lent. JSON must be well-formed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DataRef<'a> {
    Json(&'a str),
    Binary(&'a [u8]),
}

impl EventRef<'_> {
    pub fn to_event(&self) -> Event {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Event {
            id: self.id.to_text(),
            source: self.source.to_owned(),
            kind: self.kind.to_owned(),
            subject: owned(self.subject),
            sequence: self.sequence,
            correlationid: self.correlationid.to_text(),
            causationid: self.causationid.map(|cause| cause.to_text()),
            sessionid: self.sessionid.to_text(),
            authid: owned(self.authid),
            time: owned(self.time).unwrap_or_else(|| self.recordedtime.to_string()),
            recordedtime: self.recordedtime,
            position: self.position,
            batch: self.batch,
            datacontenttype: owned(self.datacontenttype),
            dataschema: owned(self.dataschema),
            traceparent: owned(self.traceparent),
            extensions: self.extensions.to_vec(),
            data: self.data.map(DataRef::to_data),
        }
    }
}

impl Event {
    pub fn lend(&self) -> EventRef<'_> {
        EventRef {
            id: Name::from(&self.id),
            source: &self.source,
            kind: &self.kind,
            subject: self.subject.as_deref(),
            sequence: self.sequence,
            correlationid: Name::from(&self.correlationid),
            causationid: self.causationid.as_ref().map(Name::from),
            sessionid: Name::from(&self.sessionid),
            authid: self.authid.as_deref(),
            time: Some(&self.time),
            recordedtime: self.recordedtime,
            position: self.position,
            batch: self.batch,
            datacontenttype: self.datacontenttype.as_deref(),
            dataschema: self.dataschema.as_deref(),
            traceparent: self.traceparent.as_deref(),
            extensions: &self.extensions,
            data: self.data.as_ref().map(Data::lend),
        }
    }
}

impl<'a> From<&'a String> for Name<'a> {
    fn from(text: &'a String) -> Self {
        Self { plain: text, uuid: None }
    }
}

impl Name<'_> {
    fn to_text(self) -> String {
        let Some(uuid) = self.uuid else { return self.plain.to_owned() };
        let mut text = String::with_capacity(self.plain.len() + UUID_CHARS);
        text.push_str(self.plain);
        text.push_str(str::from_utf8(&uuid_text(uuid)).expect("digits and hyphens"));
        text
    }
}
