//! `daybook group`: looking at service groups, and letting go what waits for a person.

mod explain;

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::http::{Http, segment};
use super::rebuild::Host;
use super::{Bus, edge};
use crate::exit::{Failure, NOT_FOUND};
use crate::output::Format;

/// Service groups: who is in them, how far they are, what is parked.
#[derive(clap::Subcommand)]
pub enum Command {
    /// All groups.
    Ls(All),
    /// One group: its options, place and lag.
    Show(One),
    /// The sessions of a group.
    Members(One),
    /// Why a key is where it is.
    Explain(Key),
    /// Keys that failed for good and wait for a person.
    #[command(subcommand)]
    Parked(Parked),
    /// Begin a group anew from another place; it must have no members.
    Reset(Reset),
}

#[derive(clap::Subcommand)]
pub enum Parked {
    /// Which keys are parked, where and why.
    Ls(Everything),
    /// Let a key go on with the event it failed at.
    Retry(Order),
    /// Let a key go on without the event it failed at.
    Skip(Order),
}

#[derive(clap::Args)]
pub struct All {
    #[command(flatten)]
    bus: Bus,
    #[arg(long, value_parser = Format::without_raw())]
    output: Option<Format>,
}

#[derive(clap::Args)]
pub struct One {
    group: String,
    #[command(flatten)]
    bus: Bus,
    #[arg(long, value_parser = Format::without_raw())]
    output: Option<Format>,
}

#[derive(clap::Args)]
pub struct Everything {
    #[command(flatten)]
    one: One,
    /// The host that runs the service: with it, what its views go on without is listed too.
    #[arg(long, env = "DAYBOOK_HOST")]
    host: Option<String>,
    /// The token that the host demands.
    #[arg(long, env = "DAYBOOK_SERVICE_TOKEN", hide_env_values = true)]
    host_token: Option<String>,
}

#[derive(clap::Args)]
pub struct Key {
    group: String,
    key: String,
    #[command(flatten)]
    bus: Bus,
    #[arg(long, value_parser = Format::without_raw())]
    output: Option<Format>,
}

#[derive(clap::Args)]
pub struct Order {
    group: String,
    key: String,
    /// Only say how many events would go on.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    bus: Bus,
}

#[derive(clap::Args)]
pub struct Reset {
    group: String,
    /// `start`, `end`, a position or a time.
    #[arg(long)]
    to: String,
    /// Only say how many events would come again or be left out.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    bus: Bus,
}

pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ls(All { bus, output }) => {
            let groups = Http::new(&bus)?.get("/v1/groups").await?;
            list(&groups, output, &["group", "members", "lag", "age", "in flight", "parked", "state"], |g| {
                let present = members(g).iter().filter(|m| m["connected"] == true).count();
                let state = if g["stopped"] == true { "stopped" } else { "" };
                vec![
                    text(&g["name"]),
                    present.to_string(),
                    text(&g["lag_events"]),
                    format!("{} s", text(&g["lag_seconds"])),
                    text(&g["in_flight"]),
                    text(&g["parked"]),
                    state.into(),
                ]
            })
        }
        Command::Show(One { group, bus, output }) => {
            let found = Http::new(&bus)?.get(&format!("/v1/groups/{}", segment(&group))).await?;
            show(&found, output)
        }
        Command::Members(One { group, bus, output }) => {
            let found = Http::new(&bus)?.get(&format!("/v1/groups/{}", segment(&group))).await?;
            let columns = ["instance", "connected", "slots", "in flight", "credit"];
            list(&found["members"], output, &columns, |m| {
                ["instance", "connected", "slots", "in_flight", "credit"].map(|name| text(&m[name])).to_vec()
            })
        }
        Command::Explain(Key { group, key, bus, output }) => {
            let path = format!("/v1/groups/{}/keys/{}", segment(&group), segment(&key));
            let found = Http::new(&bus)?.get(&path).await?;
            match Format::or_default(output) {
                Format::Table => {
                    Ok(writeln!(std::io::stdout().lock(), "{}", explain::sentence(&group, &found))?)
                }
                _ => line(&found),
            }
        }
        Command::Parked(Parked::Ls(everything)) => list_parked(everything).await,
        Command::Parked(Parked::Retry(order)) => act(order, "retry").await,
        Command::Parked(Parked::Skip(order)) => act(order, "skip").await,
        Command::Reset(reset) => begin_anew(reset).await,
    }
}

