//! An event: CloudEvents 1.0 plus Daybook's attributes.
//!
//! [`NewEvent`] is what a client sends, [`Event`] what the log holds. `data`
//! stays as the bytes it came in; `data_base64` is kept as the bytes it means.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Error as _, MapAccess};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::json::JsonText;
use crate::{Position, Sequence, Timestamp};

/// The payload.
#[derive(Clone, Debug)]
pub enum Data {
    /// Any JSON value, byte for byte as it was published.
    Json(JsonText),
    /// `data_base64`, decoded.
    Binary(Vec<u8>),
}

impl Data {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(raw) => raw.get().len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Any serialisable value as JSON data.
    pub fn json<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(|raw| Self::Json(raw.into()))
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Json(a), Self::Json(b)) => a.get() == b.get(),
            (Self::Binary(a), Self::Binary(b)) => a == b,
            _ => false,
        }
    }
}

/// Value of an extension attribute, as CloudEvents types it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ExtensionValue {
    Boolean(bool),
    Integer(i32),
    String(String),
}

// The derived one tries the kinds in turn and makes an error of each that it is
// not: an event with extensions took twice as long to read.
impl<'de> Deserialize<'de> for ExtensionValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ExtensionVisitor)
    }
}

struct ExtensionVisitor;

impl ExtensionVisitor {
    fn whole<E: de::Error>(number: Option<i32>) -> Result<ExtensionValue, E> {
        number.map(ExtensionValue::Integer).ok_or_else(|| E::custom("not a 32-bit integer"))
    }
}

