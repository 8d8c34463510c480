//! `daybook trace`: one unit of work, as a tree of what caused what.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use daybook_client::ReadQuery;
use daybook_model::{Event, Filter};

use super::Bus;
use crate::exit::{Failure, NOT_FOUND};
use crate::output::{EventWriter, Format, brief};

/// Show every event of one correlation.
#[derive(clap::Args)]
pub struct Args {
    correlationid: String,
    #[command(flatten)]
    bus: Bus,
    #[arg(long, value_enum)]
    output: Option<Format>,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let client = args.bus.connect("cli").await?;
    let filter = Filter { correlationid: Some(args.correlationid.as_str().into()), ..Filter::default() };
    let mut events = Vec::new();
    let each = |event| {
        events.push(event);
        Ok::<_, Failure>(())
    };
    client.read_all(ReadQuery { filter, ..ReadQuery::default() }, each).await?;
    if events.is_empty() {
        return Err(Failure::new(
            NOT_FOUND,
            format!("no event has the correlation id `{}`", args.correlationid),
        ));
    }
    let mut out = std::io::stdout().lock();
    match Format::or_default(args.output) {
        Format::Table => out.write_all(tree(&events).as_bytes())?,
        format => {
            let mut writer = EventWriter::new(out, format);
            for event in &events {
                writer.event(event)?;
            }
            writer.finish()?;
        }
    }
    client.close().await;
    Ok(())
}

/// Causes above effects; what was caused from outside stands at the left.
fn tree(events: &[Arc<Event>]) -> String {
    let known: HashMap<&str, usize> =
        events.iter().enumerate().map(|(i, event)| (event.id.as_str(), i)).collect();
    let mut children: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
    for (i, event) in events.iter().enumerate() {
        // A cause comes before its effect: whoever claims otherwise is a root.
        let cause =
            event.causationid.as_deref().and_then(|id| known.get(id)).copied().filter(|cause| *cause < i);
        children.entry(cause).or_default().push(i);
    }
    let mut text = String::new();
    let mut stack: Vec<(usize, usize)> =
        children.get(&None).into_iter().flatten().rev().map(|i| (*i, 0)).collect();
    while let Some((i, depth)) = stack.pop() {
        let event = &events[i];
        let time = event.recordedtime.to_string();
        let mark = if depth == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(depth - 1)) };
        let kind = format!("{mark}{}", event.kind);
        let subject = event.subject.as_deref().unwrap_or("-");
        let by = event.sessionid.split('/').take(2).collect::<Vec<_>>().join("/");
        let line = format!(
            "{}  {:>7}  {kind:34} {subject:28} {by:28} {}",
            time.get(11..26).unwrap_or(&time),
            event.position,
            brief(event)
        );
        text.push_str(line.trim_end());
        text.push('\n');
        stack.extend(children.get(&Some(i)).into_iter().flatten().rev().map(|child| (*child, depth + 1)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_stand_below_their_cause() {
        let event = |id: &str, cause: Option<&str>, position: u64| {
            let json = serde_json::json!({
                "specversion": "1.0", "id": id, "source": "/s", "type": format!("T{id}"), "correlationid": "c",
                "sessionid": "s/1/x", "time": "2026-11-24T09:30:00Z", "recordedtime": "2026-11-24T09:30:00Z",
                "position": position.to_string(), "causationid": cause
            });
            Arc::new(serde_json::from_value::<Event>(json).unwrap())
        };
        let events = [
            event("a", Some("outside"), 0),
            event("b", Some("a"), 1),
            event("c", None, 2),
            event("d", Some("b"), 3),
        ];
        let kinds: Vec<_> =
            tree(&events).lines().map(|line| line[26..].split_once("T").unwrap().1[..1].to_owned()).collect();
        assert_eq!(kinds, ["a", "b", "d", "c"]);
    }
}