/// Keys that wait in the group, and, where the host is named, what its views go on without.
async fn list_parked(everything: Everything) -> Result<(), Failure> {
    let Everything { one: One { group, bus, output }, host, host_token } = everything;
    let keys = Http::new(&bus)?.get(&format!("/v1/groups/{}/parked", segment(&group))).await;
    let Some(host) = host else {
        return list(&keys?, output, &["key", "position", "attempts", "reason"], |p| {
            ["subject", "position", "attempts", "reason"].map(|name| text(&p[name])).to_vec()
        });
    };
    let views = Host::at(host, host_token).parked(&group).await?;
    let mut found = match keys {
        Ok(Value::Array(keys)) => keys,
        // A service that has nothing but views is in no group.
        Err(failure) if failure.code == NOT_FOUND => Vec::new(),
        other => return other.map(|_| ()),
    };
    found.extend(views);
    list(&Value::Array(found), output, &["view", "key", "position", "attempts", "reason"], |p| {
        ["view", "subject", "position", "attempts", "reason"].map(|name| text(&p[name])).to_vec()
    })
}

/// Says the number first, then does it.
async fn act(Order { group, key, dry_run, bus }: Order, what: &str) -> Result<(), Failure> {
    let http = Http::new(&bus)?;
    let path = format!("/v1/groups/{}/parked/{}/{what}", segment(&group), segment(&key));
    let waiting = http.post(&format!("{path}?dry_run=true"), None).await?;
    let (events, position) = (text(&waiting["events"]), text(&waiting["position"]));
    eprintln!("{events} events of {key} wait in {group} from position {position} on");
    if !dry_run {
        http.post(&path, None).await?;
        let done = if what == "skip" { "goes on after" } else { "goes on with" };
        eprintln!("{key} {done} position {position}");
    }
    Ok(())
}

async fn begin_anew(Reset { group, to, dry_run, bus }: Reset) -> Result<(), Failure> {
    let to = match to.as_str() {
        "start" | "end" => json!(to),
        other => match edge(other) {
            Ok(edge) => serde_json::to_value(edge).map_err(std::io::Error::from)?,
            Err(reason) => return Err(Failure::usage(format!("--to: {reason}, or `start`, or `end`"))),
        },
    };
    let http = Http::new(&bus)?;
    let path = format!("/v1/groups/{}/reset", segment(&group));
    let planned = http.post(&path, Some(&json!({ "to": to, "dry_run": true }))).await?;
    let (from, place) = (text(&planned["from"]), text(&planned["to"]));
    match planned.get("again") {
        Some(events) => eprintln!("{} events from position {place} to {from} come again", text(events)),
        None => {
            eprintln!("{} events from position {from} to {place} are left out", text(&planned["skipped"]))
        }
    }
    if !dry_run {
        http.post(&path, Some(&json!({ "to": to }))).await?;
        eprintln!("{group} begins anew at position {place}");
    }
    Ok(())
}

fn members(group: &Value) -> &[Value] {
    group["members"].as_array().map_or(&[], Vec::as_slice)
}

/// A list as a table for people, a line each for pipes.
fn list(
    found: &Value,
    output: Option<Format>,
    columns: &[&str],
    row: impl Fn(&Value) -> Vec<String>,
) -> Result<(), Failure> {
    let found = found.as_array().map_or(&[][..], Vec::as_slice);
    match Format::or_default(output) {
        Format::Table => {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
            table.set_header(columns.iter().map(|column| column.to_uppercase()));
            table.add_rows(found.iter().map(row));
            Ok(writeln!(std::io::stdout().lock(), "{table}")?)
        }
        Format::Json => line(&Value::from(found)),
        _ => found.iter().try_for_each(line),
    }
}

fn show(group: &Value, output: Option<Format>) -> Result<(), Failure> {
    if Format::or_default(output) != Format::Table {
        return line(group);
    }
    let mut out = std::io::stdout().lock();
    for (name, value) in group.as_object().into_iter().flatten() {
        if name != "members" {
            writeln!(out, "{name:18} {}", text(value))?;
        }
    }
    for member in members(group) {
        let state = if member["connected"] == true { "" } else { " (gone, its keys wait for it)" };
        let (instance, slots) = (text(&member["instance"]), text(&member["slots"]));
        writeln!(
            out,
            "{:18} {instance}: {slots} slots, {} in flight{state}",
            "member",
            text(&member["in_flight"])
        )?;
    }
    Ok(())
}

fn line(value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(std::io::Error::from)?;
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// A member as people read it: strings without quotes.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}