impl de::Visitor<'_> for ExtensionVisitor {
    type Value = ExtensionValue;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string, a boolean or a 32-bit integer")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<ExtensionValue, E> {
        Ok(ExtensionValue::Boolean(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<ExtensionValue, E> {
        Self::whole(i32::try_from(value).ok())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<ExtensionValue, E> {
        Self::whole(i32::try_from(value).ok())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<ExtensionValue, E> {
        Ok(ExtensionValue::String(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<ExtensionValue, E> {
        Ok(ExtensionValue::String(value))
    }
}

/// What a client asks to store. Attributes that the server sets are not here:
/// a client that sends them has them ignored, so that a read event can be published.
///
/// Two `NewEvent`s have the same *content* (idempotence) if all members but
/// `sequence` are equal: see [`NewEventRef::same_content`].
#[derive(Clone, Debug, PartialEq, Default)]
pub struct NewEvent {
    pub id: String,
    /// Absent: `/<service>` of the session.
    pub source: Option<String>,
    /// The CloudEvents attribute `type`.
    pub kind: String,
    pub subject: Option<String>,
    /// The value this event expects to take; absent: the next one.
    pub sequence: Option<Sequence>,
    pub correlationid: Option<String>,
    pub causationid: Option<String>,
    /// RFC 3339, kept as written. Absent: the server's clock.
    pub time: Option<String>,
    pub datacontenttype: Option<String>,
    pub dataschema: Option<String>,
    pub traceparent: Option<String>,
    /// In order of name.
    pub extensions: Vec<(String, ExtensionValue)>,
    pub data: Option<Data>,
}

impl NewEvent {
    pub fn new(id: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { id: id.into(), kind: kind.into(), ..Self::default() }
    }

    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    #[must_use]
    pub fn sequence(mut self, sequence: Sequence) -> Self {
        self.sequence = Some(sequence);
        self
    }

    #[must_use]
    pub fn data(mut self, data: Data) -> Self {
        self.data = Some(data);
        self
    }

    /// Caused by `event`: inherits its correlation and names it.
    #[must_use]
    pub fn caused_by(mut self, event: &Event) -> Self {
        self.causationid = Some(event.id.clone());
        self.correlationid = Some(event.correlationid.clone());
        self
    }
}

/// An event of the log, as every reader sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: String,
    pub source: String,
    /// The CloudEvents attribute `type`.
    pub kind: String,
    pub subject: Option<String>,
    pub sequence: Option<Sequence>,
    pub correlationid: String,
    pub causationid: Option<String>,
    pub sessionid: String,
    pub authid: Option<String>,
    /// RFC 3339 as the client wrote it.
    pub time: String,
    pub recordedtime: Timestamp,
    pub position: Position,
    /// Position of the first event of its batch, and the batch's size; only in
    /// a batch of several.
    pub batch: Option<(Position, u32)>,
    pub datacontenttype: Option<String>,
    pub dataschema: Option<String>,
    pub traceparent: Option<String>,
    pub extensions: Vec<(String, ExtensionValue)>,
    pub data: Option<Data>,
}

impl Event {
    /// Bytes this event takes in memory and on the wire, roughly.
    pub fn weight(&self) -> usize {
        384 + self.data.as_ref().map_or(0, Data::len)
            + self.extensions.iter().map(|(n, _)| n.len() + 32).sum::<usize>()
    }

    /// `data` as a value of type `T`; absent data reads as `null`.
    pub fn data_as<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        match &self.data {
            Some(Data::Json(raw)) => serde_json::from_str(raw.get()),
            Some(Data::Binary(_)) => Err(serde_json::Error::custom("the data is binary")),
            None => serde_json::from_str("null"),
        }
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("source", &self.source)?;
        map.serialize_entry("type", &self.kind)?;
        entry(&mut map, "subject", &self.subject)?;
        entry(&mut map, "sequence", &self.sequence)?;
        map.serialize_entry("correlationid", &self.correlationid)?;
        entry(&mut map, "causationid", &self.causationid)?;
        map.serialize_entry("sessionid", &self.sessionid)?;
        entry(&mut map, "authid", &self.authid)?;
        map.serialize_entry("time", &self.time)?;
        map.serialize_entry("recordedtime", &self.recordedtime)?;
        map.serialize_entry("position", &self.position)?;
        if let Some((first, size)) = self.batch {
            map.serialize_entry("batchfirst", &first)?;
            map.serialize_entry("batchsize", &size.to_string())?;
        }
        entry(&mut map, "datacontenttype", &self.datacontenttype)?;
        entry(&mut map, "dataschema", &self.dataschema)?;
        entry(&mut map, "traceparent", &self.traceparent)?;
        payload(&mut map, &self.extensions, self.data.as_ref())?;
        map.end()
    }
}

impl Serialize for NewEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", &self.id)?;
        entry(&mut map, "source", &self.source)?;
        map.serialize_entry("type", &self.kind)?;
        entry(&mut map, "subject", &self.subject)?;
        entry(&mut map, "sequence", &self.sequence)?;
        entry(&mut map, "correlationid", &self.correlationid)?;
        entry(&mut map, "causationid", &self.causationid)?;
        entry(&mut map, "time", &self.time)?;
        entry(&mut map, "datacontenttype", &self.datacontenttype)?;
        entry(&mut map, "dataschema", &self.dataschema)?;
        entry(&mut map, "traceparent", &self.traceparent)?;
        payload(&mut map, &self.extensions, self.data.as_ref())?;
        map.end()
    }
}

fn entry<M: SerializeMap, T: Serialize>(map: &mut M, name: &str, value: &Option<T>) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(name, value),
        None => Ok(()),
    }
}

fn payload<M: SerializeMap>(
    map: &mut M,
    extensions: &[(String, ExtensionValue)],
    data: Option<&Data>,
) -> Result<(), M::Error> {
    for (name, value) in extensions {
        map.serialize_entry(name, value)?;
    }
    match data {
        Some(Data::Json(raw)) => map.serialize_entry("data", raw),
        Some(Data::Binary(bytes)) => map.serialize_entry("data_base64", &BASE64.encode(bytes)),
        None => Ok(()),
    }
}

/// Every attribute as it may stand in JSON: the common ground of both kinds.
#[derive(Default)]
struct Attributes {
    new: NewEvent,
    sessionid: Option<String>,
    authid: Option<String>,
    recordedtime: Option<Timestamp>,
    position: Option<Position>,
    batchfirst: Option<Position>,
    batchsize: Option<u32>,
}

