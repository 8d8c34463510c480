//! From lines to what is published at once: an event, or a whole batch.
//!
//! Lines of one batch of an exported log name its first position and its size
//! (`batchfirst`, `batchsize`) and stand together. Half a batch is refused: it
//! was stored as a whole or not at all. An array in one line is a batch too.

use std::io::{BufRead, BufReader};

use daybook_model::{Data, ExtensionValue, JsonText, NewEvent, Position, wire};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::commands::export::EXACT_DATA;

pub struct Unit {
    pub first_line: u64,
    pub last_line: u64,
    pub events: Vec<NewEvent>,
    /// Where they stood in the log they come from, if the lines say.
    pub positions: Vec<Option<Position>>,
    pub weight: usize,
    /// Bytes of the file up to here.
    pub end: u64,
}

pub enum Read {
    Unit(Unit),
    Refused { line: u64, events: u64, reason: String },
    Failed(std::io::Error),
}

/// What is read ahead of the publisher.
const AHEAD: usize = 1_024;
/// No line of a log is longer: an event as JSON, doubled by its exact data.
const LINE_BYTES: u64 = 64 << 20;

/// Reads on a thread of its own: files and stdin cannot be read without blocking.
pub fn read(from: Box<dyn std::io::Read + Send>, from_line: u64) -> mpsc::Receiver<Read> {
    let (send, units) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut gathering = Gathering { batch: None, send };
        let mut from = BufReader::with_capacity(1 << 20, from);
        let (mut number, mut end) = (0, 0);
        let mut line = Vec::new();
        loop {
            line.clear();
            match std::io::Read::take(&mut from, LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(0) => break gathering.finish(),
                Ok(n) => end += n as u64,
                Err(error) => break gathering.send(Read::Failed(error)),
            };
            number += 1;
            if line.len() as u64 == LINE_BYTES && !line.ends_with(b"\n") {
                match from.skip_until(b'\n') {
                    Ok(n) => end += n as u64,
                    Err(error) => break gathering.send(Read::Failed(error)),
                }
                let reason = format!("it is longer than {} MiB, and so than any event", LINE_BYTES >> 20);
                if number >= from_line && gathering.refuse(number, 1, reason).is_none() {
                    break None;
                }
                continue;
            }
            if number < from_line || line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            // Nobody wants more.
            if gathering.line(number, end, &line).is_none() {
                break None;
            }
        }
    });
    units
}

/// The lines of a batch so far.
struct Batch {
    unit: Unit,
    first: Position,
    size: usize,
}

struct Gathering {
    batch: Option<Batch>,
    send: mpsc::Sender<Read>,
}

impl Gathering {
    /// `None` when nobody listens any more.
    fn send(&self, read: Read) -> Option<()> {
        self.send.blocking_send(read).ok()
    }

    fn refuse(&self, line: u64, events: usize, reason: String) -> Option<()> {
        self.send(Read::Refused { line, events: events as u64, reason })
    }

    fn line(&mut self, number: u64, end: u64, line: &[u8]) -> Option<()> {
        let Ok(text) = str::from_utf8(line) else {
            return self.refuse(number, 1, "it is not UTF-8".into());
        };
        let parsed = if text.trim_start().starts_with('[') { array(text) } else { one(text) };
        let Parsed { events, positions, batch } = match parsed {
            Ok(parsed) => parsed,
            Err(reason) => return self.refuse(number, 1, reason),
        };
        let weight = events.iter().map(|event| event.lend().weight()).sum();
        let unit = Unit { first_line: number, last_line: number, events, positions, weight, end };
        match (batch, &mut self.batch) {
            (Some((first, size)), Some(batch)) if batch.first == first && batch.size == size => {
                batch.unit.last_line = number;
                batch.unit.end = end;
                batch.unit.weight += unit.weight;
                batch.unit.events.extend(unit.events);
                batch.unit.positions.extend(unit.positions);
                if batch.unit.events.len() == batch.size { self.close() } else { Some(()) }
            }
            (batch, _) => {
                self.close()?;
                match batch {
                    Some((first, size)) => self.batch = Some(Batch { unit, first, size }),
                    None => self.send(Read::Unit(unit))?,
                }
                Some(())
            }
        }
    }

    /// The batch is whole, or something else follows.
    fn close(&mut self) -> Option<()> {
        let Some(Batch { unit, first, size }) = self.batch.take() else { return Some(()) };
        let (found, begins) = (unit.events.len(), unit.positions.first().copied().flatten());
        if found == size && begins.is_none_or(|begins| begins == first) {
            return self.send(Read::Unit(unit));
        }
        let reason = format!(
            "the batch at position {first} has {size} events, and only {found} of them stand here together; it is stored as a whole or not at all"
        );
        self.refuse(unit.first_line, found, reason)
    }

    fn finish(&mut self) -> Option<()> {
        self.close()
    }
}

struct Parsed {
    events: Vec<NewEvent>,
    positions: Vec<Option<Position>>,
    /// First position and size of the batch it belongs to.
    batch: Option<(Position, usize)>,
}

/// What the old log said of the event's place.
#[derive(Default, Deserialize)]
struct Place {
    position: Option<Position>,
    batchfirst: Option<Position>,
    batchsize: Option<String>,
}

fn one(text: &str) -> Result<Parsed, String> {
    let mut event: NewEvent = wire::read(text).map_err(|invalid| format!("no CloudEvent: {invalid}"))?;
    // A member that is no position was somebody else's attribute.
    let place: Place = serde_json::from_str(text).unwrap_or_default();
    exact_data(&mut event)?;
    let size = place.batchsize.and_then(|size| size.parse().ok()).filter(|size| *size > 1);
    Ok(Parsed { events: vec![event], positions: vec![place.position], batch: place.batchfirst.zip(size) })
}

