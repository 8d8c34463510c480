//! Where events are found: by id, key, type, correlation, session, time. In
//! memory, rebuilt when the log is opened.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use daybook_log::Place;
use daybook_model::{Event, Pattern, Position, Timestamp};
use foldhash::HashMap;

use crate::SubjectInfo;

/// Positions with one common attribute, ascending.
type Postings = BTreeMap<Arc<str>, Vec<u64>>;

#[derive(Default)]
pub(crate) struct Index {
    places: Vec<Place>,
    /// Ascending: `recordedtime` never goes backwards.
    times: Vec<i64>,
    ids: HashMap<Box<str>, u64>,
    subjects: Postings,
    types: Postings,
    correlations: Postings,
    sessions: Postings,
}

/// More lists than this are slower to merge than the log is to scan.
const LISTS_MAX: usize = 64;

impl Index {
    /// Adds the event at the next position.
    pub fn insert(&mut self, event: &Event, place: Place) {
        let position = self.places.len() as u64;
        debug_assert_eq!(position, event.position.0);
        self.places.push(place);
        self.times.push(event.recordedtime.0);
        self.ids.insert(event.id.as_str().into(), position);
        if let Some(subject) = &event.subject {
            post(&mut self.subjects, subject, position);
        }
        post(&mut self.types, &event.kind, position);
        post(&mut self.correlations, &event.correlationid, position);
        post(&mut self.sessions, &event.sessionid, position);
    }

    pub fn place(&self, position: Position) -> Option<Place> {
        self.places.get(usize::try_from(position.0).ok()?).copied()
    }

    pub fn position_of(&self, id: &str) -> Option<Position> {
        self.ids.get(id).copied().map(Position)
    }

    /// The sequence value that the key's next event takes.
    pub fn next_sequence(&self, subject: &str) -> u64 {
        self.subjects.get(subject).map_or(0, |list| list.len() as u64)
    }

    pub fn last_time(&self) -> Timestamp {
        Timestamp(self.times.last().copied().unwrap_or(i64::MIN))
    }

    pub fn position_at(&self, time: Timestamp) -> Position {
        Position(self.times.partition_point(|recorded| *recorded < time.0) as u64)
    }

    pub fn subject(&self, subject: &str) -> Option<SubjectInfo> {
        self.subjects.get_key_value(subject).map(info)
    }

    pub fn subjects(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<SubjectInfo> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let range = self.subjects.range::<str, _>((from, Bound::Unbounded));
        range.take_while(|(subject, _)| subject.starts_with(prefix)).take(limit).map(info).collect()
    }

    /// The shortest set of lists that together hold every match of `filter`;
    /// `None` if scanning is as good.
    pub fn candidates(&self, filter: &daybook_model::Filter) -> Option<Vec<&[u64]>> {
        let one =
            |pattern: &Option<Pattern>| pattern.as_ref().map(std::slice::from_ref).map(<[Pattern]>::to_vec);
        let choices = [
            (&self.subjects, filter.subjects.clone()),
            (&self.correlations, one(&filter.correlationid)),
            (&self.sessions, one(&filter.sessionid)),
            (&self.types, filter.types.clone()),
        ];
        choices
            .into_iter()
            .filter_map(|(postings, patterns)| lists(postings, &patterns?))
            .min_by_key(|lists| lists.iter().map(|list| list.len()).sum::<usize>())
    }
}

fn post(postings: &mut Postings, text: &str, position: u64) {
    match postings.get_mut(text) {
        Some(list) => list.push(position),
        None => {
            postings.insert(text.into(), vec![position]);
        }
    }
}

fn info((subject, list): (&Arc<str>, &Vec<u64>)) -> SubjectInfo {
    let last = Position(list.last().copied().unwrap_or_default());
    SubjectInfo { subject: subject.to_string(), events: list.len() as u64, last }
}

fn lists<'a>(postings: &'a Postings, patterns: &[Pattern]) -> Option<Vec<&'a [u64]>> {
    // Two patterns may name the same list: by key, so that each comes once.
    let mut found: BTreeMap<&str, &[u64]> = BTreeMap::new();
    for pattern in patterns {
        match pattern.prefix() {
            None => {
                if let Some((key, list)) = postings.get_key_value(pattern.0.as_str()) {
                    found.insert(key, list);
                }
            }
            Some(prefix) => {
                let range = postings.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
                for (key, list) in range.take_while(|(key, _)| key.starts_with(prefix)) {
                    found.insert(key, list);
                    if found.len() > LISTS_MAX {
                        return None;
                    }
                }
            }
        }
        if found.len() > LISTS_MAX {
            return None;
        }
    }
    Some(found.into_values().collect())
}
