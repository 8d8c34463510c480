//! Redis 7: one stream of all events, a counter per key, and a script that
//! checks the counter before it appends. The append-only file is synced before
//! each answer. RESP is spoken by hand.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use super::lines::Lines;
use super::{Connection, Durability, From, Outcome, Peer, Tip, Tools};
use crate::Result;
use crate::payload::{Fresh, KIND};
use crate::process::{Process, free_port};

/// `KEYS`: counter, stream. `ARGV`: expected, key, type, then id and data of
/// each event. Answers with the counter; -1 - counter if it was another.
const SCRIPT: &str = "local next = tonumber(redis.call('GET', KEYS[1]) or '0') \
    if next ~= tonumber(ARGV[1]) then return -1 - next end \
    for i = 4, #ARGV, 2 do \
      redis.call('XADD', KEYS[2], '*', 'id', ARGV[i], 'type', ARGV[3], 'key', ARGV[2], 'seq', next, 'data', ARGV[i + 1]) \
      next = next + 1 \
    end \
    redis.call('SET', KEYS[1], next) \
    return next";
const STREAM: &str = "events";
/// Entries of one answer while everything is read.
const PAGE: usize = 1_000;

pub struct Redis {
    processes: Vec<Process>,
    address: String,
    script: String,
}

impl Peer for Redis {
    type Connection = Session;

    async fn start(tools: &Tools, dir: &Path, durability: Durability) -> Result<Self> {
        let port = free_port()?;
        let fsync = match durability {
            Durability::Always => "always",
            Durability::WhileFilling => "no",
        };
        let mut command = Command::new(&tools.redis);
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "yes",
        ]);
        // The file is as long as what was written: no rewrite disturbs a run.
        command.args(["--appendfsync", fsync, "--auto-aof-rewrite-percentage", "0"]).arg("--dir").arg(dir);
        let process = Process::spawn("redis-server", &mut command, &dir.join("log"))?;
        process.until(async |said| said.contains("Ready to accept connections").then_some(())).await?;
        let address = format!("127.0.0.1:{port}");
        let mut session = Session { lines: Lines::connect(&address).await?, script: String::new(), next: 0 };
        session.command(&["SCRIPT", "LOAD", SCRIPT]);
        let Reply::Text(script) = session.reply().await? else { return Err("SCRIPT LOAD failed".into()) };
        Ok(Self { processes: vec![process], address, script })
    }

    async fn connect(&self) -> Result<Session> {
        Ok(Session { lines: Lines::connect(&self.address).await?, script: self.script.clone(), next: 0 })
    }

    async fn stream(
        &self,
        from: From,
        mut each: impl FnMut(&[u8]) -> Result<ControlFlow<()>> + Send,
    ) -> Result<()> {
        let mut session = self.connect().await?;
        let (mut last, page) = match from {
            From::Start => ("0".to_owned(), PAGE.to_string()),
            From::End => ("$".to_owned(), PAGE.to_string()),
        };
        loop {
            session.command(&["XREAD", "COUNT", &page, "BLOCK", "0", "STREAMS", STREAM, &last]);
            // [[stream, [[id, [name, value, …]], …]]]
            let Reply::List(mut streams) = session.reply().await? else {
                return Err("XREAD found nothing".into());
            };
            let Some(Reply::List(mut stream)) = streams.pop() else {
                return Err("XREAD names no stream".into());
            };
            let Some(Reply::List(entries)) = stream.pop() else { return Err("XREAD has no entries".into()) };
            for entry in entries {
                let Reply::List(mut entry) = entry else { return Err("an entry is no list".into()) };
                let (Some(Reply::List(mut fields)), Some(Reply::Text(id))) = (entry.pop(), entry.pop())
                else {
                    return Err("an entry has no fields".into());
                };
                let Some(Reply::Text(data)) = fields.pop() else {
                    return Err("an entry without data".into());
                };
                last = id;
                if each(data.as_bytes())?.is_break() {
                    return Ok(());
                }
            }
        }
    }

    fn processes(&self) -> &[Process] {
        &self.processes
    }
}

pub struct Session {
    lines: Lines,
    script: String,
    /// What the last conflict said the key's next place is.
    next: u64,
}

enum Reply {
    Integer(i64),
    Text(String),
    List(Vec<Reply>),
    Nothing,
}

impl Session {
    fn command(&mut self, words: &[&str]) {
        self.begin(words.len());
        words.iter().for_each(|word| self.word(word));
    }

