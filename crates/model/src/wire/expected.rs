//! Messages with events, read in the order in which they are written here.
//!
//! Any order means the same, and serde reads any: but who knows what comes next
//! needs no look-up for it. An event that is written otherwise, or has members
//! that are rare, is left to serde alone; so is a message.
//!
//! # Promises
//! What is read here serde would have read to the same. Tests compare both, on
//! what is written here and on what is not.

use std::borrow::Cow;

use super::borrowed::{EventIn, EventsIn, Payload, ReceiptIn, ReceiptedIn};
use super::client::{ClientMessage, Publish};
use super::scan::Scan;
use super::server::{Deliver, Delivery, Events, Page, Receipt, Receipted, ServerMessage, Shared};
use crate::event::Places;
use crate::{Data, Event, JsonText, NewEvents, Position, Sequence, Timestamp};

pub(super) trait Expected<'a>: Sized {
    /// `None`: not as expected, ask serde.
    fn expected(_op: &str, _json: &'a str) -> Option<Self> {
        None
    }
}

impl Expected<'_> for ClientMessage {
    fn expected(op: &str, json: &str) -> Option<Self> {
        if op != "publish" {
            return None;
        }
        let mut scan = Scan::new(json);
        scan.literal(r#"{"op":"publish","id":"#)?;
        let id = scan.integer()?;
        scan.literal(r#","events":"#)?;
        let each = list(&mut scan, EVENT_BYTES, places)?;
        let delivery = scan.optional(r#","delivery":""#)?.map(Cow::into_owned);
        end(&mut scan)?;
        Some(Publish { id, events: NewEvents::framed(json, each), delivery }.into())
    }
}

impl<'a> Expected<'a> for ServerMessage {
    fn expected(op: &str, json: &'a str) -> Option<Self> {
        let mut scan = Scan::new(json);
        let mut times = Times::default();
        let mut shared = |scan: &mut Scan<'a>| owned(scan, &mut times).map(|event| Shared(event.into()));
        match op {
            "receipt" => {
                let ReceiptIn { id, events } = ReceiptIn::expected(op, json)?;
                let events = events.into_iter().map(|event| Receipted {
                    id: event.id.into_owned(),
                    position: event.position,
                    sequence: event.sequence,
                    recordedtime: event.recordedtime,
                    duplicate: event.duplicate,
                });
                Some(Receipt { id, events: events.collect() }.into())
            }
            "events" => {
                scan.literal(r#"{"op":"events","subscription":"#)?;
                let subscription = scan.integer()?;
                scan.literal(r#","events":"#)?;
                let events = list(&mut scan, EVENT_BYTES, shared)?;
                end(&mut scan)?;
                Some(Events { subscription, events }.into())
            }
            "page" => {
                scan.literal(r#"{"op":"page","id":"#)?;
                let id = scan.integer()?;
                scan.literal(r#","events":"#)?;
                let events = list(&mut scan, EVENT_BYTES, shared)?;
                let next = if scan.has(r#","next":""#) { Some(Position(scan.decimal()?)) } else { None };
                end(&mut scan)?;
                Some(Page { id, events, next }.into())
            }
            "deliver" => {
                scan.literal(r#"{"op":"deliver","subscription":"#)?;
                let subscription = scan.integer()?;
                scan.literal(r#","deliveries":"#)?;
                let deliveries = list(&mut scan, EVENT_BYTES, |scan| {
                    scan.literal(r#"{"token":""#)?;
                    let token = scan.text()?.into_owned();
                    scan.literal(r#","attempt":"#)?;
                    let attempt = u32::try_from(scan.integer()?).ok()?;
                    scan.literal(r#","event":"#)?;
                    let event = shared(scan)?;
                    scan.literal("}")?;
                    Some(Delivery { token, attempt, event })
                })?;
                end(&mut scan)?;
                Some(Deliver { subscription, deliveries }.into())
            }
            _ => None,
        }
    }
}

impl<'a, T: Payload<'a>> Expected<'a> for EventsIn<'a, T> {
    fn expected(_op: &str, json: &'a str) -> Option<Self> {
        let mut scan = Scan::new(json);
        let mut times = Times::default();
        scan.literal(r#"{"op":"events","subscription":"#)?;
        let subscription = scan.integer()?;
        scan.literal(r#","events":"#)?;
        let events = list(&mut scan, EVENT_BYTES, |scan| lent(scan, &mut times))?;
        end(&mut scan)?;
        Some(Self { subscription, events })
    }
}

impl<'a> Expected<'a> for ReceiptIn<'a> {
    fn expected(_op: &str, json: &'a str) -> Option<Self> {
        let mut scan = Scan::new(json);
        let mut times = Times::default();
        scan.literal(r#"{"op":"receipt","id":"#)?;
        let id = scan.integer()?;
        scan.literal(r#","events":"#)?;
        let events = list(&mut scan, RECEIPTED_BYTES, |scan| receipted(scan, &mut times))?;
        end(&mut scan)?;
        Some(Self { id, events })
    }
}

fn receipted<'a>(scan: &mut Scan<'a>, times: &mut Times<'a>) -> Option<ReceiptedIn<'a>> {
    scan.literal(r#"{"id":""#)?;
    let id = scan.text()?;
    scan.literal(r#","position":""#)?;
    let position = Position(scan.decimal()?);
    let sequence = if scan.has(r#","sequence":""#) { Some(Sequence(scan.decimal()?)) } else { None };
    scan.literal(r#","recordedtime":""#)?;
    let recordedtime = times.read(scan.text()?)?;
    scan.literal(r#","duplicate":"#)?;
    let duplicate = scan.has("true");
    scan.literal(if duplicate { "}" } else { "false}" })?;
    Some(ReceiptedIn { id, position, sequence, recordedtime, duplicate })
}

fn end(scan: &mut Scan<'_>) -> Option<()> {
    scan.literal("}")?;
    scan.is_over().then_some(())
}

/// Each has `bytes` as a rule.
fn list<'a, T>(
    scan: &mut Scan<'a>,
    bytes: usize,
    mut one: impl FnMut(&mut Scan<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    scan.literal("[")?;
    if scan.has("]") {
        return Some(Vec::new());
    }
    let mut all = Vec::with_capacity(1 + scan.rest().len() / bytes);
    loop {
        all.push(one(scan)?);
        if !scan.has(",") {
            return scan.literal("]").map(|()| all);
        }
    }
}

/// Of an event on the wire, as a rule.
const EVENT_BYTES: usize = 400;
/// Of what a receipt says of one.
const RECEIPTED_BYTES: usize = 140;

/// Where the members of an event lie that is to be stored.
fn places(scan: &mut Scan<'_>) -> Option<Places> {
    scan.literal(r#"{"specversion":"1.0","id":""#)?;
    let id = scan.place()?;
    let source = scan.optional_place(r#","source":""#)?;
    scan.literal(r#","type":""#)?;
    let kind = scan.place()?;
    let subject = scan.optional_place(r#","subject":""#)?;
    let sequence = if scan.has(r#","sequence":""#) { Some(Sequence(scan.decimal()?)) } else { None };
    Some(Places {
        id,
        source,
        kind,
        subject,
        sequence,
        correlationid: scan.optional_place(r#","correlationid":""#)?,
        causationid: scan.optional_place(r#","causationid":""#)?,
        time: scan.optional_place(r#","time":""#)?,
        datacontenttype: scan.optional_place(r#","datacontenttype":""#)?,
        dataschema: scan.optional_place(r#","dataschema":""#)?,
        traceparent: scan.optional_place(r#","traceparent":""#)?,
        data: data(scan, Scan::value_place)?,
    })
}

fn owned<'a>(scan: &mut Scan<'a>, times: &mut Times<'a>) -> Option<Event> {
    scan.or_by_serde(|scan| {
        let head = head(scan, times)?;
        let data = data(scan, |scan| scan.value())?;
        let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        Some(Event {
            id: head.id.into_owned(),
            source: head.source.into_owned(),
            kind: head.kind.into_owned(),
            subject: owned(head.subject),
            sequence: head.sequence,
            correlationid: head.correlationid.into_owned(),
            causationid: owned(head.causationid),
            sessionid: head.sessionid.into_owned(),
            authid: owned(head.authid),
            time: head.time.into_owned(),
            recordedtime: head.recordedtime,
            position: head.position,
            batch: head.batch,
            datacontenttype: owned(head.datacontenttype),
            dataschema: owned(head.dataschema),
            traceparent: owned(head.traceparent),
            extensions: Vec::new(),
            data: data.map(|json| Data::Json(JsonText::known_good(json))),
        })
    })
}

fn lent<'a, T: Payload<'a>>(scan: &mut Scan<'a>, times: &mut Times<'a>) -> Option<EventIn<'a, T>> {
    scan.or_by_serde(|scan| {
        let head = head(scan, times)?;
        let data = data(scan, |scan| {
            let (data, bytes) = T::begin(scan.rest())?;
            scan.skip(bytes);
            Some(data)
        })?;
        Some(EventIn {
            id: head.id,
            source: head.source,
            kind: head.kind,
            subject: head.subject,
            sequence: head.sequence,
            correlationid: head.correlationid,
            causationid: head.causationid,
            sessionid: head.sessionid,
            time: head.time,
            recordedtime: head.recordedtime,
            position: head.position,
            data,
        })
    })
}

/// `data`, if there is any, and the end of its event. No data is told from data
/// that is `null` by some readers and not by others: that is for serde.
fn data<'a, T>(scan: &mut Scan<'a>, take: impl FnOnce(&mut Scan<'a>) -> Option<T>) -> Option<Option<T>> {
    if scan.has("}") {
        return Some(None);
    }
    scan.literal(r#","data":"#)?;
    if scan.rest().starts_with(['n', ' ', '\n', '\t', '\r']) {
        return None;
    }
    let data = take(scan)?;
    scan.literal("}").map(|()| Some(data))
}

/// An event up to its extensions.
struct Head<'a> {
    id: Cow<'a, str>,
    source: Cow<'a, str>,
    kind: Cow<'a, str>,
    subject: Option<Cow<'a, str>>,
    sequence: Option<Sequence>,
    correlationid: Cow<'a, str>,
    causationid: Option<Cow<'a, str>>,
    sessionid: Cow<'a, str>,
    authid: Option<Cow<'a, str>>,
    time: Cow<'a, str>,
    recordedtime: Timestamp,
    position: Position,
    batch: Option<(Position, u32)>,
    datacontenttype: Option<Cow<'a, str>>,
    dataschema: Option<Cow<'a, str>>,
    traceparent: Option<Cow<'a, str>>,
}

#[inline]
fn head<'a>(scan: &mut Scan<'a>, times: &mut Times<'a>) -> Option<Head<'a>> {
    scan.literal(r#"{"specversion":"1.0","id":""#)?;
    let id = scan.text()?;
    scan.literal(r#","source":""#)?;
    let source = scan.text()?;
    scan.literal(r#","type":""#)?;
    let kind = scan.text()?;
    let subject = scan.optional(r#","subject":""#)?;
    let sequence = if scan.has(r#","sequence":""#) { Some(Sequence(scan.decimal()?)) } else { None };
    scan.literal(r#","correlationid":""#)?;
    let correlationid = scan.text()?;
    let causationid = scan.optional(r#","causationid":""#)?;
    scan.literal(r#","sessionid":""#)?;
    let sessionid = scan.text()?;
    let authid = scan.optional(r#","authid":""#)?;
    scan.literal(r#","time":""#)?;
    let time = scan.text()?;
    scan.literal(r#","recordedtime":""#)?;
    let recordedtime = times.read(scan.text()?)?;
    scan.literal(r#","position":""#)?;
    let position = Position(scan.decimal()?);
    let batch = if scan.has(r#","batchfirst":""#) {
        let first = Position(scan.decimal()?);
        scan.literal(r#","batchsize":""#)?;
        Some((first, u32::try_from(scan.decimal()?).ok()?))
    } else {
        None
    };
    Some(Head {
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
        datacontenttype: scan.optional(r#","datacontenttype":""#)?,
        dataschema: scan.optional(r#","dataschema":""#)?,
        traceparent: scan.optional(r#","traceparent":""#)?,
    })
}

/// Events that were written together have one time.
#[derive(Default)]
struct Times<'a> {
    last: Option<(Cow<'a, str>, Timestamp)>,
}

impl<'a> Times<'a> {
    fn read(&mut self, text: Cow<'a, str>) -> Option<Timestamp> {
        if let Some((last, time)) = &self.last
            && *last == text
        {
            return Some(*time);
        }
        let time = text.parse().ok()?;
        self.last = Some((text, time));
        Some(time)
    }
}

#[cfg(test)]
mod tests;
