//! The table of the paper's §4.2: what it costs when n writers at once want the
//! next value of a key.
//!
//! All n read the key's head, then all publish with that value; those refused
//! read and try again, round by round, until everybody has stored one event.
//! On one key only one can win a round: n(n+1)/2 attempts.

use std::sync::Arc;

use comfy_table::{CellAlignment, Table};
use daybook_client::{Client, ReadQuery};
use daybook_model::{Code, Filter, NewEvent, Sequence};
use serde::Serialize;
use tokio::sync::Barrier;

use super::server::Measured;
use crate::exit::Failure;
use crate::output::Format;

/// Attempts of n concurrent writers on one key, a key per type, a key per account.
#[derive(clap::Args)]
pub struct Args {
    /// Numbers of writers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32])]
    writers: Vec<u32>,
    /// Types that the writers are spread over in the second scheme.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    types: u32,
    #[arg(long, value_enum)]
    output: Option<Format>,
    /// Measure this bus instead of a server of our own.
    #[arg(long)]
    bus: Option<String>,
}

#[derive(Serialize)]
struct Row {
    writers: u32,
    /// n(n+1)/2
    bound: u64,
    constant_key: u64,
    key_per_type: u64,
    key_per_account: u64,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    if args.writers.iter().any(|n| !(1..=256).contains(n)) {
        return Err(Failure::usage("--writers takes numbers from 1 to 256"));
    }
    let measured = Measured::start(args.bus.clone(), None).await?;
    let most = args.writers.iter().copied().max().unwrap_or_default();
    let mut clients = Vec::new();
    for i in 0..most {
        clients
            .push(Client::builder(&measured.bus).service("bench").instance(i.to_string()).connect().await?);
    }
    let mut rows = Vec::new();
    for &n in &args.writers {
        let clients = &clients[..n as usize];
        rows.push(Row {
            writers: n,
            bound: u64::from(n) * (u64::from(n) + 1) / 2,
            constant_key: attempts(clients, 1).await?,
            key_per_type: attempts(clients, args.types).await?,
            key_per_account: attempts(clients, n).await?,
        });
    }
    measured.stop().await;
    match Format::or_default(args.output) {
        Format::Table => println!("{}", table(&rows, args.types)),
        _ => {
            for row in &rows {
                println!("{}", serde_json::to_string(row).map_err(std::io::Error::from)?);
            }
        }
    }
    Ok(())
}

/// Attempts until each client has stored one event, spread over `keys` keys.
async fn attempts(clients: &[Client], keys: u32) -> Result<u64, Failure> {
    let run = uuid::Uuid::now_v7();
    let barrier = Arc::new(Barrier::new(clients.len()));
    let tasks: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(i, client)| {
            let subject = format!("contention/{run}/{}", i as u32 % keys);
            tokio::spawn(contender(client.clone(), subject, barrier.clone(), clients.len()))
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await.map_err(|e| Failure::failed(e.to_string()))??;
    }
    Ok(total)
}

/// One writer. Even when it has won it keeps step with the others' rounds.
async fn contender(
    client: Client,
    subject: String,
    barrier: Arc<Barrier>,
    rounds: usize,
) -> Result<u64, Failure> {
    let mut attempts = 0;
    let mut stored = false;
    for _ in 0..rounds {
        let next = if stored { None } else { Some(next_value(&client, &subject).await?) };
        // Everybody has read before anybody writes: that is what concurrent means here.
        barrier.wait().await;
        if let Some(next) = next {
            attempts += 1;
            let event = NewEvent::new(uuid::Uuid::now_v7().to_string(), "Contended")
                .subject(subject.as_str())
                .sequence(next);
            match client.publish(vec![event]).await {
                Ok(_) => stored = true,
                Err(error) if error.code() == Code::Conflict => {}
                Err(error) => return Err(error.into()),
            }
        }
        barrier.wait().await;
    }
    if stored { Ok(attempts) } else { Err(Failure::failed(format!("a writer of {subject} never won"))) }
}

async fn next_value(client: &Client, subject: &str) -> Result<Sequence, Failure> {
    let query =
        ReadQuery { filter: Filter::subject(subject), limit: Some(1), reverse: true, ..ReadQuery::default() };
    let page = client.read(query).await?;
    Ok(page.events.first().and_then(|event| event.sequence).map_or(Sequence::ZERO, Sequence::next))
}

fn table(rows: &[Row], types: u32) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    let per_type = format!("key per type ({types})");
    table.set_header(["writers", "n(n+1)/2", "one key", per_type.as_str(), "key per account"]);
    for row in rows {
        let numbers =
            [u64::from(row.writers), row.bound, row.constant_key, row.key_per_type, row.key_per_account];
        table.add_row(numbers.map(|n| n.to_string()));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