/// Reads the attributes of one JSON object. `STORED` tells whether those that
/// the server sets are read or ignored.
struct AttributesVisitor<const STORED: bool>;

impl<'de, const STORED: bool> de::Visitor<'de> for AttributesVisitor<STORED> {
    type Value = Attributes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event: a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
        let mut all = Attributes::default();
        let new = &mut all.new;
        let (mut id, mut kind, mut specversion) = (None, None, None::<Cow<'de, str>>);
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            match &*name {
                "specversion" => {
                    let version: Option<Text<'de>> = map.next_value()?;
                    once(&mut specversion, &name, version.map(|version| version.0))?;
                }
                "id" => once(&mut id, &name, map.next_value()?)?,
                "type" => once(&mut kind, &name, map.next_value()?)?,
                "source" => once(&mut new.source, &name, map.next_value()?)?,
                "subject" => once(&mut new.subject, &name, map.next_value()?)?,
                "sequence" => once(&mut new.sequence, &name, map.next_value()?)?,
                "correlationid" => once(&mut new.correlationid, &name, map.next_value()?)?,
                "causationid" => once(&mut new.causationid, &name, map.next_value()?)?,
                "time" => once(&mut new.time, &name, map.next_value()?)?,
                "datacontenttype" => once(&mut new.datacontenttype, &name, map.next_value()?)?,
                "dataschema" => once(&mut new.dataschema, &name, map.next_value()?)?,
                "traceparent" => once(&mut new.traceparent, &name, map.next_value()?)?,
                "data" => {
                    once(&mut new.data, &name, Some(Data::Json(map.next_value()?)))?;
                }
                "data_base64" => {
                    let text: Option<Cow<'de, str>> = map.next_value()?;
                    let Some(text) = text else { continue };
                    let bytes = BASE64
                        .decode(text.as_bytes())
                        .map_err(|e| A::Error::custom(format!("no base64: {e}")))?;
                    once(&mut new.data, "data and data_base64", Some(Data::Binary(bytes)))?;
                }
                "sessionid" if STORED => all.sessionid = map.next_value()?,
                "authid" if STORED => all.authid = map.next_value()?,
                "recordedtime" if STORED => all.recordedtime = map.next_value()?,
                "position" if STORED => all.position = map.next_value()?,
                "batchfirst" if STORED => all.batchfirst = map.next_value()?,
                "batchsize" if STORED => {
                    let text: Option<Cow<'de, str>> = map.next_value()?;
                    let size = text.map(|t| t.parse()).transpose();
                    all.batchsize = size.map_err(|_| A::Error::custom("expected a decimal string"))?;
                }
                "sessionid" | "authid" | "recordedtime" | "position" | "batchfirst" | "batchsize" => {
                    map.next_value::<de::IgnoredAny>()?;
                }
                _ => {
                    let value: Option<ExtensionValue> = map.next_value().map_err(|_| {
                        A::Error::custom(format!(
                            "attribute `{name}`: expected a string, a boolean or a 32-bit integer"
                        ))
                    })?;
                    if let Some(value) = value {
                        new.extensions.push((name.into_owned(), value));
                    }
                }
            }
        }
        match specversion.as_deref() {
            Some("1.0") => {}
            Some(_) => return Err(A::Error::custom("`specversion` must be \"1.0\"")),
            None => return Err(A::Error::missing_field("specversion")),
        }
        new.id = id.ok_or_else(|| A::Error::missing_field("id"))?;
        new.kind = kind.ok_or_else(|| A::Error::missing_field("type"))?;
        new.extensions.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(pair) = new.extensions.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(A::Error::custom(format!("`{}` occurs twice", pair[0].0)));
        }
        Ok(all)
    }
}

/// A text, borrowed where JSON allows it.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// A member that occurs twice is a mistake or an attack on a lenient parser.
fn once<T, E: de::Error>(slot: &mut Option<T>, name: &str, value: Option<T>) -> Result<(), E> {
    if slot.is_some() {
        return Err(E::custom(format!("`{name}` occurs twice")));
    }
    *slot = value;
    Ok(())
}

