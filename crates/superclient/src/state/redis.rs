//! State in Redis 7, shared by the hosts of a service.
//!
//! # Promises
//! Every change is one script, which Redis runs alone: it checks what it rests
//! on and writes, or refuses.
//!
//! # After a failure
//! A Redis that was restarted may be empty, or hold what it last saved. Neither
//! can be told from the truth, so neither is trusted: its `run_id` is kept
//! beside the generation, and another one means that all was lost.
//! A commit whose answer was lost may have happened: who repeats it sees that by
//! its own rows.
//!
//! # Layout
//! `daybook:{service}:current` names the generation and the `run_id`;
//! `…:rows:<generation>` is a hash of all rows, `…:keys:<generation>` a sorted
//! set of their keys for scans; `…:generations` lists what exists; `…:lease`
//! expires.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use redis::{Client, Connection, ErrorKind, RedisError, Script, Value};

use super::{At, Backend, Commit, Error, Row};
use crate::StartError;

/// Longer than any script of ours takes.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) struct Shared {
    client: Client,
    /// For messages: without the password.
    place: String,
    prefix: String,
    connection: Mutex<Option<Connected>>,
    scripts: Scripts,
}

struct Connected {
    connection: Connection,
    run: String,
}

struct Scripts {
    arrive: Script,
    get: Script,
    scan: Script,
    commit: Script,
    advance: Script,
    discard: Script,
    lease: Script,
    release: Script,
}

/// What of another run of the server is left is deleted.
const ARRIVE: &str = r"
local current = redis.call('GET', KEYS[1])
if current and string.match(current, ' (.*)$') ~= ARGV[1] then
  for _, generation in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    redis.call('UNLINK', ARGV[2] .. ':rows:' .. generation, ARGV[2] .. ':keys:' .. generation)
  end
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
end
return 'ok'";

/// KEYS current, rows; ARGV generation, hidden, key.
const GET: &str = r"
local current = redis.call('GET', KEYS[1])
if not current then return { 'lost' } end
if ARGV[2] == '0' and string.match(current, '^%d+') ~= ARGV[1] then return { 'moved' } end
local value = redis.call('HGET', KEYS[2], ARGV[3])
if value then return { 'ok', value } end
return { 'ok' }";

