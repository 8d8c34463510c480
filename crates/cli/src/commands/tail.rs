//! `daybook tail`: events as they happen.

use daybook_client::Item;
use daybook_model::wire::{Edge, Start};

use super::{Bus, Interrupts, Selection, edge};
use crate::exit::Failure;
use crate::output::{EventWriter, Format};

/// Follow the log.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    bus: Bus,
    #[command(flatten)]
    selection: Selection,
    /// `start`, `end`, a position or a time.
    #[arg(long, default_value = "end", value_parser = start)]
    from: Start,
    /// Stop after so many events.
    #[arg(long)]
    limit: Option<u64>,
    #[arg(long, value_enum)]
    output: Option<Format>,
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "start" => Ok(Start::START),
        "end" => Ok(Start::END),
        other => match edge(other) {
            Ok(Edge::Position(position)) => Ok(Start::Position(position)),
            Ok(Edge::Time { time }) => Ok(Start::Time { time }),
            Err(reason) => Err(format!("{reason}, or `start`, or `end`")),
        },
    }
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    let client = args.bus.connect("cli").await?;
    let mut subscription = client.subscribe(args.from, args.selection.filter()).await?;
    let mut writer = EventWriter::new(std::io::stdout().lock(), Format::or_default(args.output));
    let limit = args.limit.unwrap_or(u64::MAX);
    let mut next = subscription.position();
    while writer.written() < limit {
        let item = tokio::select! {
            item = subscription.next() => item,
            () = interrupts.next() => {
                eprintln!("go on with: daybook tail --from {next}");
                break;
            }
        };
        match item {
            Some(Item::Event(event)) => {
                next = event.position.next();
                writer.event(&event)?;
                writer.flush()?;
            }
            Some(Item::CaughtUp(_)) => {}
            None => break,
        }
    }
    writer.finish()?;
    client.close().await;
    Ok(())
}
