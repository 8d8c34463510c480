//! `daybook export`: the log as NDJSON, a CloudEvent a line.
//!
//! # Promises
//! 1. What was there at the start is exported, in order of position, each event
//!    with everything the log knows of it.
//! 2. NDJSON has no line breaks inside a line. Where an event's `data` has some,
//!    the line carries its exact text once more, as [`EXACT_DATA`]: `import`
//!    brings it back byte for byte, other readers may ignore it.
//!
//! # After an interruption
//! The file ends with a whole line, or with a torn one that `--resume` cuts off;
//! it goes on behind the last whole line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use daybook_client::{Client, ReadQuery};
use daybook_model::wire::{self, Edge};
use daybook_model::{Data, Event, ExtensionValue, Position};

use super::{Bus, Interrupts};
use crate::exit::{Failure, PARTLY};
use crate::progress::Progress;

/// Write the log as NDJSON, a CloudEvent a line, for `daybook import`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    bus: Bus,
    /// The file to write; stdout if none is named.
    file: Option<PathBuf>,
    /// First position, inclusive.
    #[arg(long)]
    from: Option<Position>,
    /// Last position, exclusive; default all that is there when it begins.
    #[arg(long)]
    until: Option<Position>,
    /// Go on with a file that an earlier export began.
    #[arg(long, requires = "file", conflicts_with = "from")]
    resume: bool,
}

/// Carries `data` exactly as it was published, where a line cannot.
pub const EXACT_DATA: &str = "daybookrawdata";
const PAGE: u64 = 1_000;

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    // The file first: a mistake there is told without a bus.
    let (mut out, last): (Box<dyn Write>, Option<Event>) = match &args.file {
        None => (Box::new(BufWriter::new(std::io::stdout().lock())), None),
        Some(path) => {
            let (file, last) = open(path, args.resume)?;
            (Box::new(BufWriter::with_capacity(1 << 20, SyncedAtEnd(file))), last)
        }
    };
    let mut from = last.as_ref().map(|event| event.position.next()).or(args.from).unwrap_or(Position::ZERO);
    let client = args.bus.connect("export").await?;
    if let Some(last) = &last {
        same_log(&client, last).await?;
    }
    let newest = client.read(ReadQuery { limit: Some(1), reverse: true, ..ReadQuery::default() }).await?;
    let head = newest.events.first().map_or(Position::ZERO, |event| event.position.next());
    let until = args.until.unwrap_or(head).min(head);
    let begun = from;
    let mut progress = Progress::new("export");
    let mut stopped = false;
    while from < until && !stopped {
        let query = ReadQuery {
            from: Some(Edge::Position(from)),
            until: Some(Edge::Position(until)),
            limit: Some(PAGE),
            ..ReadQuery::default()
        };
        let page = tokio::select! {
            page = client.read(query) => page.map_err(|error| args.go_on(from, Failure::from(error)))?,
            () = interrupts.next() => { stopped = true; continue }
        };
        for event in &page.events {
            line(event, &mut out).map_err(|error| args.not_written(from, error))?;
        }
        from = page.next.unwrap_or(until);
        progress.at(from.0 - begun.0, from.0 - begun.0, until.0 - begun.0);
    }
    out.flush().map_err(|error| args.not_written(begun, error))?;
    drop(progress);
    client.close().await;
    let count = from.0.saturating_sub(begun.0);
    if stopped {
        let told = format!("{count} events exported, then interrupted");
        return Err(args.go_on(from, Failure::new(PARTLY, told)));
    }
    eprintln!("{count} events exported, up to position {from}");
    Ok(())
}

impl Args {
    /// The failure, and how to go on after it.
    fn go_on(&self, from: Position, failure: Failure) -> Failure {
        let again = match &self.file {
            Some(path) => format!("{} --resume", path.display()),
            None => format!("--from {from}"),
        };
        Failure { message: format!("{}; go on with: daybook export {again}", failure.message), ..failure }
    }

    fn not_written(&self, from: Position, error: std::io::Error) -> Failure {
        match &self.file {
            // Whoever reads our stdout may stop when he likes.
            None => Failure::from(error),
            Some(path) => {
                self.go_on(from, Failure::failed(format!("cannot write {}: {error}", path.display())))
            }
        }
    }
}

