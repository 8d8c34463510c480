//! Events read where they lie: texts borrow from the frame that they came in,
//! and `data` becomes what the reader wants in the same pass over its bytes. And
//! events written from where they lie, receipts read without a copy.
//!
//! For whoever reads or writes much and keeps little: a replay, a projection, an
//! import. An [`Event`](crate::Event) owns its texts and outlives the frame.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::expected::Expected;
use super::frame::Message;
use super::scan::Scan;
use super::write::integer;
use super::{ServerMessage, read};
use crate::{Invalid, NewEventRef, Position, Sequence, Timestamp};

/// What `data` can become.
pub trait Payload<'a>: Deserialize<'a> {
    /// Reads the value that `json` begins with, and tells how long it is.
    fn begin(json: &'a str) -> Option<(Self, usize)> {
        let mut values = serde_json::Deserializer::from_str(json).into_iter();
        let value = values.next()?.ok()?;
        Some((value, values.byte_offset()))
    }
}

/// JSON as it was written: well-formed, not taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonIn<'a>(&'a str);

impl<'a> JsonIn<'a> {
    pub fn get(self) -> &'a str {
        self.0
    }
}

impl<'a> Payload<'a> for JsonIn<'a> {
    fn begin(json: &'a str) -> Option<(Self, usize)> {
        let value = Scan::new(json).value()?;
        Some((Self(value), value.len()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonIn<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'a RawValue>::deserialize(deserializer).map(|raw| Self(raw.get()))
    }
}

/// A message of the server: events and receipts in their frame.
#[derive(Debug)]
pub enum Pushed<'a, T = JsonIn<'a>> {
    Events(EventsIn<'a, T>),
    Receipt(ReceiptIn<'a>),
    Other(ServerMessage),
}

/// [`Receipt`](super::Receipt) in its frame.
#[derive(Debug, PartialEq, Deserialize)]
pub struct ReceiptIn<'a> {
    pub id: u64,
    #[serde(borrow)]
    pub events: Vec<ReceiptedIn<'a>>,
}

/// [`Receipted`](super::Receipted) in its frame.
#[derive(Debug, PartialEq, Deserialize)]
pub struct ReceiptedIn<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    pub position: Position,
    #[serde(default)]
    pub sequence: Option<Sequence>,
    pub recordedtime: Timestamp,
    pub duplicate: bool,
}

/// [`Events`](super::Events) in their frame.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct EventsIn<'a, T = JsonIn<'a>> {
    pub subscription: u64,
    #[serde(borrow)]
    pub events: Vec<EventIn<'a, T>>,
}

/// An event in its frame. Extensions and what only CloudEvents asks for are
/// skipped; so is `data_base64`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct EventIn<'a, T = JsonIn<'a>> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// The CloudEvents attribute `type`.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "optional")]
    pub subject: Option<Cow<'a, str>>,
    #[serde(default)]
    pub sequence: Option<Sequence>,
    #[serde(borrow)]
    pub correlationid: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "optional")]
    pub causationid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub sessionid: Cow<'a, str>,
    /// RFC 3339 as the client wrote it.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    pub recordedtime: Timestamp,
    pub position: Position,
    #[serde(default = "none")]
    pub data: Option<T>,
}

/// Inside an `Option` serde copies what it borrows elsewhere.
fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Ok(Option::<Text<'de>>::deserialize(deserializer)?.map(|text| text.0))
}

/// Without asking that `T` has a default.
fn none<T>() -> Option<T> {
    None
}

impl<'a, T: Payload<'a>> Message<'a> for Pushed<'a, T> {
    fn parse(op: &str, json: &'a str) -> Option<Result<Self, Invalid>> {
        match op {
            "events" => {
                let events = EventsIn::expected(op, json).map_or_else(|| read(json), Ok);
                Some(events.map(Self::Events))
            }
            "receipt" => {
                let receipt = ReceiptIn::expected(op, json).map_or_else(|| read(json), Ok);
                Some(receipt.map(Self::Receipt))
            }
            _ => ServerMessage::parse(op, json).map(|read| read.map(Self::Other)),
        }
    }
}

