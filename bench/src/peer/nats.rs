//! NATS JetStream, one node or three: a stream whose subjects are the keys, each
//! message synced before it is acknowledged. The sequence check is the expected
//! last sequence of the subject; batches are atomic ones. The protocol is
//! spoken by hand.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::lines::Lines;
use super::{Connection, Durability, From, Outcome, Peer, Tip, Tools};
use crate::Result;
use crate::payload::{Fresh, KIND};
use crate::process::{Process, free_port};

const STREAM: &str = "EVENTS";

/// `NODES` servers and as many copies.
pub struct Nats<const NODES: usize> {
    processes: Vec<Process>,
    /// Of the stream's leader, so that no message takes a detour.
    address: String,
}

impl<const NODES: usize> Peer for Nats<NODES> {
    type Connection = Session;

    async fn start(tools: &Tools, dir: &Path, durability: Durability) -> Result<Self> {
        let mut ports = Vec::new();
        for _ in 0..NODES {
            ports.push((free_port()?, free_port()?));
        }
        let routes: Vec<_> = ports.iter().map(|(_, route)| format!("nats://127.0.0.1:{route}")).collect();
        let mut processes = Vec::new();
        for (node, (port, route)) in ports.iter().enumerate() {
            let data = dir.join(format!("data/{node}"));
            std::fs::create_dir_all(&data)?;
            let sync = if durability == Durability::Always { "sync_interval: always" } else { "" };
            let mut config = format!(
                "listen: 127.0.0.1:{port}\nserver_name: n{node}\nmax_payload: 8MB\n\
                 # A reader that takes a while for a million events is not to be cut off.\n\
                 max_pending: 2GB\nwrite_deadline: \"60s\"\n\
                 jetstream {{ store_dir: {:?}, max_file_store: 50GB, {sync} }}\n",
                data.display().to_string()
            );
            if NODES > 1 {
                let routes = routes.join(", ");
                config +=
                    &format!("cluster {{ name: bench, listen: 127.0.0.1:{route}, routes: [{routes}] }}\n");
            }
            let path = dir.join(format!("{node}.conf"));
            std::fs::write(&path, config)?;
            let log = dir.join(format!("log-{node}"));
            processes.push(Process::spawn(
                "nats-server",
                Command::new(&tools.nats).arg("-c").arg(path),
                &log,
            )?);
        }
        let addresses: Vec<_> = ports.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect();
        for (process, address) in processes.iter().zip(&addresses) {
            process.until(async |_| Session::connect(address).await.ok()).await?;
        }
        let leader = create(&addresses[0], NODES).await?;
        let address = addresses[leader].clone();
        Ok(Self { processes, address })
    }

    async fn connect(&self) -> Result<Session> {
        Session::connect(&self.address).await
    }

    async fn stream(
        &self,
        from: From,
        mut each: impl FnMut(&[u8]) -> Result<ControlFlow<()>> + Send,
    ) -> Result<()> {
        let mut session = self.connect().await?;
        let policy = if from == From::Start { "all" } else { "new" };
        session.lines.out.extend_from_slice(b"SUB delivered 2\r\n");
        let consumer = format!(
            r#"{{"stream_name":"{STREAM}","config":{{"deliver_subject":"delivered","deliver_policy":"{policy}","ack_policy":"none","replay_policy":"instant","mem_storage":true,"num_replicas":1}}}}"#
        );
        session.request(&format!("$JS.API.CONSUMER.CREATE.{STREAM}"), &consumer);
        loop {
            let flow = session
                .message(|subscription, body| match subscription {
                    2 => each(body),
                    _ => refused(body).map(|()| ControlFlow::Continue(())),
                })
                .await?;
            if flow.is_break() {
                return Ok(());
            }
        }
    }

    fn processes(&self) -> &[Process] {
        &self.processes
    }
}

