//! Records and checkpoints of any bytes: named as damage or read, and no number
//! in them is believed blindly.

use daybook_log::LogId;
use daybook_log::fuzz::{Fuzz, Verdict};
use daybook_model::{Data, Event, ExtensionValue, JsonText, Position, Sequence, Timestamp};

use super::super::{checkpoints, codec};

const QUICK: u64 = 3_000;
const LOG: LogId = LogId([7; 16]);
/// What reading may hold: so much, and so many bytes for each that is there.
const BYTES: u64 = 1 << 20;
const BYTES_PER_BYTE: u64 = 300;

pub fn measured(input: &[u8], read: impl FnOnce() -> Verdict) -> Verdict {
    let mut verdict = Ok(());
    let allocated = allocation_counter::measure(|| verdict = read());
    assert!(allocated.bytes_max < BYTES + BYTES_PER_BYTE * input.len() as u64, "{allocated:?}");
    verdict
}

/// With everything that a record may have.
pub fn full() -> Event {
    Event {
        id: "0192-id".into(),
        source: "/s".into(),
        kind: "Happened".into(),
        subject: Some("k/1".into()),
        sequence: Some(Sequence(3)),
        correlationid: "c".into(),
        causationid: Some("e0".into()),
        sessionid: "s/i/u".into(),
        authid: Some("p".into()),
        time: "2026-11-24T09:30:00Z".into(),
        recordedtime: Timestamp(1_700_000_000_000_000),
        position: Position(40),
        batch: Some((Position(39), 3)),
        datacontenttype: Some("application/json".into()),
        dataschema: Some("/schema".into()),
        traceparent: Some("00-1-2-01".into()),
        extensions: vec![
            ("a".into(), ExtensionValue::Boolean(true)),
            ("b".into(), ExtensionValue::Integer(-7)),
            ("c".into(), ExtensionValue::String("x".into())),
        ],
        data: Some(Data::Json(JsonText::from_string("{\"n\": 1.0}".into()).unwrap())),
    }
}

#[test]
fn a_record_of_any_bytes_is_no_event_or_is_the_same_again() {
    let record = |event: &Event| {
        let mut bytes = Vec::new();
        codec::encode(event, codec::Defaulted::default(), &mut bytes);
        bytes
    };
    let plain = Event { subject: None, sequence: None, batch: None, extensions: Vec::new(), ..full() };
    let binary = Event { data: Some(Data::Binary(vec![0, 255, 3])), ..plain.clone() };
    Fuzz::new("fuzz records").input(record(&full())).input(record(&plain)).input(record(&binary)).run(
        QUICK,
        |input| {
            measured(input, || {
                let position = Position(40);
                let (event, defaulted) = codec::decode(position, input).map_err(|error| error.to_string())?;
                let mut again = Vec::new();
                codec::encode(&event, defaulted, &mut again);
                let (mut lent, mut owned) = (Vec::new(), Vec::new());
                codec::with(position, input, |event, _| event.write_json(&mut lent)).unwrap();
                event.write_json(&mut owned);
                assert_eq!(lent, owned, "written as {}", String::from_utf8_lossy(&lent));
                assert_eq!(codec::decode(position, &again).unwrap(), (event, defaulted));
                Ok(())
            })
        },
    );
}

#[test]
fn a_checkpoint_of_any_bytes_is_torn_or_read() {
    let whole = checkpoints::encode(LOG, "group", 3, b"{\"version\":1}");
    Fuzz::new("fuzz checkpoints").input(whole).run(QUICK, |input| {
        measured(input, || {
            let mut mended = input.to_vec();
            if mended.len() >= 48 {
                mended[40..44].fill(0);
                let crc = crc32c::crc32c(&mended);
                mended[40..44].copy_from_slice(&crc.to_le_bytes());
            }
            let read = checkpoints::decode(input).or_else(|| checkpoints::decode(&mended));
            let (log, group, counter, state) = read.ok_or("torn")?;
            let again = checkpoints::encode(log, &group, counter, &state);
            assert_eq!(checkpoints::decode(&again), Some((log, group, counter, state)));
            Ok(())
        })
    });
}
