//! The log as it is at the end: what histories are held against.

use std::collections::HashMap;

use daybook_model::Event;

/// One event of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub position: u64,
    pub id: String,
    pub kind: String,
    pub subject: Option<String>,
    pub sequence: Option<u64>,
    pub cause: Option<String>,
    /// When the bus took it, in microseconds.
    pub recorded: i64,
    pub content: u64,
}

impl Entry {
    pub fn of(event: &Event) -> Self {
        Self {
            position: event.position.0,
            id: event.id.clone(),
            kind: event.kind.clone(),
            subject: event.subject.clone(),
            sequence: event.sequence.map(|sequence| sequence.0),
            cause: event.causationid.clone(),
            recorded: event.recordedtime.0,
            content: super::content(event),
        }
    }
}

/// What a group's order is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOf {
    Subject,
    /// The whole group is one key: `exclusive`.
    Group,
}

/// Events of one key wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    All,
    Text(&'a str),
    /// An event without key waits for nobody.
    Event(u64),
}

#[derive(Clone, Debug)]
pub struct GroupSpec {
    pub name: &'static str,
    pub key: KeyOf,
    /// The group wants the types that begin so.
    pub types: &'static str,
    /// What its handlers publish, one event per event handled.
    pub effects: &'static str,
    /// Deliveries of one event before it is parked.
    pub max_attempts: u32,
}

impl GroupSpec {
    pub fn wants(&self, entry: &Entry) -> bool {
        entry.kind.starts_with(self.types)
    }

    /// Of each event that the group wants, the one of its key before it.
    pub fn predecessors(&self, log: &Logged) -> HashMap<u64, u64> {
        let (mut last, mut before) = (HashMap::new(), HashMap::new());
        for entry in log.entries.iter().filter(|entry| self.wants(entry)) {
            if let Some(previous) = last.insert(self.key(entry), entry.position) {
                before.insert(entry.position, previous);
            }
        }
        before
    }

    pub fn key<'a>(&self, entry: &'a Entry) -> Key<'a> {
        match (self.key, &entry.subject) {
            (KeyOf::Group, _) => Key::All,
            (KeyOf::Subject, Some(subject)) => Key::Text(subject),
            (KeyOf::Subject, None) => Key::Event(entry.position),
        }
    }
}

/// The log with its ways in.
pub struct Logged {
    pub entries: Vec<Entry>,
    by_id: HashMap<String, Vec<usize>>,
}

impl Logged {
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut by_id: HashMap<String, Vec<usize>> = HashMap::new();
        for (i, entry) in entries.iter().enumerate() {
            by_id.entry(entry.id.clone()).or_default().push(i);
        }
        Self { entries, by_id }
    }

    pub fn at(&self, position: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(position).ok()?).filter(|entry| entry.position == position)
    }

    /// How often the id is there; once is right.
    pub fn times(&self, id: &str) -> usize {
        self.by_id.get(id).map_or(0, Vec::len)
    }

    pub fn by_id(&self, id: &str) -> Option<&Entry> {
        self.by_id.get(id).map(|found| &self.entries[found[0]])
    }
}