/// `last`, with which the file ends, must be this log's: else half of the file
/// would be of another.
async fn same_log(client: &Client, last: &Event) -> Result<(), Failure> {
    let query = ReadQuery {
        from: Some(Edge::Position(last.position)),
        until: Some(Edge::Position(last.position.next())),
        limit: Some(1),
        ..ReadQuery::default()
    };
    let page = client.read(query).await?;
    if page.events.first().is_some_and(|event| event.id == last.id) {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "the file ends with event `{}` at position {}, which is not what this log has there: it is an export of another log",
        last.id, last.position
    )))
}

fn line(event: &Event, out: &mut dyn Write) -> std::io::Result<()> {
    let breaks = |raw: &str| raw.contains(['\n', '\r']);
    match &event.data {
        Some(Data::Json(raw)) if breaks(raw.get()) => {
            let mut event = event.clone();
            event.extensions.push((EXACT_DATA.into(), ExtensionValue::String(raw.get().into())));
            // Outside of strings, where JSON allows no line break, it is white space.
            let line = serde_json::to_string(&event)?.replace(['\n', '\r'], " ");
            writeln!(out, "{line}")
        }
        _ => {
            serde_json::to_writer(&mut *out, event)?;
            out.write_all(b"\n")
        }
    }
}

/// On disk before the end is told.
struct SyncedAtEnd(File);

impl Write for SyncedAtEnd {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.sync_data()
    }
}

/// The file, and the last event if it holds something.
fn open(path: &Path, resume: bool) -> Result<(File, Option<Event>), Failure> {
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    if !resume {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        return match file {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::failed(format!(
                "{} exists: --resume goes on with it, or name another file",
                path.display()
            ))),
            file => {
                let file = file.map_err(cannot)?;
                name_on_disk(path).map_err(cannot)?;
                Ok((file, None))
            }
        };
    }
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(cannot)?;
    let (end, last) = whole_lines(&mut file).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => {
            Failure::failed(format!("{} is no export: {error}; nothing was changed", path.display()))
        }
        _ => cannot(error),
    })?;
    file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(cannot)?;
    Ok((file, last))
}

/// A power cut takes the new file's name with its directory, unless that is synced.
fn name_on_disk(path: &Path) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// Where the last whole line ends, and its event.
fn whole_lines(file: &mut File) -> std::io::Result<(u64, Option<Event>)> {
    // The longest line is a little more than an event: look back in growing steps.
    let len = file.metadata()?.len();
    let mut look = 64 << 10;
    loop {
        let begin = len.saturating_sub(look);
        file.seek(SeekFrom::Start(begin))?;
        let mut text = Vec::new();
        BufReader::new(&mut *file).take(len - begin).read_to_end(&mut text)?;
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let last = text[..end].lines().last().transpose()?;
        let starts_inside = begin > 0 && text[..end.saturating_sub(1)].iter().all(|byte| *byte != b'\n');
        match last {
            _ if starts_inside || (begin > 0 && end == 0) => look *= 8,
            None => return Ok((0, None)),
            Some(line) => {
                let event: Event = wire::read(&line).map_err(|invalid| {
                    let what = format!("its last line is no event of a log ({invalid})");
                    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
                })?;
                return Ok((begin + end as u64, Some(event)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_cut_off_and_a_foreign_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let line = |position: u64, pad: usize| {
            format!(
                r#"{{"specversion":"1.0","id":"{position}","source":"/t","type":"T","correlationid":"c","sessionid":"s","time":"2026-01-01T00:00:00Z","recordedtime":"2026-01-01T00:00:00Z","position":"{position}","data":"{}"}}"#,
                "x".repeat(pad)
            ) + "\n"
        };
        let whole = line(0, 5) + &line(1, 200_000);
        for torn in ["", "{", line(2, 300_000).trim_end()] {
            std::fs::write(&path, format!("{whole}{torn}")).unwrap();
            let (_, last) = open(&path, true).unwrap();
            assert_eq!(last.unwrap().position, Position(1));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        }
        std::fs::write(&path, "").unwrap();
        assert!(open(&path, true).unwrap().1.is_none());
        std::fs::write(&path, "dear diary\n").unwrap();
        assert!(open(&path, true).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "dear diary\n");
    }
}