/// A [`Publish`](super::Publish) in the making, at the end of a frame's buffer.
pub struct PublishOut<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl PublishOut<'_> {
    /// Appends the request, whose events `each` adds.
    pub fn write(out: &mut Vec<u8>, id: u64, each: impl FnOnce(&mut PublishOut<'_>)) {
        out.extend_from_slice(br#"{"op":"publish","id":"#);
        integer(out, id);
        out.extend_from_slice(br#","events":["#);
        each(&mut PublishOut { out, first: true });
        out.extend_from_slice(b"]}");
    }

    pub fn event(&mut self, event: &NewEventRef<'_>) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        event.write_json(self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        ClientMessage, Events, Publish, Receipt, Receipted, Shared, Written, messages, write_frame,
    };
    use super::*;
    use crate::{Data, DataRef, Event, JsonText, NewEvent};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Transfer<'a> {
        to: &'a str,
        amount: i64,
    }

    impl<'a> Payload<'a> for Transfer<'a> {}

    fn event() -> Event {
        Event {
            id: "a\"b".into(),
            source: "/bank".into(),
            kind: "Moved".into(),
            subject: Some("account/läufer".into()),
            sequence: Some(Sequence(u64::MAX)),
            correlationid: "c".into(),
            causationid: Some("cause".into()),
            sessionid: "bank/1/2".into(),
            authid: Some("somebody".into()),
            time: "2026-11-24T09:30:00Z".into(),
            recordedtime: Timestamp(1_700_000_000_000_001),
            position: Position(7),
            batch: Some((Position(6), 3)),
            datacontenttype: Some("application/json".into()),
            dataschema: None,
            traceparent: None,
            extensions: vec![("flag".into(), crate::ExtensionValue::Boolean(true))],
            data: Some(Data::Json(JsonText::known_good(r#"{ "to":"x","amount":-5 }"#))),
        }
    }

    fn frame(events: Vec<Event>) -> String {
        let events = events.into_iter().map(|event| Shared(event.into())).collect();
        let done = super::super::Done { id: 4, stale: None };
        let mut out = Vec::new();
        write_frame::<ServerMessage>(&[Events { subscription: 3, events }.into(), done.into()], &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_in_its_frame_says_what_the_owned_one_says() {
        let bare = Event { subject: None, sequence: None, causationid: None, data: None, ..event() };
        let frame = frame(vec![event(), bare]);
        let mut read = Vec::new();
        messages::<Pushed<'_, Transfer<'_>>>(&frame, |message| read.push(message.unwrap()));
        let [Pushed::Events(events), Pushed::Other(ServerMessage::Done(_))] = read.as_slice() else {
            panic!("{read:?}");
        };
        assert_eq!((events.subscription, events.events.len()), (3, 2));
        let (full, owned) = (&events.events[0], event());
        assert_eq!(full.id, owned.id);
        assert_eq!(full.kind, owned.kind);
        assert_eq!(full.source, owned.source);
        assert_eq!(full.subject.as_deref(), owned.subject.as_deref());
        assert_eq!(full.sequence, owned.sequence);
        assert_eq!(full.correlationid, owned.correlationid);
        assert_eq!(full.causationid.as_deref(), owned.causationid.as_deref());
        assert_eq!(full.sessionid, owned.sessionid);
        assert_eq!(full.time, owned.time);
        assert_eq!((full.recordedtime, full.position), (owned.recordedtime, owned.position));
        assert_eq!(full.data, Some(Transfer { to: "x", amount: -5 }));
        assert!(matches!(full.source, Cow::Borrowed(_)), "it was copied");
        assert!(matches!(full.subject, Some(Cow::Borrowed(_))), "it was copied");
        let bare = &events.events[1];
        assert!(bare.subject.is_none() && bare.sequence.is_none() && bare.data.is_none());
    }

    #[test]
    fn data_that_nobody_takes_apart_stays_as_it_was_written() {
        let frame = frame(vec![event()]);
        messages::<Pushed<'_>>(&frame, |message| {
            if let Pushed::Events(events) = message.unwrap() {
                assert_eq!(events.events[0].data.unwrap().get(), r#"{ "to":"x","amount":-5 }"#);
            }
        });
    }

    #[test]
    fn data_of_another_shape_is_refused_by_name() {
        let frame = frame(vec![Event { data: Some(Data::Json(JsonText::known_good("[1]"))), ..event() }]);
        let mut refused = None;
        messages::<Pushed<'_, Transfer<'_>>>(&frame, |message| refused = refused.take().or(message.err()));
        let refused = refused.unwrap().invalid;
        assert!(refused.member.starts_with("events[0].data"), "{refused}");
    }

    #[test]
    fn a_receipt_in_its_frame_says_what_the_owned_one_says() {
        let receipted = |id: &str, sequence| Receipted {
            id: id.into(),
            position: Position(7),
            sequence,
            recordedtime: Timestamp(1_700_000_000_000_001),
            duplicate: true,
        };
        let receipt =
            Receipt { id: 3, events: vec![receipted("a", None), receipted("b\"", Some(Sequence(9)))] };
        let mut frame = Vec::new();
        write_frame::<ServerMessage>(&[receipt.clone().into()], &mut frame);
        messages::<Pushed<'_>>(str::from_utf8(&frame).unwrap(), |message| {
            let Pushed::Receipt(read) = message.unwrap() else { panic!("no receipt") };
            assert!(matches!(read.events[0].id, Cow::Borrowed("a")), "it was copied");
            let owned = read.events.into_iter().map(|event| Receipted {
                id: event.id.into_owned(),
                position: event.position,
                sequence: event.sequence,
                recordedtime: event.recordedtime,
                duplicate: event.duplicate,
            });
            assert_eq!(Receipt { id: read.id, events: owned.collect() }, receipt);
        });
    }

    #[test]
    fn a_publish_is_written_from_borrowed_texts_as_from_owned_ones() {
        let bare = NewEventRef { id: "a\"b", kind: "Moved", ..NewEventRef::default() };
        let full = NewEventRef {
            subject: Some("account/läufer"),
            sequence: Some(Sequence(u64::MAX)),
            correlationid: Some("c"),
            causationid: Some("cause"),
            data: Some(DataRef::Json(r#"{ "to":"x" }"#)),
            ..bare
        };
        let owned = NewEvent {
            correlationid: Some("c".into()),
            causationid: Some("cause".into()),
            data: Some(Data::Json(JsonText::known_good(r#"{ "to":"x" }"#))),
            ..NewEvent::new("a\"b", "Moved").subject("account/läufer").sequence(Sequence(u64::MAX))
        };
        for (lent, owned) in [
            (vec![], vec![]),
            (vec![bare], vec![NewEvent::new("a\"b", "Moved")]),
            (vec![full, bare], vec![owned, NewEvent::new("a\"b", "Moved")]),
        ] {
            let (mut written, mut expected) = (Vec::new(), Vec::new());
            PublishOut::write(&mut written, 5, |publish| lent.iter().for_each(|event| publish.event(event)));
            ClientMessage::from(Publish { id: 5, events: owned.into(), delivery: None }).write(&mut expected);
            assert_eq!(String::from_utf8(written).unwrap(), String::from_utf8(expected).unwrap());
        }
    }
}