/// KEYS current, rows, keys; ARGV generation, hidden, from, to, limit.
const SCAN: &str = r"
local current = redis.call('GET', KEYS[1])
if not current then return { 'lost' } end
if ARGV[2] == '0' and string.match(current, '^%d+') ~= ARGV[1] then return { 'moved' } end
local found = { 'ok' }
for _, key in ipairs(redis.call('ZRANGE', KEYS[3], ARGV[3], ARGV[4], 'BYLEX', 'LIMIT', 0, ARGV[5])) do
  found[#found + 1] = key
  found[#found + 1] = redis.call('HGET', KEYS[2], key)
end
return found";

/// KEYS current, rows, keys, lease, generations; ARGV generation, hidden,
/// of_handler, leader, number of reads, then reads and writes as (key, there, value).
const COMMIT: &str = r"
local current = redis.call('GET', KEYS[1])
if not current then return 'lost' end
if ARGV[2] == '0' and string.match(current, '^%d+') ~= ARGV[1] then return 'moved' end
local lease = redis.call('GET', KEYS[4])
if ARGV[3] == '1' and lease and string.match(lease, ' filling$') then return 'filling' end
if ARGV[4] ~= '' and (not lease or string.match(lease, '^%S+') ~= ARGV[4]) then return 'leader' end
local reads = tonumber(ARGV[5])
for i = 6, 5 + 3 * reads, 3 do
  local value = redis.call('HGET', KEYS[2], ARGV[i])
  if (ARGV[i + 1] == '1') ~= (value ~= false) or (value and value ~= ARGV[i + 2]) then return 'conflict' end
end
redis.call('SADD', KEYS[5], ARGV[1])
for i = 6 + 3 * reads, #ARGV, 3 do
  if ARGV[i + 1] == '1' then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
    redis.call('ZADD', KEYS[3], 0, ARGV[i])
  else
    redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('ZREM', KEYS[3], ARGV[i])
  end
end
return 'ok'";

/// KEYS current, generations; ARGV from, to, run, prefix.
const ADVANCE: &str = r"
local current = redis.call('GET', KEYS[1])
if (current and string.match(current, '^%d+') or '') ~= ARGV[1] then return 'moved' end
redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. ARGV[3])
redis.call('SADD', KEYS[2], ARGV[2])
for _, generation in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  if generation ~= ARGV[2] then
    redis.call('UNLINK', ARGV[4] .. ':rows:' .. generation, ARGV[4] .. ':keys:' .. generation)
    redis.call('SREM', KEYS[2], generation)
  end
end
return 'ok'";

const DISCARD: &str = r"
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('SREM', KEYS[3], ARGV[1])
return 'ok'";

/// KEYS lease; ARGV holder, what else it says, milliseconds.
const LEASE: &str = r"
local lease = redis.call('GET', KEYS[1])
if lease and string.match(lease, '^%S+') ~= ARGV[1] then return 'no' end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 'ok'";

const RELEASE: &str = r"
local lease = redis.call('GET', KEYS[1])
if lease and string.match(lease, '^%S+') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 'ok'";

impl Shared {
    pub fn open(url: &str, service: &str) -> Result<Self, StartError> {
        let place = place(url);
        let fail = |reason: String| StartError::Redis { url: place.clone(), reason };
        let client = Client::open(url).map_err(|error| fail(error.to_string()))?;
        let shared = Self {
            client,
            place: place.clone(),
            prefix: format!("daybook:{{{service}}}"),
            connection: Mutex::new(None),
            scripts: Scripts {
                arrive: Script::new(ARRIVE),
                get: Script::new(GET),
                scan: Script::new(SCAN),
                commit: Script::new(COMMIT),
                advance: Script::new(ADVANCE),
                discard: Script::new(DISCARD),
                lease: Script::new(LEASE),
                release: Script::new(RELEASE),
            },
        };
        shared.with(|_| Ok(())).map_err(|error| fail(error.to_string()))?;
        Ok(shared)
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    fn rows(&self, generation: u64) -> (String, String) {
        (self.key(&format!("rows:{generation}")), self.key(&format!("keys:{generation}")))
    }

    /// With a connection to a server whose rows are ours; a broken one is made again once.
    fn with<T>(&self, mut f: impl FnMut(&mut Connected) -> Result<T, RedisError>) -> Result<T, Error> {
        let mut slot = lock(&self.connection);
        for again in [true, false] {
            let mut connected = match slot.take() {
                Some(connected) => connected,
                None => self.connect().map_err(|error| self.fail(&error))?,
            };
            match f(&mut connected) {
                Ok(value) => {
                    *slot = Some(connected);
                    return Ok(value);
                }
                // What comes back may be another server: `connect` looks.
                Err(error) if again && is_broken(&error) => {}
                Err(error) => {
                    if !is_broken(&error) {
                        *slot = Some(connected);
                    }
                    return Err(self.fail(&error));
                }
            }
        }
        unreachable!("the second round returns")
    }

    fn connect(&self) -> Result<Connected, RedisError> {
        let mut connection = self.client.get_connection_with_timeout(ANSWER)?;
        connection.set_read_timeout(Some(ANSWER))?;
        connection.set_write_timeout(Some(ANSWER))?;
        let info: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::trim);
        let run = run.ok_or((ErrorKind::Client, "the server does not tell its run_id"))?.to_owned();
        let mut arrive = self.scripts.arrive.prepare_invoke();
        arrive.key(self.key("current")).key(self.key("generations")).key(self.key("lease"));
        arrive.arg(&run).arg(&self.prefix).invoke::<()>(&mut connection)?;
        Ok(Connected { connection, run })
    }

    fn fail(&self, error: &RedisError) -> Error {
        Error::Unavailable { place: self.place.clone(), reason: error.to_string() }
    }

    /// A script's answer: a word, then rows.
    fn rows_of(&self, answer: Vec<Value>) -> Result<Vec<Vec<u8>>, Error> {
        let mut parts = answer.into_iter().map(|value| match value {
            Value::BulkString(bytes) => bytes,
            Value::SimpleString(text) => text.into_bytes(),
            _ => Vec::new(),
        });
        self.word(&parts.next().unwrap_or_default())?;
        Ok(parts.collect())
    }

    fn word(&self, word: &[u8]) -> Result<(), Error> {
        Err(match word {
            b"ok" => return Ok(()),
            b"lost" => Error::Lost,
            b"moved" => Error::Moved,
            b"filling" => Error::Filling,
            b"leader" => Error::NotLeader,
            b"conflict" => Error::Conflict,
            _ => Error::Unavailable { place: self.place.clone(), reason: "it answered nonsense".into() },
        })
    }
}

impl Backend for Shared {
    fn current(&self) -> Result<Option<u64>, Error> {
        let key = self.key("current");
        let current: Option<String> =
            self.with(|redis| redis::cmd("GET").arg(&key).query(&mut redis.connection))?;
        Ok(current.and_then(|text| text.split(' ').next()?.parse().ok()))
    }

    fn get(&self, at: At, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let answer: Vec<Value> = self.with(|redis| {
            let mut get = self.scripts.get.prepare_invoke();
            get.key(self.key("current")).key(self.rows(at.generation).0);
            get.arg(at.generation).arg(u8::from(at.hidden)).arg(key).invoke(&mut redis.connection)
        })?;
        Ok(self.rows_of(answer)?.into_iter().next())
    }

    fn scan(&self, at: At, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Error> {
        let from = match after {
            Some(after) => [b"(", after].concat(),
            None => [b"[", prefix].concat(),
        };
        let to = end(prefix).map_or(b"+".to_vec(), |end| [b"(".as_slice(), &end].concat());
        let answer: Vec<Value> = self.with(|redis| {
            let (rows, keys) = self.rows(at.generation);
            let mut scan = self.scripts.scan.prepare_invoke();
            scan.key(self.key("current")).key(rows).key(keys);
            scan.arg(at.generation).arg(u8::from(at.hidden)).arg(&from).arg(&to).arg(limit);
            scan.invoke(&mut redis.connection)
        })?;
        let mut parts = self.rows_of(answer)?.into_iter();
        let mut found = Vec::new();
        while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
            found.push((key, value));
        }
        Ok(found)
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<(), Error> {
        let (rows, keys) = self.rows(commit.at.generation);
        let word: Vec<u8> = self.with(|redis| {
            let mut script = self.scripts.commit.prepare_invoke();
            script.key(self.key("current")).key(&rows).key(&keys);
            script.key(self.key("lease")).key(self.key("generations"));
            script.arg(commit.at.generation).arg(u8::from(commit.at.hidden));
            script.arg(u8::from(commit.of_handler)).arg(commit.leader.unwrap_or_default());
            script.arg(commit.reads.len());
            for (key, value) in commit.reads.iter().chain(commit.writes) {
                script.arg(key.as_slice()).arg(u8::from(value.is_some()));
                script.arg(value.as_deref().unwrap_or_default());
            }
            script.invoke(&mut redis.connection)
        })?;
        self.word(&word)
    }

    fn advance(&self, from: Option<u64>, to: u64) -> Result<(), Error> {
        let from = from.map(|from| from.to_string()).unwrap_or_default();
        let word: Vec<u8> = self.with(|redis| {
            let mut script = self.scripts.advance.prepare_invoke();
            script.key(self.key("current")).key(self.key("generations"));
            script.arg(&from).arg(to).arg(redis.run.as_str()).arg(&self.prefix);
            script.invoke(&mut redis.connection)
        })?;
        self.word(&word)
    }

    fn discard(&self, generation: u64) -> Result<(), Error> {
        let (rows, keys) = self.rows(generation);
        let word: Vec<u8> = self.with(|redis| {
            let mut script = self.scripts.discard.prepare_invoke();
            script.key(&rows).key(&keys).key(self.key("generations")).arg(generation);
            script.invoke(&mut redis.connection)
        })?;
        self.word(&word)
    }

    fn lease(&self, holder: &str, filling: bool, time: Duration) -> Result<bool, Error> {
        let word: Vec<u8> = self.with(|redis| {
            let mut script = self.scripts.lease.prepare_invoke();
            script.key(self.key("lease")).arg(holder);
            script.arg(if filling { " filling" } else { "" }).arg(time.as_millis() as u64);
            script.invoke(&mut redis.connection)
        })?;
        Ok(word == b"ok")
    }

    fn release(&self, holder: &str) -> Result<(), Error> {
        self.with(|redis| {
            self.scripts.release.key(self.key("lease")).arg(holder).invoke::<()>(&mut redis.connection)
        })
    }

    fn holder(&self) -> Result<Option<String>, Error> {
        let lease: Option<String> =
            self.with(|redis| redis::cmd("GET").arg(self.key("lease")).query(&mut redis.connection))?;
        Ok(lease.and_then(|lease| lease.split_whitespace().next().map(str::to_owned)))
    }

    fn is_shared(&self) -> bool {
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

/// Whether the connection is of no more use: an answer may still come over it.
fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_timeout()
}

/// The first key beyond all that begin with `prefix`.
fn end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// The address as it may be shown.
fn place(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}
