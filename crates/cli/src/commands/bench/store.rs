//! The store by itself, filled to millions of events: what it costs on disk and
//! in memory, how long it takes to open, what an id or key costs that was never
//! seen, and how fast one reader reads everything.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daybook_model::{Filter, NewEvent, NewEvents, Position};
use daybook_store::local::{LocalStore, Options};
use daybook_store::{Batch, EventStore, Query};
use serde::Serialize;

use crate::exit::Failure;

/// Fill a store in this process, then measure it.
#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Keys that they are spread over.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// Where; default the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figures {
    events: u64,
    keys: u64,
    append_events_per_s: u64,
    disk_bytes_per_event: u64,
    index_bytes_per_event: u64,
    rss_bytes: u64,
    close_ms: u64,
    open_ms: u64,
    rss_after_open_bytes: u64,
    never_seen_id_ns: u64,
    never_seen_key_ns: u64,
    known_id_us: u64,
    replay_events_per_s: u64,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let data = dir.path().join("data");
    let store = open(&data)?;
    let begun = Instant::now();
    fill(&store, &args).await?;
    let append = args.events as f64 / begun.elapsed().as_secs_f64();
    let rss_bytes = rss();
    let begun = Instant::now();
    store.close().await;
    drop(store);
    let close_ms = begun.elapsed().as_millis() as u64;
    let begun = Instant::now();
    let store = open(&data)?;
    let open_ms = begun.elapsed().as_millis() as u64;
    let rss_after_open_bytes = rss();
    let never_seen_id_ns = each(20_000, |i| store.event_by_id(&format!("never-{i}"))).await?;
    let never_seen_key_ns = each(20_000, |i| store.subject(&format!("never/{i}"))).await?;
    let some = args.events / 2_000;
    let known_id_us = each(2_000, |i| store.event_by_id(&id(i * some))).await? / 1_000;
    let replay_events_per_s = replay(&store, args.events).await?;
    let index = size(&data.join("index"))?;
    let figures = Figures {
        events: args.events,
        keys: args.keys,
        append_events_per_s: append as u64,
        disk_bytes_per_event: size(&data)? / args.events,
        index_bytes_per_event: index / args.events,
        rss_bytes,
        close_ms,
        open_ms,
        rss_after_open_bytes,
        never_seen_id_ns,
        never_seen_key_ns,
        known_id_us,
        replay_events_per_s,
    };
    store.close().await;
    println!("{}", serde_json::to_string(&figures).map_err(std::io::Error::from)?);
    Ok(())
}

fn open(data: &std::path::Path) -> Result<Arc<dyn EventStore>, Failure> {
    let store = LocalStore::open(data, Options::default());
    Ok(Arc::new(store.map_err(|error| Failure::failed(error.to_string()))?))
}

fn id(i: u64) -> String {
    // Spread like UUIDs, and known again later.
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &i.to_le_bytes()).to_string()
}

async fn fill(store: &Arc<dyn EventStore>, args: &Args) -> Result<(), Failure> {
    const BATCH: u64 = 100;
    const UNDER_WAY: usize = 16;
    let data = super::payload(args.payload);
    let mut waiting = std::collections::VecDeque::new();
    let mut next = 0;
    while next < args.events {
        let until = (next + BATCH).min(args.events);
        let events: Vec<_> = (next..until)
            .map(|i| {
                NewEvent::new(id(i), "Measured")
                    .subject(format!("account/{}", i % args.keys))
                    .data(data.clone())
            })
            .collect();
        waiting.push_back(store.append(Batch {
            events: NewEvents::from(events),
            session: format!("bench/{}/0", next % 8).into(),
            principal: None,
            default_source: "/bench".into(),
            fallback_correlation: id(u64::MAX - next),
            fence: None,
        }));
        next = until;
        if waiting.len() == UNDER_WAY
            && let Some(answer) = waiting.pop_front()
        {
            answer.await.map_err(|error| Failure::failed(error.to_string()))?;
        }
    }
    for answer in waiting {
        answer.await.map_err(|error| Failure::failed(error.to_string()))?;
    }
    Ok(())
}

/// Nanoseconds of one call, one after the other.
async fn each<T>(
    count: u64,
    call: impl Fn(u64) -> daybook_store::Answer<Result<T, daybook_store::ReadError>>,
) -> Result<u64, Failure> {
    let begun = Instant::now();
    for i in 0..count {
        call(i).await.map_err(|error| Failure::failed(error.to_string()))?;
    }
    Ok((begun.elapsed().as_nanos() / u128::from(count)) as u64)
}

async fn replay(store: &Arc<dyn EventStore>, events: u64) -> Result<u64, Failure> {
    let mut query = Query {
        from: Position(0),
        until: None,
        filter: Filter::default(),
        reverse: false,
        max_events: 1_000,
        max_bytes: 4 << 20,
    };
    let (begun, mut read) = (Instant::now(), 0);
    loop {
        let page = store.read(query.clone()).await.map_err(|error| Failure::failed(error.to_string()))?;
        read += page.events.len() as u64;
        let Some(next) = page.next else { break };
        query.from = next;
    }
    if read != events {
        return Err(Failure::failed(format!("{read} of {events} events were read back")));
    }
    Ok((read as f64 / begun.elapsed().max(Duration::from_nanos(1)).as_secs_f64()) as u64)
}

fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

fn size(dir: &std::path::Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { size(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