impl<'de> Deserialize<'de> for NewEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(deserializer.deserialize_map(AttributesVisitor::<false>)?.new)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = deserializer.deserialize_map(AttributesVisitor::<true>)?;
        let missing = D::Error::missing_field;
        let new = all.new;
        Ok(Self {
            id: new.id,
            source: new.source.ok_or_else(|| missing("source"))?,
            kind: new.kind,
            subject: new.subject,
            sequence: new.sequence,
            correlationid: new.correlationid.ok_or_else(|| missing("correlationid"))?,
            causationid: new.causationid,
            sessionid: all.sessionid.ok_or_else(|| missing("sessionid"))?,
            authid: all.authid,
            time: new.time.ok_or_else(|| missing("time"))?,
            recordedtime: all.recordedtime.ok_or_else(|| missing("recordedtime"))?,
            position: all.position.ok_or_else(|| missing("position"))?,
            batch: all.batchfirst.zip(all.batchsize),
            datacontenttype: new.datacontenttype,
            dataschema: new.dataschema,
            traceparent: new.traceparent,
            extensions: new.extensions,
            data: new.data,
        })
    }
}

mod lent;
mod many;
#[cfg(feature = "schema")]
mod schema;
mod sent;
mod write;

pub use lent::{DataRef, EventRef, Name};
pub use many::NewEvents;
pub(crate) use many::{Place, Places};
pub use sent::NewEventRef;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    const WITH_ODD_DATA: &str =
        r#"{"specversion":"1.0","id":"1","type":"T","data":{ "a" : 1.00,"a":[ ] },"weird2":7}"#;

    #[test]
    fn data_is_kept_byte_for_byte() {
        let event: NewEvent = serde_json::from_str(WITH_ODD_DATA).unwrap();
        let Some(Data::Json(raw)) = &event.data else { panic!("no data") };
        assert_eq!(raw.get(), r#"{ "a" : 1.00,"a":[ ] }"#);
        assert!(serde_json::to_string(&event).unwrap().contains(r#""data":{ "a" : 1.00,"a":[ ] }"#));
    }

    #[test]
    fn what_the_server_sets_is_ignored_from_a_client() {
        let text = r#"{"specversion":"1.0","id":"1","type":"T","position":5,"sessionid":{},"authid":[1]}"#;
        let event: NewEvent = serde_json::from_str(text).unwrap();
        assert_eq!(event, NewEvent::new("1", "T"));
    }

    #[test]
    fn bad_events_are_refused_with_the_member_named() {
        for (text, member) in [
            (r#"{"specversion":"1.0","type":"T"}"#, "id"),
            (r#"{"specversion":"0.3","id":"1","type":"T"}"#, "specversion"),
            (r#"{"specversion":"1.0","id":"1","type":"T","id":"2"}"#, "id"),
            (r#"{"specversion":"1.0","id":"1","type":"T","x":1.5}"#, "x"),
            (r#"{"specversion":"1.0","id":"1","type":"T","data":1,"data_base64":"AA=="}"#, "data_base64"),
        ] {
            let error = serde_json::from_str::<NewEvent>(text).unwrap_err().to_string();
            assert!(error.contains(member), "{error}");
        }
        let limits = Limits::default();
        let long = "x".repeat(129);
        for (event, member) in [
            (NewEvent::new(long.as_str(), "T"), "id"),
            (NewEvent::new("", "T"), "id"),
            (NewEvent::new("1", "daybook.x"), "type"),
            (NewEvent::new("1", "T").subject("a\nb"), "subject"),
            (NewEvent::new("1", "T").sequence(Sequence(0)), "sequence"),
            (NewEvent { time: Some("noon".into()), ..NewEvent::new("1", "T") }, "time"),
        ] {
            assert_eq!(event.validate(&limits).unwrap_err().member, member);
        }
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let event = NewEvent::new("1", "T").data(Data::Json(JsonText::from_string(deep).unwrap()));
        assert_eq!(event.validate(&limits).unwrap_err().member, "data");
    }
}
