//! `daybook read`: events of the log, page by page.

use std::io::{BufWriter, Write};

use daybook_client::ReadQuery;
use daybook_model::wire::Edge;

use super::{Bus, Selection, edge};
use crate::exit::Failure;
use crate::output::{EventWriter, Format};

/// Print events of the log.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    bus: Bus,
    #[command(flatten)]
    selection: Selection,
    /// First position or time, inclusive.
    #[arg(long, value_parser = edge)]
    from: Option<Edge>,
    /// Last position or time, exclusive.
    #[arg(long, value_parser = edge)]
    until: Option<Edge>,
    /// At most so many events; default all.
    #[arg(long)]
    limit: Option<u64>,
    /// Newest first.
    #[arg(long)]
    reverse: bool,
    #[arg(long, value_enum)]
    output: Option<Format>,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let client = args.bus.connect("cli").await?;
    let out = BufWriter::new(std::io::stdout().lock());
    let mut writer = EventWriter::new(out, Format::or_default(args.output));
    let mut query = ReadQuery {
        from: args.from,
        until: args.until,
        filter: args.selection.filter(),
        limit: None,
        reverse: args.reverse,
    };
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        query.limit = Some(left.min(1_000));
        let page = client.read(query.clone()).await?;
        for event in &page.events {
            writer.event(event)?;
        }
        writer.flush()?;
        left -= page.events.len() as u64;
        match page.next {
            Some(next) if query.reverse => query.until = Some(Edge::Position(next)),
            Some(next) => query.from = Some(Edge::Position(next)),
            None => break,
        }
    }
    writer.finish()?;
    client.close().await;
    Ok(std::io::stdout().flush()?)
}
