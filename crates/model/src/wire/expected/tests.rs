//! Both ways to read a message say the same.

use super::super::frame::Message;
use super::super::{Pushed, read, write_frame};
use super::*;
use crate::{ExtensionValue, Limits, NewEvent};

const UUID: &str = "0198c0de-0000-7000-8abc-0123456789ab";

fn plain() -> Event {
    Event {
        id: UUID.into(),
        source: "/bank".into(),
        kind: "Moved".into(),
        subject: None,
        sequence: None,
        correlationid: "c".into(),
        causationid: None,
        sessionid: format!("bank/1/{UUID}"),
        authid: None,
        time: "2026-11-24T09:30:00Z".into(),
        recordedtime: Timestamp(1_700_000_000_000_001),
        position: Position(0),
        batch: None,
        datacontenttype: None,
        dataschema: None,
        traceparent: None,
        extensions: Vec::new(),
        data: None,
    }
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize].clone()
    }

    fn text(&mut self) -> String {
        let parts = [
            "a",
            "läufer",
            "☃",
            "\"",
            "\\",
            "\n",
            "\u{1}",
            "\u{7f}",
            "💶",
            "/",
            " ",
            "x12345678",
            UUID,
            "null",
        ];
        (0..self.roll(5)).map(|_| self.one(&parts)).collect()
    }

    fn perhaps<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.roll(2) == 0).then(|| make(self))
    }

    fn data(&mut self) -> Data {
        let json = [
            r#"{"from":"account/1","amount":12,"memo":"x"}"#,
            r#"{ "a" : [1.00, -0, 1e400, 123456789012345678901234567890] ,"a":null}"#,
            r#""\ud83d\ude00 \ud800 \u0000 läufer""#,
            "null",
            "true",
            "-1.5E+7",
            "[]",
            "[[[[[[]]]],{}]]",
            "{}",
            "[\n  1,\n\t2\r\n]",
        ];
        match self.roll(8) {
            0 => Data::Binary(vec![0, 255, 7]),
            _ => Data::Json(JsonText::known_good(self.one(&json))),
        }
    }

    fn event(&mut self) -> Event {
        let number = |dice: &mut Self| dice.one(&[0, 1, 9, 10, 99, 100, 12_345, u64::MAX]);
        Event {
            id: self.text(),
            source: self.text(),
            kind: self.text(),
            subject: self.perhaps(Self::text),
            sequence: self.perhaps(number).map(Sequence),
            correlationid: self.text(),
            causationid: self.perhaps(Self::text),
            sessionid: self.text(),
            authid: self.perhaps(Self::text),
            time: self.text(),
            recordedtime: self.one(&[Timestamp(0), Timestamp(1_700_000_000_000_001), Timestamp(-5)]),
            position: Position(number(self)),
            batch: self.perhaps(|dice| (Position(number(dice)), dice.one(&[0, 2, u32::MAX]))),
            datacontenttype: self.perhaps(Self::text),
            dataschema: self.perhaps(Self::text),
            traceparent: self.perhaps(Self::text),
            extensions: match self.roll(4) {
                0 => vec![
                    ("flag".into(), ExtensionValue::Boolean(true)),
                    ("zone".into(), ExtensionValue::String(self.text())),
                ],
                _ => Vec::new(),
            },
            data: self.perhaps(Self::data),
        }
    }

    /// Mostly without escapes, as most are.
    fn name(&mut self) -> String {
        match self.roll(12) {
            0 => self.text(),
            _ => self.one(&["", "a", "läufer ☃", "account/12345678", UUID, "\u{7f}", "daybook.x"]).into(),
        }
    }

    fn new_event(&mut self) -> NewEvent {
        NewEvent {
            id: self.name(),
            source: self.perhaps(Self::name),
            kind: self.name(),
            subject: self.perhaps(Self::name),
            sequence: self.perhaps(|dice| Sequence(dice.one(&[0, 9, 10, u64::MAX]))),
            correlationid: self.perhaps(Self::name),
            causationid: self.perhaps(Self::name),
            time: self.perhaps(|dice| dice.one(&["noon", "2026-11-24T09:30:00Z", ""]).into()),
            datacontenttype: self.perhaps(Self::name),
            dataschema: self.perhaps(Self::name),
            traceparent: self.perhaps(Self::name),
            extensions: match self.roll(12) {
                0 => vec![("flag".into(), ExtensionValue::Boolean(true))],
                _ => Vec::new(),
            },
            data: self.perhaps(Self::data),
        }
    }

    fn publish(&mut self) -> Publish {
        let events: Vec<_> = (0..self.roll(4)).map(|_| self.new_event()).collect();
        Publish { id: self.one(&[0, 7, u64::MAX]), events: events.into(), delivery: self.perhaps(Self::name) }
    }

    /// `json` with one to three places of it replaced, cut out or added to.
    fn broken(&mut self, mut json: String) -> String {
        let others =
            ["", " ", "\"", "\\", ",", ":", "{", "}", "[", "]", "0", "null", "\n", "\u{1}", "ä", r#""x":1,"#];
        for _ in 0..=self.roll(2) {
            let mut at = self.roll(json.len() as u64 + 1) as usize;
            while !json.is_char_boundary(at) {
                at -= 1;
            }
            let taken = json[at..].chars().next().map_or(0, char::len_utf8) * self.roll(2) as usize;
            json.replace_range(at..at + taken, self.one(&others));
        }
        json
    }

    fn receipted(&mut self) -> Vec<Receipted> {
        let count = self.roll(4);
        let one = |_| Receipted {
            id: self.text(),
            position: Position(self.one(&[0, 10, u64::MAX])),
            sequence: self.perhaps(|dice| Sequence(dice.one(&[0, 9, 10, u64::MAX]))),
            recordedtime: self.one(&[Timestamp(0), Timestamp(1_700_000_000_000_001), Timestamp(-5)]),
            duplicate: self.roll(2) == 0,
        };
        (0..count).map(one).collect()
    }

    fn message(&mut self) -> ServerMessage {
        let events: Vec<_> = (0..self.roll(4)).map(|_| Shared(self.event().into())).collect();
        match self.roll(4) {
            3 => Receipt { id: self.one(&[0, 7, u64::MAX]), events: self.receipted() }.into(),
            0 => Events { subscription: self.one(&[0, 7, u64::MAX]), events }.into(),
            1 => Page { id: 3, events, next: self.perhaps(|dice| Position(dice.roll(100))) }.into(),
            _ => {
                let delivery =
                    |event| Delivery { token: self.text(), attempt: self.one(&[1, 20, u32::MAX]), event };
                Deliver { subscription: 1, deliveries: events.into_iter().map(delivery).collect() }.into()
            }
        }
    }
}

