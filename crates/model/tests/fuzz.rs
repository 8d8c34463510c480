//! What others send as JSON: frames, events, filters. Whatever it is, it is
//! refused with a member named or taken as what it says: written again and read
//! again it is the same.

#![allow(clippy::unwrap_used)]

use daybook_log::fuzz::{Fuzz, Verdict};
use daybook_model::wire::{
    self, ClientMessage, EventIn, JsonIn, Message, Pushed, Receipted, ServerMessage, Written,
};
use daybook_model::{Data, Event, Filter, Invalid, Limits, NewEvent};

const QUICK: u64 = 4_000;

/// What reading may hold in memory for each byte read: a value of two bytes
/// (`{}`) may become a message of a few hundred.
const BYTES_PER_BYTE: u64 = 300;

fn fuzz(name: &'static str, folder: &str) -> Fuzz {
    Fuzz::new(name).folder(format!("{}/tests/corpus/{folder}", env!("CARGO_MANIFEST_DIR")))
}

/// Reads with `read`, which must not believe any length.
fn measured(input: &[u8], read: impl FnOnce(&str) -> Verdict) -> Verdict {
    let text = str::from_utf8(input).map_err(|error| error.to_string())?;
    let mut verdict = Ok(());
    let allocated = allocation_counter::measure(|| verdict = read(text));
    assert!(allocated.bytes_max < 16_384 + BYTES_PER_BYTE * input.len() as u64, "{allocated:?}");
    verdict
}

