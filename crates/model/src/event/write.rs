//! Events as JSON, written by hand: names and the payload are copied, nothing
//! is checked again. The same text as serde's, which a test holds it to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::lent::{DataRef, EventRef, Name};
use super::{Event, ExtensionValue, NewEvent, NewEventRef};
use crate::Timestamp;
use crate::wire::write::{decimal, text, time, uuid_text};

impl Event {
    /// Appends the event as one JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.lend().write_json(out);
    }
}

impl EventRef<'_> {
    /// Appends the event as one JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"specversion":"1.0","id":"#);
        name(out, self.id);
        member(out, r#","source":"#, self.source);
        member(out, r#","type":"#, self.kind);
        optional(out, r#","subject":"#, self.subject);
        if let Some(sequence) = self.sequence {
            number(out, r#","sequence":"#, sequence.0);
        }
        out.extend_from_slice(br#","correlationid":"#);
        name(out, self.correlationid);
        if let Some(cause) = self.causationid {
            out.extend_from_slice(br#","causationid":"#);
            name(out, cause);
        }
        out.extend_from_slice(br#","sessionid":"#);
        name(out, self.sessionid);
        optional(out, r#","authid":"#, self.authid);
        times(out, self.time, self.recordedtime);
        number(out, r#","position":"#, self.position.0);
        if let Some((first, size)) = self.batch {
            number(out, r#","batchfirst":"#, first.0);
            number(out, r#","batchsize":"#, size.into());
        }
        optional(out, r#","datacontenttype":"#, self.datacontenttype);
        optional(out, r#","dataschema":"#, self.dataschema);
        optional(out, r#","traceparent":"#, self.traceparent);
        payload(out, self.extensions, self.data);
        out.push(b'}');
    }
}

impl NewEvent {
    /// Appends the event as one JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.lend().write_json(out);
    }
}

impl NewEventRef<'_> {
    /// Appends the event as one JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"specversion":"1.0","id":"#);
        text(out, self.id);
        optional(out, r#","source":"#, self.source);
        member(out, r#","type":"#, self.kind);
        optional(out, r#","subject":"#, self.subject);
        if let Some(sequence) = self.sequence {
            number(out, r#","sequence":"#, sequence.0);
        }
        optional(out, r#","correlationid":"#, self.correlationid);
        optional(out, r#","causationid":"#, self.causationid);
        optional(out, r#","time":"#, self.time);
        optional(out, r#","datacontenttype":"#, self.datacontenttype);
        optional(out, r#","dataschema":"#, self.dataschema);
        optional(out, r#","traceparent":"#, self.traceparent);
        payload(out, self.extensions, self.data);
        out.push(b'}');
    }
}

fn payload(out: &mut Vec<u8>, extensions: &[(String, ExtensionValue)], data: Option<DataRef<'_>>) {
    for (name, value) in extensions {
        out.push(b',');
        text(out, name);
        out.push(b':');
        match value {
            ExtensionValue::Boolean(value) => out.extend_from_slice(value.to_string().as_bytes()),
            ExtensionValue::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
            ExtensionValue::String(value) => text(out, value),
        }
    }
    match data {
        Some(DataRef::Json(json)) => {
            out.extend_from_slice(br#","data":"#);
            out.extend_from_slice(json.as_bytes());
        }
        Some(DataRef::Binary(bytes)) => member(out, r#","data_base64":"#, &BASE64.encode(bytes)),
        None => {}
    }
}

fn name(out: &mut Vec<u8>, name: Name<'_>) {
    text(out, name.plain);
    if let Some(uuid) = name.uuid {
        // In the place of the closing quote.
        out.pop();
        out.extend_from_slice(&uuid_text(uuid));
        out.push(b'"');
    }
}

/// Most events have one time: that is made once.
fn times(out: &mut Vec<u8>, happened: Option<&str>, recorded: Timestamp) {
    out.extend_from_slice(br#","time":"#);
    let Some(happened) = happened else {
        let start = out.len();
        time(out, recorded);
        let end = out.len();
        out.extend_from_slice(br#","recordedtime":"#);
        return out.extend_from_within(start..end);
    };
    text(out, happened);
    out.extend_from_slice(br#","recordedtime":"#);
    time(out, recorded);
}

fn member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    text(out, value);
}

fn optional(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        member(out, name, value);
    }
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(name.as_bytes());
    decimal(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Data;
    use crate::{JsonText, Position, Sequence};

    #[test]
    fn an_event_is_written_by_hand_as_serde_writes_it() {
        let odd = "quote \" slash \\ \u{1} \u{7f} tab \t läufer ☃";
        let plain = NewEvent::new("id", "Type");
        let full = NewEvent {
            source: Some(odd.into()),
            subject: Some(odd.into()),
            sequence: Some(Sequence(u64::MAX)),
            correlationid: Some("c".into()),
            causationid: Some("cause".into()),
            time: Some("2020-02-29T23:59:59.5+01:00".into()),
            datacontenttype: Some("application/json".into()),
            dataschema: Some("urn:x".into()),
            traceparent: Some("00-1".into()),
            extensions: vec![
                ("flag".into(), ExtensionValue::Boolean(true)),
                ("level".into(), ExtensionValue::Integer(-7)),
                ("zone".into(), ExtensionValue::String(odd.into())),
            ],
            data: Some(Data::Json(JsonText::from_string("{ \"a\" : [1.00, \"\\u00fc\"] }".into()).unwrap())),
            ..NewEvent::new(odd, odd)
        };
        let binary = NewEvent { data: Some(Data::Binary(vec![0, 255, 1])), ..plain.clone() };
        for new in [plain, full, binary] {
            let mut out = Vec::new();
            new.write_json(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&new).unwrap());
            let event = Event {
                id: new.id,
                source: new.source.unwrap_or_default(),
                kind: new.kind,
                subject: new.subject,
                sequence: new.sequence,
                correlationid: "c".into(),
                causationid: new.causationid,
                sessionid: "s/1/2".into(),
                authid: None,
                time: "t".into(),
                recordedtime: Timestamp(1_700_000_000_000_001),
                position: Position(0),
                batch: Some((Position(7), 1_000)),
                datacontenttype: new.datacontenttype,
                dataschema: new.dataschema,
                traceparent: new.traceparent,
                extensions: new.extensions,
                data: new.data,
            };
            let mut out = Vec::new();
            event.write_json(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&event).unwrap());
        }
    }
}