fn written(message: &ServerMessage) -> String {
    let mut out = Vec::new();
    write_frame(std::slice::from_ref(message), &mut out);
    String::from_utf8(out).unwrap()
}

fn op(message: &ServerMessage) -> &'static str {
    match message {
        ServerMessage::Events(_) => "events",
        ServerMessage::Page(_) => "page",
        ServerMessage::Deliver(_) => "deliver",
        ServerMessage::Receipt(_) => "receipt",
        other => panic!("none that is read here: {other:?}"),
    }
}

/// The body as serde alone reads it.
fn by_serde(op: &str, json: &str) -> Option<ServerMessage> {
    match op {
        "events" => read::<Events>(json).ok().map(Into::into),
        "page" => read::<Page>(json).ok().map(Into::into),
        "deliver" => read::<Deliver>(json).ok().map(Into::into),
        "receipt" => read::<Receipt>(json).ok().map(Into::into),
        _ => None,
    }
}

/// True if it was read by what is here.
fn compare(op: &str, json: &str) -> bool {
    let expected = ServerMessage::expected(op, json);
    if let Some(message) = &expected {
        assert_eq!(by_serde(op, json).as_ref(), Some(message), "{json}");
    }
    if op == "events"
        && let Some(lent) = EventsIn::<'_>::expected(op, json)
    {
        assert_eq!(read::<EventsIn<'_>>(json).unwrap(), lent, "{json}");
    }
    if op == "receipt"
        && let Some(lent) = ReceiptIn::expected(op, json)
    {
        assert_eq!(read::<ReceiptIn<'_>>(json).unwrap(), lent, "{json}");
    }
    expected.is_some()
}

#[test]
fn what_is_written_here_is_read_without_serde() {
    let full = Event {
        subject: Some("account/1".into()),
        sequence: Some(Sequence(u64::MAX)),
        causationid: Some("cause".into()),
        authid: Some("somebody".into()),
        batch: Some((Position(0), 2)),
        datacontenttype: Some("application/json".into()),
        dataschema: Some("urn:x".into()),
        traceparent: Some("00-1".into()),
        data: Some(Data::Json(JsonText::known_good(r#"{"amount":-5}"#))),
        ..plain()
    };
    for event in [plain(), full] {
        let mut json = Vec::new();
        event.write_json(&mut json);
        let json = String::from_utf8(json).unwrap();
        let mut scan = Scan::new(&json);
        let head = head(&mut scan, &mut Times::default()).unwrap();
        assert_eq!((&*head.id, &*head.time, head.batch), (&*event.id, &*event.time, event.batch));
        assert!(matches!(head.sessionid, Cow::Borrowed(_)));
        assert!(data(&mut scan, |scan| scan.value()).is_some() && scan.is_over());
    }
}

#[test]
fn both_ways_read_random_events_to_the_same() {
    let mut dice = Dice(1);
    for _ in 0..3_000 {
        let message = dice.message();
        let json = written(&message);
        assert!(compare(op(&message), &json), "{json}");
        assert_eq!(ServerMessage::expected(op(&message), &json), Some(message), "{json}");
    }
}

#[test]
fn both_ways_read_what_is_broken_or_unusual_to_the_same() {
    let mut dice = Dice(2);
    for _ in 0..4_000 {
        let message = dice.message();
        let json = dice.broken(written(&message));
        compare(op(&message), &json);
    }
}

fn published(publish: &Publish) -> String {
    let mut out = Vec::new();
    write_frame(&[ClientMessage::from(publish.clone())], &mut out);
    String::from_utf8(out).unwrap()
}

/// True if it was read by what is here. What is refused is refused alike.
fn compare_publish(json: &str) -> bool {
    let by_serde = read::<Publish>(json);
    let expected = ClientMessage::expected("publish", json);
    if let Some(message) = &expected {
        let ClientMessage::Publish(lying) = message else { panic!("{message:?}") };
        let owned = by_serde.as_ref().unwrap_or_else(|refused| panic!("{refused}: {json}"));
        assert_eq!(lying, owned, "{json}");
        let verdicts = |publish: &Publish| -> Vec<_> {
            let verdict =
                |event: crate::NewEventRef<'_>| (event.validate(&Limits::default()), event.weight());
            publish.events.iter().map(verdict).collect()
        };
        assert_eq!(verdicts(lying), verdicts(owned), "{json}");
        assert_eq!(published(lying), json);
    }
    let parsed = ClientMessage::parse("publish", json).unwrap();
    assert_eq!(parsed, by_serde.map(ClientMessage::from), "{json}");
    expected.is_some()
}

#[test]
fn random_publishes_are_read_where_they_lie_as_serde_reads_them() {
    let mut dice = Dice(3);
    let mut lying = 0;
    for _ in 0..3_000 {
        let publish = dice.publish();
        let json = published(&publish);
        assert_eq!(ClientMessage::parse("publish", &json), Some(Ok(publish.clone().into())), "{json}");
        let has_escapes = |text: &str| text.contains(['"', '\\', '\n', '\u{1}']);
        let is_plain = |event: crate::NewEventRef<'_>| {
            let texts = [Some(event.id), event.source, Some(event.kind), event.subject];
            let others = [event.correlationid, event.causationid, event.datacontenttype];
            let rest = [event.dataschema, event.traceparent];
            !texts.into_iter().chain(others).chain(rest).flatten().any(has_escapes)
                && event.extensions.is_empty()
                && !matches!(event.data, Some(crate::DataRef::Binary(_)))
                && !matches!(event.data, Some(crate::DataRef::Json("null")))
        };
        assert_eq!(compare_publish(&json), publish.events.iter().all(is_plain), "{json}");
        lying += usize::from(publish.events.len() > 1 && compare_publish(&json));
    }
    assert!(lying > 300, "{lying} batches were read where they lie");
}

#[test]
fn publishes_that_are_broken_or_unusual_are_read_or_refused_as_serde_does() {
    let mut dice = Dice(4);
    for _ in 0..6_000 {
        let publish = dice.publish();
        let json = dice.broken(published(&publish));
        compare_publish(&json);
    }
}

#[test]
fn events_that_lie_in_their_frame_become_owned_ones() {
    let event = NewEvent::new("a", "Moved").subject("k").sequence(Sequence(3));
    let event = event.data(Data::Json(JsonText::known_good(r#"{ "to":"x" }"#)));
    let publish = Publish { id: 1, events: vec![event.clone(), event.clone()].into(), delivery: None };
    let Some(ClientMessage::Publish(read)) = ClientMessage::expected("publish", &published(&publish)) else {
        panic!("not read where it lies")
    };
    assert_eq!(read.events.clone().into_vec(), [event.clone(), event]);
    assert_eq!(format!("{:?}", read.events), format!("{:?}", publish.events));
    assert_eq!(serde_json::to_string(&read).unwrap(), serde_json::to_string(&publish).unwrap());
}

#[test]
fn members_in_another_order_mean_the_same() {
    let json = r#"{"op":"events","subscription":3,"events":[{"position":"5","data":null,"specversion":"1.0",
        "type":"T","id":"\u0061","x":"y","source":"/s","correlationid":"c","sessionid":"s","time":"t",
        "recordedtime":"2026-11-24T09:30:00.123456Z","newer":7}]}"#;
    assert!(compare("events", json));
    assert!(!compare("events", &json.replace("}]}", "}] }")), "a message is read by one or the other");
    let Some(Ok(Pushed::Events(events))) = <Pushed<'_> as Message<'_>>::parse("events", json) else {
        panic!("not read");
    };
    assert_eq!((&*events.events[0].id, events.events[0].position), ("a", Position(5)));
}
