//! Events read where they lie: texts borrow from the frame that they came in,
//! and `data` becomes what the reader wants in the same pass over its bytes.
//!
//! For whoever reads much and keeps little: a replay, a projection. An
//! [`Event`](crate::Event) owns its texts and outlives the frame.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::frame::Message;
use super::{ServerMessage, read};
use crate::{Invalid, Position, Sequence, Timestamp};

/// A message of the server to somebody who follows the log.
#[derive(Debug)]
pub enum Pushed<'a, T = &'a RawValue> {
    Events(EventsIn<'a, T>),
    Other(ServerMessage),
}

/// [`Events`](super::Events) in their frame.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct EventsIn<'a, T = &'a RawValue> {
    pub subscription: u64,
    #[serde(borrow)]
    pub events: Vec<EventIn<'a, T>>,
}

/// An event in its frame. Extensions and what only CloudEvents asks for are
/// skipped; so is `data_base64`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct EventIn<'a, T = &'a RawValue> {
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

impl<'a, T: Deserialize<'a>> Message<'a> for Pushed<'a, T> {
    fn parse(op: &str, json: &'a str) -> Option<Result<Self, Invalid>> {
        match op {
            "events" => Some(read(json).map(Self::Events)),
            _ => ServerMessage::parse(op, json).map(|read| read.map(Self::Other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Events, Shared, messages, write_frame};
    use super::*;
    use crate::{Data, Event, JsonText};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Transfer<'a> {
        to: &'a str,
        amount: i64,
    }

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
}