    fn begin(&mut self, words: usize) {
        self.lines.out.extend_from_slice(format!("*{words}\r\n").as_bytes());
    }

    fn word(&mut self, word: &str) {
        let out = &mut self.lines.out;
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    async fn reply(&mut self) -> Result<Reply> {
        loop {
            // First see that it is whole: half a page would be parsed in vain.
            if let Some(end) = end_of(self.lines.unread())? {
                let (reply, _) = parse(&self.lines.unread()[..end])?;
                self.lines.take(end);
                return Ok(reply);
            }
            self.lines.more().await?;
        }
    }
}

impl Connection for Session {
    fn send(&mut self, tip: &Tip, events: &[Fresh]) -> Result<()> {
        self.begin(8 + 2 * events.len());
        let script = std::mem::take(&mut self.script);
        for word in [
            "EVALSHA",
            &script,
            "2",
            &format!("next:{}", tip.key),
            STREAM,
            &tip.next.to_string(),
            &tip.key,
            KIND,
        ] {
            self.word(word);
        }
        self.script = script;
        for event in events {
            self.word(&event.id.to_string());
            self.word(&event.data);
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Outcome> {
        match self.reply().await? {
            Reply::Integer(next) if next >= 0 => Ok(Outcome::Stored { at: next as u64 }),
            Reply::Integer(other) => {
                self.next = (-1 - other) as u64;
                Ok(Outcome::Conflict)
            }
            _ => Err("the script answered something else".into()),
        }
    }

    async fn refresh(&mut self, tip: &mut Tip) -> Result<()> {
        tip.next = self.next;
        Ok(())
    }
}

/// Where the first reply ends, if it is whole.
fn end_of(bytes: &[u8]) -> Result<Option<usize>> {
    let (mut at, mut open) = (0, 1u64);
    while open > 0 {
        let Some(line) = bytes.get(at..).and_then(|rest| rest.windows(2).position(|w| w == b"\r\n")) else {
            return Ok(None);
        };
        let head = &bytes[at..at + line];
        at += line + 2;
        open -= 1;
        match head.first() {
            Some(b'$') => at += usize::try_from(number(&head[1..])?).map_or(0, |length| length + 2),
            Some(b'*') => open += u64::try_from(number(&head[1..])?).unwrap_or_default(),
            _ => {}
        }
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// One whole reply and what follows it.
fn parse(bytes: &[u8]) -> Result<(Reply, &[u8])> {
    let line = bytes.windows(2).position(|w| w == b"\r\n").ok_or("half a reply")?;
    let (head, rest) = (&bytes[..line], &bytes[line + 2..]);
    match head.first() {
        Some(b':') => Ok((Reply::Integer(number(&head[1..])?), rest)),
        Some(b'+') => Ok((Reply::Text(String::from_utf8(head[1..].to_vec())?), rest)),
        Some(b'-') => Err(format!("Redis refused: {}", String::from_utf8_lossy(head)).into()),
        Some(b'$') => match usize::try_from(number(&head[1..])?) {
            Ok(length) => {
                let text = String::from_utf8(rest.get(..length).ok_or("half a reply")?.to_vec())?;
                Ok((Reply::Text(text), &rest[length + 2..]))
            }
            Err(_) => Ok((Reply::Nothing, rest)),
        },
        Some(b'*') => match usize::try_from(number(&head[1..])?) {
            Ok(count) => {
                let (mut list, mut rest) = (Vec::with_capacity(count), rest);
                for _ in 0..count {
                    let (reply, after) = parse(rest)?;
                    list.push(reply);
                    rest = after;
                }
                Ok((Reply::List(list), rest))
            }
            Err(_) => Ok((Reply::Nothing, rest)),
        },
        _ => Err(format!("Redis said {:?}", String::from_utf8_lossy(head)).into()),
    }
}

fn number(digits: &[u8]) -> Result<i64> {
    Ok(std::str::from_utf8(digits)?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_once_it_is_whole() {
        let reply = b"*2\r\n:7\r\n*1\r\n$3\r\na\r\n\r\n";
        for cut in 0..reply.len() {
            assert_eq!(end_of(&reply[..cut]).unwrap(), None, "cut at {cut}");
        }
        assert_eq!(end_of(reply).unwrap(), Some(reply.len()));

        let (Reply::List(list), rest) = parse(reply).unwrap() else { panic!("not a list") };
        assert!(matches!(list[0], Reply::Integer(7)));
        assert!(rest.is_empty());
    }
}
