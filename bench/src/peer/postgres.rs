//! PostgreSQL 15: one table of events, a unique place in each key, a commit per
//! batch. Prepared statements; several events go in as arrays in one insert.

use std::ops::ControlFlow;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use rustix::process::{Signal, geteuid};
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, Client, NoTls, Statement};
use uuid::Uuid;

use super::{Connection, Durability, From, Outcome, Peer, Tip, Tools};
use crate::Result;
use crate::payload::{Fresh, KIND};
use crate::process::{Process, free_port};

/// `listened` is for the one workload that waits for events: a statement's
/// trigger notifies, as a service would have it.
const SCHEMA: &str = "
    create table events (
        position bigint generated always as identity primary key,
        id uuid not null,
        type text not null,
        key text not null,
        sequence bigint not null,
        recorded timestamptz not null default clock_timestamp(),
        data json not null,
        unique (key, sequence)
    );
    create function tell() returns trigger language plpgsql as
        $$ begin notify events; return null; end $$;";
const NOTIFIED: &str = "
    create trigger told after insert on events for each statement execute function tell()";
const INSERT_ONE: &str = "
    insert into events (id, type, key, sequence, data) values ($1, $2, $3, $4, $5::text::json)
    on conflict (key, sequence) do nothing";
const INSERT_MANY: &str = "
    insert into events (id, type, key, sequence, data)
    select id, $2, $3, $4 + place - 1, data::json
    from unnest($1::uuid[], $5::text[]) with ordinality as one (id, data, place)
    on conflict (key, sequence) do nothing";
const HEAD: &str = "select coalesce(max(sequence) + 1, 0) from events where key = $1";
const PAGE: &str = "
    select position, id, type, key, sequence, data::text from events
    where position > $1 order by position limit 10000";

pub struct Postgres {
    processes: Vec<Process>,
    port: u16,
}

impl Peer for Postgres {
    type Connection = Session;
    /// A fast shutdown: it does not wait for clients to go.
    const STOP: Signal = Signal::INT;

    async fn start(tools: &Tools, dir: &Path, durability: Durability) -> Result<Self> {
        let data = dir.join("data");
        let user = User::to_run_as()?;
        if !data.exists() {
            std::fs::create_dir(&data)?;
            user.own(dir)?;
            user.own(&data)?;
            let mut init = Command::new(tools.postgres.join("initdb"));
            init.args([
                "--no-sync",
                "--auth=trust",
                "--username=bench",
                "--encoding=UTF8",
                "--locale=C",
                "-D",
            ]);
            let output = user.run(init.arg(&data).current_dir(dir)).output();
            let output = output.map_err(|e| format!("cannot start initdb: {e}"))?;
            if !output.status.success() {
                return Err(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr)).into());
            }
        }
        let port = free_port()?;
        let mut command = Command::new(tools.postgres.join("postgres"));
        command.arg("-D").arg(&data).current_dir(dir);
        let commit = if durability == Durability::Always { "on" } else { "off" };
        for setting in [
            &format!("port={port}"),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=400",
            "shared_buffers=512MB",
            // No checkpoint within a turn.
            "max_wal_size=8GB",
            "checkpoint_timeout=30min",
            &format!("synchronous_commit={commit}"),
        ] {
            command.args(["-c", setting]);
        }
        let process = Process::spawn("postgres", user.run(&mut command), &dir.join("log"))?;
        let client = process.until(async |_| connect(port).await.ok()).await?.0;
        if client.query("select 1 from pg_class where relname = 'events'", &[]).await?.is_empty() {
            client.batch_execute(SCHEMA).await?;
        }
        Ok(Self { processes: vec![process], port })
    }

    async fn connect(&self) -> Result<Session> {
        let (client, _) = connect(self.port).await?;
        let one = client.prepare(INSERT_ONE).await?;
        let many = client.prepare(INSERT_MANY).await?;
        let head = client.prepare(HEAD).await?;
        Ok(Session { client: Arc::new(client), one, many, head, waiting: FuturesOrdered::new() })
    }

    async fn stream(
        &self,
        from: From,
        mut each: impl FnMut(&[u8]) -> Result<ControlFlow<()>> + Send,
    ) -> Result<()> {
        let (client, told) = connect(self.port).await?;
        let mut last = 0;
        if from == From::End {
            client.batch_execute(NOTIFIED).await?;
            client.batch_execute("listen events").await?;
            last = client.query_one("select coalesce(max(position), 0) from events", &[]).await?.get(0);
        }
        let page = client.prepare(PAGE).await?;
        loop {
            let rows = client.query(&page, &[&last]).await?;
            for row in &rows {
                last = row.get::<_, i64>(0);
                let _: (Uuid, &str, &str, i64) = (row.get(1), row.get(2), row.get(3), row.get(4));
                if each(row.get::<_, &str>(5).as_bytes())?.is_break() {
                    return Ok(());
                }
            }
            if rows.is_empty() {
                told.notified().await;
            }
        }
    }

    fn processes(&self) -> &[Process] {
        &self.processes
    }
}

