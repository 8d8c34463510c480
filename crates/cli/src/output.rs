//! Tables for people, NDJSON for pipes.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use daybook_model::{Data, Event};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: the default on a terminal.
    Table,
    /// One JSON document.
    Json,
    /// One JSON object a line: the default in a pipe.
    Ndjson,
    /// Only each event's data, a line each.
    Raw,
}

impl Format {
    pub fn or_default(chosen: Option<Self>) -> Self {
        chosen.unwrap_or(if io::stdout().is_terminal() { Self::Table } else { Self::Ndjson })
    }

    /// All but [`Format::Raw`]: for what is no event and has no data.
    pub fn without_raw() -> impl TypedValueParser<Value = Self> {
        let others = Self::value_variants().iter().filter(|format| **format != Self::Raw);
        PossibleValuesParser::new(others.filter_map(Self::to_possible_value))
            .try_map(|name| Self::from_str(&name, false))
    }
}

/// Writes events as they come.
pub struct EventWriter<W: Write> {
    out: W,
    format: Format,
    written: u64,
}

impl<W: Write> EventWriter<W> {
    pub fn new(out: W, format: Format) -> Self {
        Self { out, format, written: 0 }
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        match self.format {
            Format::Ndjson => {
                // Line breaks inside `data` are insignificant white space there.
                let line = serde_json::to_string(event)?.replace(['\n', '\r'], " ");
                writeln!(self.out, "{line}")?;
            }
            Format::Json => {
                self.out.write_all(if self.written == 0 { b"[\n" } else { b",\n" })?;
                serde_json::to_writer(&mut self.out, event)?;
            }
            Format::Raw => match &event.data {
                Some(Data::Json(raw)) => writeln!(self.out, "{}", raw.get().replace(['\n', '\r'], " "))?,
                Some(Data::Binary(bytes)) => self.out.write_all(bytes)?,
                None => writeln!(self.out)?,
            },
            Format::Table => {
                if self.written == 0 {
                    writeln!(
                        self.out,
                        "{:>9}  {:15}  {:24} {:>4}  {:22} DATA",
                        "POSITION", "TIME", "SUBJECT", "SEQ", "TYPE"
                    )?;
                }
                let sequence = event.sequence.map_or(String::new(), |s| s.to_string());
                let subject = event.subject.as_deref().unwrap_or("-");
                let time = event.recordedtime.to_string();
                let clock = time.get(11..26).unwrap_or(&time);
                let line = format!(
                    "{:>9}  {clock:15}  {subject:24} {sequence:>4}  {:22} {}",
                    event.position,
                    event.kind,
                    brief(event)
                );
                writeln!(self.out, "{}", line.trim_end())?;
            }
        }
        self.written += 1;
        Ok(())
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    pub fn finish(mut self) -> io::Result<()> {
        if self.format == Format::Json {
            self.out.write_all(if self.written == 0 { b"[]\n" } else { b"\n]\n" })?;
        }
        self.out.flush()
    }
}

/// The data, cut to what a line holds.
pub fn brief(event: &Event) -> String {
    const WIDTH: usize = 72;
    let text = match &event.data {
        Some(Data::Json(raw)) => raw.get().split_whitespace().collect::<Vec<_>>().join(" "),
        Some(Data::Binary(bytes)) => format!("{} bytes", bytes.len()),
        None => String::new(),
    };
    match text.char_indices().nth(WIDTH) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
