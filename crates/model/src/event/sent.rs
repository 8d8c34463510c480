//! An event that somebody wants stored, in the texts of whoever holds them: what
//! is asked of a [`NewEvent`] is asked here.

use super::{Data, DataRef, ExtensionValue, NewEvent};
use crate::json::deeper_than;
use crate::{Invalid, JsonText, Limits, Sequence, Timestamp};

/// As [`NewEvent`], but lent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NewEventRef<'a> {
    pub id: &'a str,
    pub source: Option<&'a str>,
    /// The CloudEvents attribute `type`.
    pub kind: &'a str,
    pub subject: Option<&'a str>,
    pub sequence: Option<Sequence>,
    pub correlationid: Option<&'a str>,
    pub causationid: Option<&'a str>,
    pub time: Option<&'a str>,
    pub datacontenttype: Option<&'a str>,
    pub dataschema: Option<&'a str>,
    pub traceparent: Option<&'a str>,
    pub extensions: &'a [(String, ExtensionValue)],
    pub data: Option<DataRef<'a>>,
}

impl NewEvent {
    #[inline]
    pub fn lend(&self) -> NewEventRef<'_> {
        NewEventRef {
            id: &self.id,
            source: self.source.as_deref(),
            kind: &self.kind,
            subject: self.subject.as_deref(),
            sequence: self.sequence,
            correlationid: self.correlationid.as_deref(),
            causationid: self.causationid.as_deref(),
            time: self.time.as_deref(),
            datacontenttype: self.datacontenttype.as_deref(),
            dataschema: self.dataschema.as_deref(),
            traceparent: self.traceparent.as_deref(),
            extensions: &self.extensions,
            data: self.data.as_ref().map(Data::lend),
        }
    }

    /// See [`NewEventRef::validate`].
    pub fn validate(&self, limits: &Limits) -> Result<(), Invalid> {
        self.lend().validate(limits)
    }
}

impl Data {
    #[inline]
    pub fn lend(&self) -> DataRef<'_> {
        match self {
            Self::Json(json) => DataRef::Json(json.get()),
            Self::Binary(bytes) => DataRef::Binary(bytes),
        }
    }
}

impl DataRef<'_> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn to_data(self) -> Data {
        match self {
            Self::Json(text) => Data::Json(JsonText::known_good(text)),
            Self::Binary(bytes) => Data::Binary(bytes.to_vec()),
        }
    }
}

impl NewEventRef<'_> {
    pub fn to_event(&self) -> NewEvent {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        NewEvent {
            id: self.id.to_owned(),
            source: owned(self.source),
            kind: self.kind.to_owned(),
            subject: owned(self.subject),
            sequence: self.sequence,
            correlationid: owned(self.correlationid),
            causationid: owned(self.causationid),
            time: owned(self.time),
            datacontenttype: owned(self.datacontenttype),
            dataschema: owned(self.dataschema),
            traceparent: owned(self.traceparent),
            extensions: self.extensions.to_vec(),
            data: self.data.map(DataRef::to_data),
        }
    }

    /// Same content as protocol.md defines it: what the client sent, whatever
    /// the sequence.
    pub fn same_content(&self, other: &NewEventRef<'_>) -> bool {
        NewEventRef { sequence: None, ..*self } == NewEventRef { sequence: None, ..*other }
    }

    /// Bytes this event takes, roughly: what admission counts.
    pub fn weight(&self) -> usize {
        let opt = |o: Option<&str>| o.map_or(0, str::len);
        128 + self.id.len()
            + self.kind.len()
            + opt(self.source)
            + opt(self.subject)
            + opt(self.correlationid)
            + opt(self.causationid)
            + self.extensions.iter().map(|(n, _)| n.len() + 32).sum::<usize>()
            + self.data.map_or(0, |data| data.len())
    }

    /// Checks form and limits; the member named is relative to the event.
    pub fn validate(&self, limits: &Limits) -> Result<(), Invalid> {
        let required = |name: &str, text: &str, max: usize| {
            if text.is_empty() {
                Err(Invalid::new(name, "must not be empty"))
            } else {
                check_text(name, text, max)
            }
        };
        let optional = |name: &str, text: Option<&str>, max: usize| match text {
            Some(text) => required(name, text, max),
            None => Ok(()),
        };
        let attribute = limits.attribute_bytes;
        required("id", self.id, limits.id_bytes)?;
        required("type", self.kind, limits.type_bytes)?;
        if self.kind.starts_with("daybook.") {
            return Err(Invalid::new("type", "types that begin with `daybook.` are reserved"));
        }
        optional("source", self.source, attribute)?;
        optional("subject", self.subject, limits.subject_bytes)?;
        if self.sequence.is_some() && self.subject.is_none() {
            return Err(Invalid::new("sequence", "needs a `subject`: a sequence value belongs to a key"));
        }
        optional("correlationid", self.correlationid, limits.id_bytes)?;
        optional("causationid", self.causationid, limits.id_bytes)?;
        optional("time", self.time, attribute)?;
        if self.time.is_some_and(|t| !Timestamp::is_rfc3339(t)) {
            return Err(Invalid::new("time", "expected an RFC 3339 time such as 2026-11-24T09:30:00Z"));
        }
        optional("datacontenttype", self.datacontenttype, attribute)?;
        optional("dataschema", self.dataschema, attribute)?;
        optional("traceparent", self.traceparent, attribute)?;
        if self.extensions.len() > limits.extensions {
            return Err(Invalid::new("", format!("more than {} extension attributes", limits.extensions)));
        }
        for (name, value) in self.extensions {
            let good = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            if !good || name.is_empty() || name.len() > limits.extension_name_bytes {
                let rule = "an attribute's name has at most 20 lower-case letters and digits";
                return Err(Invalid::new(name.as_str(), rule));
            }
            if let ExtensionValue::String(text) = value {
                check_text(name, text, attribute)?;
            }
        }
        match self.data {
            Some(data) if data.len() > limits.event_bytes => Err(Invalid {
                member: "data".into(),
                reason: format!("{} bytes, at most {} are allowed", data.len(), limits.event_bytes),
                too_large: true,
            }),
            Some(DataRef::Json(text)) if deeper_than(text, limits.json_depth) => {
                Err(Invalid::new("data", format!("nested deeper than {}", limits.json_depth)))
            }
            _ => Ok(()),
        }
    }
}

fn check_text(name: &str, text: &str, max: usize) -> Result<(), Invalid> {
    if text.len() > max {
        return Err(Invalid::new(name, format!("{} bytes, at most {max} are allowed", text.len())));
    }
    // ASCII that is printed needs no second look, and nearly all is that.
    let plain = text.bytes().fold(true, |plain, byte| plain & matches!(byte, 0x20..=0x7e));
    if !plain && text.chars().any(char::is_control) {
        return Err(Invalid::new(name, "must not contain control characters"));
    }
    Ok(())
}