fn frames<T: for<'a> Message<'a> + Written + PartialEq + std::fmt::Debug>(frame: &str) -> Verdict {
    let (mut taken, mut refused) = (Vec::new(), String::new());
    wire::messages::<T>(frame, |message| match message {
        Ok(message) => taken.push(message),
        Err(malformed) => refused = malformed.invalid.to_string(),
    });
    let mut written = Vec::new();
    wire::write_frame(&taken, &mut written);
    let mut again = Vec::new();
    wire::messages::<T>(str::from_utf8(&written).unwrap(), |message| again.push(message.unwrap()));
    assert_eq!(taken, again);
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

#[test]
fn a_client_may_send_any_frame() {
    fuzz("fuzz client frames", "client").run(QUICK, |input| measured(input, frames::<ClientMessage>));
}

#[test]
fn a_server_may_send_any_frame() {
    fuzz("fuzz server frames", "server").run(QUICK, |input| measured(input, frames::<ServerMessage>));
}

/// Read in the order that is usual, or as serde reads any order.
fn both_ways(json: &str) -> Verdict {
    let told = |read: Result<ServerMessage, Invalid>| read.map_err(|invalid| invalid.to_string());
    let same = |op: &str, by_serde: Result<ServerMessage, Invalid>| {
        let read = told(ServerMessage::parse(op, json).unwrap());
        assert_eq!(read, told(by_serde), "{op}");
        read.map(drop)
    };
    let events = same("events", wire::read::<wire::Events>(json).map(Into::into));
    let page = same("page", wire::read::<wire::Page>(json).map(Into::into));
    let deliver = same("deliver", wire::read::<wire::Deliver>(json).map(Into::into));
    events.or(page).or(deliver)
}

#[test]
fn events_are_the_same_in_whatever_way_they_are_read() {
    fuzz("fuzz events both ways", "server").run(QUICK, |input| measured(input, both_ways));
}

/// A publish in the order that is usual, or as serde reads any order.
fn published(json: &str) -> Verdict {
    let told = |read: Result<ClientMessage, Invalid>| read.map_err(|invalid| invalid.to_string());
    let read = told(ClientMessage::parse("publish", json).unwrap());
    assert_eq!(read, told(wire::read::<wire::Publish>(json).map(Into::into)));
    read.map(drop)
}

#[test]
fn a_publish_is_the_same_in_whatever_way_it_is_read() {
    fuzz("fuzz publishes both ways", "client").run(QUICK, |input| measured(input, published));
}

/// What is read in its frame says what the owned message says. It may take
/// more, since it skips what few readers want.
fn lent(frame: &str) -> Verdict {
    let (mut owned, mut lent) = (Vec::new(), Vec::new());
    wire::messages::<ServerMessage>(frame, |message| owned.push(message));
    wire::messages::<Pushed<'_>>(frame, |message| lent.push(message));
    assert_eq!(owned.len(), lent.len());
    let mut refused = Ok(());
    for (owned, lent) in owned.into_iter().zip(lent) {
        match (owned, lent) {
            (Ok(ServerMessage::Events(owned)), Ok(Pushed::Events(lent))) => {
                assert_eq!((owned.subscription, owned.events.len()), (lent.subscription, lent.events.len()));
                owned.events.iter().zip(&lent.events).for_each(|(owned, lent)| same_event(owned, lent));
            }
            (Ok(ServerMessage::Receipt(owned)), Ok(Pushed::Receipt(lent))) => {
                let lent = lent.events.into_iter().map(|event| Receipted {
                    id: event.id.into_owned(),
                    position: event.position,
                    sequence: event.sequence,
                    recordedtime: event.recordedtime,
                    duplicate: event.duplicate,
                });
                assert_eq!(owned.events, lent.collect::<Vec<_>>());
            }
            (Ok(owned), Ok(Pushed::Other(lent))) => assert_eq!(owned, lent),
            (Err(owned), Err(lent)) => {
                assert_eq!(owned.id, lent.id);
                refused = Err(lent.invalid.to_string());
            }
            (Err(_), Ok(Pushed::Events(_))) => {}
            // What the server sets may stand there twice in an owned event.
            (Ok(ServerMessage::Events(_)), Err(lent)) if lent.invalid.reason.contains("duplicate field") => {}
            (owned, lent) => panic!("{owned:?} became {lent:?}"),
        }
    }
    refused
}

fn same_event(owned: &Event, lent: &EventIn<'_>) {
    assert_eq!([&owned.id, &owned.source, &owned.kind], [&lent.id, &lent.source, &lent.kind]);
    assert_eq!([&owned.correlationid, &owned.sessionid], [&lent.correlationid, &lent.sessionid]);
    assert_eq!(owned.subject.as_deref(), lent.subject.as_deref());
    assert_eq!(owned.causationid.as_deref(), lent.causationid.as_deref());
    assert_eq!((owned.sequence, owned.position), (lent.sequence, lent.position));
    assert_eq!((owned.recordedtime, &*owned.time), (lent.recordedtime, &*lent.time));
    let data = match &owned.data {
        // No data and none to speak of are the same to a reader of values.
        Some(Data::Json(json)) => Some(json.get()).filter(|json| *json != "null"),
        Some(Data::Binary(_)) | None => None,
    };
    assert_eq!(data, lent.data.map(JsonIn::get));
}

#[test]
fn a_frame_read_where_it_lies_says_what_the_owned_one_says() {
    fuzz("fuzz frames in place", "server").run(QUICK, |input| measured(input, lent));
}

fn event(event: &NewEvent) -> Result<(), Invalid> {
    let mut written = Vec::new();
    event.write_json(&mut written);
    assert_eq!(wire::read::<NewEvent>(str::from_utf8(&written).unwrap()).as_ref(), Ok(event));
    assert_eq!(serde_json::to_vec(event).unwrap(), written, "serde writes something else");
    event.validate(&Limits::default())
}

#[test]
fn an_event_and_a_batch_may_be_any_text() {
    fuzz("fuzz events", "events").run(QUICK, |input| {
        measured(input, |text| {
            let told = |invalid: Invalid| invalid.to_string();
            // What a reader makes of it: it needs more, and believes it.
            if let Ok(stored) = wire::read::<Event>(text) {
                let mut written = Vec::new();
                stored.write_json(&mut written);
                assert_eq!(wire::read::<Event>(str::from_utf8(&written).unwrap()), Ok(stored));
            }
            match wire::read::<Vec<NewEvent>>(text) {
                Ok(batch) => batch.iter().try_for_each(|new| event(new).map_err(told)),
                Err(_) => event(&wire::read::<NewEvent>(text).map_err(told)?).map_err(told),
            }
        })
    });
}

#[test]
fn a_filter_may_be_any_text() {
    let some: Event = wire::read(concat!(
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"T","subject":"k/1","correlationid":"c","#,
        r#""sessionid":"s/1","time":"t","recordedtime":"2026-11-24T09:30:00.000001Z","position":"0"}"#
    ))
    .unwrap();
    fuzz("fuzz filters", "filters").run(QUICK, |input| {
        measured(input, |text| {
            let filter: Filter = wire::read(text).map_err(|invalid| invalid.to_string())?;
            filter.matches(&some);
            let written = serde_json::to_string(&filter).unwrap();
            assert_eq!(wire::read::<Filter>(&written).as_ref(), Ok(&filter));
            filter.validate().map_err(|invalid| invalid.to_string())
        })
    });
}