fn array(text: &str) -> Result<Parsed, String> {
    let events: Vec<NewEvent> = wire::read(text).map_err(|invalid| format!("no CloudEvents: {invalid}"))?;
    let positions = vec![None; events.len()];
    Ok(Parsed { events, positions, batch: None })
}

/// Puts data that does not fit into a line back as it was published.
fn exact_data(event: &mut NewEvent) -> Result<(), String> {
    let Some(at) = event.extensions.iter().position(|(name, _)| name == EXACT_DATA) else { return Ok(()) };
    let (_, value) = event.extensions.remove(at);
    let ExtensionValue::String(text) = value else {
        return Err(format!("`{EXACT_DATA}` must be a string"));
    };
    let raw = JsonText::from_string(text).map_err(|error| format!("`{EXACT_DATA}` is no JSON: {error}"))?;
    event.data = Some(Data::Json(raw));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let mut units = read(Box::new(std::io::Cursor::new(text.to_owned())), 1);
        let mut found = Vec::new();
        while let Some(read) = units.blocking_recv() {
            found.push(match read {
                Read::Unit(unit) => {
                    let ids: Vec<_> = unit.events.iter().map(|event| event.id.as_str()).collect();
                    format!("{}-{} {}", unit.first_line, unit.last_line, ids.join(","))
                }
                Read::Refused { line, events, reason } => format!("{line} refused {events}: {reason}"),
                Read::Failed(error) => error.to_string(),
            });
        }
        found
    }

    fn line(position: u64, batch: Option<(u64, u64)>) -> String {
        let batch = batch.map_or(String::new(), |(first, size)| {
            format!(r#","batchfirst":"{first}","batchsize":"{size}""#)
        });
        format!(r#"{{"specversion":"1.0","id":"e{position}","type":"T","position":"{position}"{batch}}}"#)
            + "\n"
    }

    #[test]
    fn a_batch_is_gathered_from_its_lines_and_half_a_batch_is_refused() {
        let whole: String = (1..4).map(|i| line(i, Some((1, 3)))).collect();
        let text =
            line(0, None) + &whole + "\n" + &line(4, Some((4, 2))) + &line(6, None) + &line(8, Some((7, 2)));
        let found = lines(&text);
        assert_eq!(found[..2], ["1-1 e0", "2-4 e1,e2,e3"]);
        assert!(found[2].starts_with("6 refused 1: the batch at position 4 has 2 events"), "{found:?}");
        assert_eq!(found[3], "7-7 e6");
        assert!(found[4].starts_with("8 refused 1: the batch at position 7"), "{found:?}");
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn arrays_are_batches_and_rubbish_is_named_by_its_line() {
        let found = lines("[{\"specversion\":\"1.0\",\"id\":\"a\",\"type\":\"T\"}]\nrubbish\n\n{}\n");
        assert_eq!(found[0], "1-1 a");
        assert!(found[1].starts_with("2 refused") && found[2].starts_with("4 refused"), "{found:?}");
    }

    #[test]
    fn data_with_line_breaks_comes_back_byte_for_byte() {
        let text = r#"{"specversion":"1.0","id":"a","type":"T","data":{  "a":1 },"daybookrawdata":"{\n\r\"a\":1 }"}"#;
        let event = one(text).unwrap().events.remove(0);
        assert_eq!(event.data, Some(Data::Json(JsonText::from_string("{\n\r\"a\":1 }".into()).unwrap())));
        assert!(event.extensions.is_empty());
        assert!(one(&text.replace(r#""{\n\r\"a\":1 }""#, "\"{\"")).is_err());
    }

    #[test]
    fn lines_of_any_bytes_are_events_or_refused_by_number() {
        let batch = line(1, Some((1, 2))) + &line(2, Some((1, 2)));
        let exact =
            r#"{"specversion":"1.0","id":"a","type":"T","data":{"a":1},"daybookrawdata":"{\n\"a\":1 }"}"#;
        let array =
            r#"[{"specversion":"1.0","id":"a","type":"T"},{"specversion":"1.0","id":"b","type":"T"}]"#;
        let corpus = daybook_log::fuzz::Fuzz::new("fuzz imported lines");
        corpus.input(batch).input(exact).input(format!("{array}\n{}", line(3, None))).run(1_000, |input| {
            let given =
                input.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
            let (mut told, mut refused) = (0, None);
            let mut units = read(Box::new(std::io::Cursor::new(input.to_vec())), 1);
            while let Some(read) = units.blocking_recv() {
                match read {
                    Read::Unit(unit) => {
                        assert_eq!(unit.events.len(), unit.positions.len());
                        let is_array = unit.first_line == unit.last_line;
                        told += if is_array { 1 } else { unit.events.len() };
                    }
                    Read::Refused { events, reason, .. } => {
                        told += events as usize;
                        refused = Some(reason);
                    }
                    Read::Failed(error) => panic!("memory cannot fail: {error}"),
                }
            }
            assert_eq!(told, given, "a line was lost or told twice");
            refused.map_or(Ok(()), Err)
        });
    }

    #[test]
    fn a_line_that_is_longer_than_any_event_is_refused_once_and_the_next_is_read() {
        let long = format!("{{\"id\":\"{}\"}}\n", "x".repeat(2 * LINE_BYTES as usize));
        let found = lines(&(long + &line(1, None)));
        assert!(found[0].starts_with("1 refused 1: it is longer than"), "{:.80}", found[0]);
        assert_eq!(found[1..], ["2-2 e1"]);
    }
}