/// Makes the stream and tells which node leads it. A cluster needs a while
/// until it can answer at all.
async fn create(address: &str, nodes: usize) -> Result<usize> {
    #[derive(Deserialize)]
    struct Info {
        cluster: Option<Cluster>,
    }
    #[derive(Deserialize)]
    struct Cluster {
        leader: Option<String>,
    }
    let config = format!(
        r#"{{"name":"{STREAM}","subjects":["key.>"],"storage":"file","retention":"limits","num_replicas":{nodes},"allow_atomic":true,"allow_direct":true,"discard":"old","max_msgs":-1,"max_bytes":-1,"max_age":0,"duplicate_window":1000000000}}"#
    );
    let mut last = String::new();
    for _ in 0..60 {
        let mut session = Session::connect(address).await?;
        session.request(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &config);
        let answer = tokio::time::timeout(
            Duration::from_secs(5),
            session.message(|_, body| {
                refused(body)?;
                Ok(serde_json::from_slice::<Info>(body)?)
            }),
        );
        match answer.await {
            Ok(Ok(info)) => {
                let leader = info.cluster.and_then(|cluster| cluster.leader).unwrap_or_default();
                return Ok(leader.trim_start_matches('n').parse().unwrap_or_default());
            }
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = "no answer".into(),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Err(format!("the stream could not be made: {last}").into())
}

pub struct Session {
    lines: Lines,
    batches: u64,
    /// What the last conflict said is the key's newest message, if it said so.
    newest: Option<u64>,
    inbox: String,
}

#[derive(Deserialize)]
struct Ack {
    seq: Option<u64>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    err_code: u32,
    description: String,
}

fn refused(body: &[u8]) -> Result<()> {
    match serde_json::from_slice::<Ack>(body)?.error {
        Some(error) => Err(format!("JetStream refused: {} ({})", error.description, error.err_code).into()),
        None => Ok(()),
    }
}

impl Session {
    async fn connect(address: &str) -> Result<Self> {
        let mut lines = Lines::connect(address).await?;
        let inbox = format!("inbox.{}", uuid::Uuid::new_v4().simple());
        let hello = r#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"bench","version":"1"}"#;
        lines.out.extend_from_slice(format!("{hello}\r\nSUB {inbox} 1\r\nPING\r\n").as_bytes());
        loop {
            lines.more().await?;
            if lines.unread().ends_with(b"PONG\r\n") {
                lines.take(lines.unread().len());
                return Ok(Self { lines, batches: 0, newest: None, inbox });
            }
        }
    }

    fn request(&mut self, subject: &str, body: &str) {
        let line = format!("PUB {subject} {} {}\r\n{body}\r\n", self.inbox, body.len());
        self.lines.out.extend_from_slice(line.as_bytes());
    }

    /// Hands the next message's subscription and body to `each`.
    async fn message<T>(&mut self, each: impl FnOnce(u64, &[u8]) -> Result<T>) -> Result<T> {
        loop {
            let unread = self.lines.unread();
            let Some(line) = unread.windows(2).position(|w| w == b"\r\n") else {
                self.lines.more().await?;
                continue;
            };
            let head = std::str::from_utf8(&unread[..line])?;
            let mut words = head.split_ascii_whitespace();
            match words.next() {
                Some(kind @ ("MSG" | "HMSG")) => {
                    let words: Vec<&str> = words.collect();
                    let number = |from_end: usize| -> Result<usize> {
                        let at = words.len().checked_sub(from_end).ok_or("a short line")?;
                        Ok(words[at].parse()?)
                    };
                    let subscription = words.get(1).ok_or("a short line")?.parse()?;
                    let total = number(1)?;
                    let headers = if kind == "HMSG" { number(2)? } else { 0 };
                    let start = line + 2;
                    if unread.len() < start + total + 2 {
                        self.lines.more().await?;
                        continue;
                    }
                    let result = each(subscription, &unread[start + headers..start + total]);
                    self.lines.take(start + total + 2);
                    return result;
                }
                Some("PING") => {
                    self.lines.take(line + 2);
                    self.lines.out.extend_from_slice(b"PONG\r\n");
                }
                Some("-ERR") => return Err(format!("NATS: {head}").into()),
                _ => self.lines.take(line + 2),
            }
        }
    }

    fn publish(&mut self, key: &str, reply: bool, headers: &str, event: &Fresh) {
        let headers = format!("NATS/1.0\r\nId: {}\r\nType: {KIND}\r\n{headers}\r\n", event.id);
        let reply = if reply { self.inbox.as_str() } else { "" };
        let total = headers.len() + event.data.len();
        let line = format!("HPUB key.{key} {reply} {} {total}\r\n", headers.len());
        let out = &mut self.lines.out;
        for part in [&line, &headers, &event.data, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

impl Connection for Session {
    fn send(&mut self, tip: &Tip, events: &[Fresh]) -> Result<()> {
        let key = tip.key.replace('/', ".");
        let expected = format!("Nats-Expected-Last-Subject-Sequence: {}\r\n", tip.at);
        if let [event] = events {
            self.publish(&key, true, &expected, event);
            return Ok(());
        }
        self.batches += 1;
        for (i, event) in events.iter().enumerate() {
            let mut headers = format!(
                "Nats-Batch-Id: {}-{}\r\nNats-Batch-Sequence: {}\r\n",
                self.inbox,
                self.batches,
                i + 1
            );
            if i == 0 {
                headers += &expected;
            }
            let last = i + 1 == events.len();
            if last {
                headers += "Nats-Batch-Commit: 1\r\n";
            }
            self.publish(&key, last, &headers, event);
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Outcome> {
        // The second comes without the right one, from a cluster whose own last
        // message of the key is still on its way.
        const WRONG_LAST_SEQUENCE: [u32; 2] = [10_071, 10_164];
        let ack = self.message(|_, body| Ok(serde_json::from_slice::<Ack>(body)?)).await?;
        match (ack.seq, ack.error) {
            (_, Some(error)) if WRONG_LAST_SEQUENCE.contains(&error.err_code) => {
                // "wrong last sequence: 7"
                self.newest = error.description.rsplit(' ').next().and_then(|word| word.parse().ok());
                Ok(Outcome::Conflict)
            }
            (_, Some(error)) => Err(format!("{} ({})", error.description, error.err_code).into()),
            (Some(at), None) => Ok(Outcome::Stored { at }),
            (None, None) => Err("an acknowledgement without sequence".into()),
        }
    }

    async fn refresh(&mut self, tip: &mut Tip) -> Result<()> {
        if let Some(newest) = self.newest.take() {
            tip.at = newest;
            return Ok(());
        }
        #[derive(Deserialize)]
        struct Newest {
            message: Option<Message>,
        }
        #[derive(Deserialize)]
        struct Message {
            seq: u64,
        }
        let query = format!(r#"{{"last_by_subj":"key.{}"}}"#, tip.key.replace('/', "."));
        self.request(&format!("$JS.API.STREAM.MSG.GET.{STREAM}"), &query);
        let newest = self.message(|_, body| Ok(serde_json::from_slice::<Newest>(body)?)).await?;
        tip.at = newest.message.map_or(0, |message| message.seq);
        Ok(())
    }
}