impl Drop for Postgres {
    /// At once, without a checkpoint: the children go too.
    fn drop(&mut self) {
        for process in &self.processes {
            let _ = process.end(Signal::QUIT);
        }
    }
}

async fn connect(port: u16) -> Result<(Client, Arc<Notify>)> {
    let settings = format!("host=127.0.0.1 port={port} user=bench dbname=postgres");
    let (client, mut connection) = tokio_postgres::connect(&settings, NoTls).await?;
    let told = Arc::new(Notify::new());
    let tell = told.clone();
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(_) = message {
                tell.notify_one();
            }
        }
    });
    Ok((client, told))
}

pub struct Session {
    client: Arc<Client>,
    one: Statement,
    many: Statement,
    head: Statement,
    waiting: FuturesOrdered<BoxFuture<'static, Result<bool>>>,
}

impl Connection for Session {
    fn send(&mut self, tip: &Tip, events: &[Fresh]) -> Result<()> {
        let client = self.client.clone();
        let (key, next) = (tip.key.clone(), tip.next as i64);
        let stored: BoxFuture<'static, Result<bool>> = match events {
            [event] => {
                let (statement, id, data) = (self.one.clone(), event.id, event.data.clone());
                Box::pin(async move {
                    Ok(client.execute(&statement, &[&id, &KIND, &key, &next, &data]).await? == 1)
                })
            }
            _ => {
                let statement = self.many.clone();
                let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
                let data: Vec<String> = events.iter().map(|event| event.data.clone()).collect();
                Box::pin(async move {
                    let rows = client.execute(&statement, &[&ids, &KIND, &key, &next, &data]).await?;
                    Ok(rows == ids.len() as u64)
                })
            }
        };
        self.waiting.push_back(stored);
        Ok(())
    }

    async fn receive(&mut self) -> Result<Outcome> {
        let stored = self.waiting.next().await.ok_or("nothing was sent")??;
        Ok(if stored { Outcome::Stored { at: 0 } } else { Outcome::Conflict })
    }

    async fn refresh(&mut self, tip: &mut Tip) -> Result<()> {
        let row = self.client.query_one(&self.head, &[&tip.key]).await?;
        tip.next = row.get::<_, i64>(0) as u64;
        Ok(())
    }
}

/// PostgreSQL refuses to run as root: then it runs as `postgres`.
struct User(Option<(u32, u32)>);

impl User {
    fn to_run_as() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self(None));
        }
        let passwd = std::fs::read_to_string("/etc/passwd")?;
        let line = passwd.lines().find_map(|line| line.strip_prefix("postgres:"));
        let mut fields = line.into_iter().flat_map(|line| line.split(':').skip(1)).map(str::parse::<u32>);
        match (fields.next(), fields.next()) {
            (Some(Ok(user)), Some(Ok(group))) => Ok(Self(Some((user, group)))),
            _ => Err("PostgreSQL does not run as root, and there is no user `postgres`".into()),
        }
    }

    fn own(&self, path: &Path) -> Result<()> {
        match self.0 {
            Some((user, group)) => Ok(chown(path, Some(user), Some(group))?),
            None => Ok(()),
        }
    }

    fn run<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        match self.0 {
            Some((user, group)) => command.uid(user).gid(group),
            None => command,
        }
    }
}
