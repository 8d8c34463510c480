//! Events that are to be stored together.
//!
//! A batch is made once, looked at a few times and dropped, often on another
//! thread. As owned events it is some hundred small pieces of memory; as it came
//! in its frame it is two: the text, and where in it each member lies.
//!
//! # Promises
//! Whoever looks at an event sees the same, however it is kept.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DataRef, NewEvent, NewEventRef};
use crate::Sequence;

/// A list of [`NewEvent`]s: look at them with [`iter`](Self::iter) and
/// [`get`](Self::get), make one `from` a `Vec`.
#[derive(Clone)]
pub struct NewEvents(Kept);

#[derive(Clone)]
enum Kept {
    Owned(Vec<NewEvent>),
    Framed { text: Box<str>, each: Vec<Places> },
}

/// Where a text without escapes lies. Never at the beginning: a frame begins with a bracket.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    start: NonZeroU32,
    end: u32,
}

/// Where the members of an event lie. Extensions and `data_base64` have no place
/// here: an event that has them is an owned one.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    pub id: Place,
    pub source: Option<Place>,
    pub kind: Place,
    pub subject: Option<Place>,
    pub sequence: Option<Sequence>,
    pub correlationid: Option<Place>,
    pub causationid: Option<Place>,
    pub time: Option<Place>,
    pub datacontenttype: Option<Place>,
    pub dataschema: Option<Place>,
    pub traceparent: Option<Place>,
    /// JSON.
    pub data: Option<Place>,
}

impl Place {
    pub fn new(start: usize, end: usize) -> Option<Self> {
        Some(Self { start: NonZeroU32::new(u32::try_from(start).ok()?)?, end: u32::try_from(end).ok()? })
    }

    #[inline(always)]
    fn of(self, text: &str) -> &str {
        // Without a panic, whoever looks at one member does not pay for the others.
        text.get(self.start.get() as usize..self.end as usize).unwrap_or_default()
    }
}

impl NewEvents {
    /// `each` was found in `text`.
    pub(crate) fn framed(text: &str, each: Vec<Places>) -> Self {
        Self(Kept::Framed { text: text.into(), each })
    }

    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Owned(events) => events.len(),
            Kept::Framed { each, .. } => each.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Panics if there are not so many.
    #[inline(always)]
    pub fn get(&self, at: usize) -> NewEventRef<'_> {
        match &self.0 {
            Kept::Owned(events) => events[at].lend(),
            Kept::Framed { text, each } => each[at].of(text),
        }
    }

    #[inline(always)]
    pub fn iter(&self) -> Iter<'_> {
        Iter { events: self, at: 0..self.len() }
    }

    pub fn into_vec(self) -> Vec<NewEvent> {
        match self.0 {
            Kept::Owned(events) => events,
            Kept::Framed { .. } => self.iter().map(|event| event.to_event()).collect(),
        }
    }
}

/// Made by hand so that it is compiled into the loop that uses it, where what
/// nobody looks at is left out.
#[derive(Clone)]
pub struct Iter<'a> {
    events: &'a NewEvents,
    at: Range<usize>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = NewEventRef<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<NewEventRef<'a>> {
        let at = self.at.next()?;
        Some(self.events.get(at))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.at.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl Places {
    #[inline(always)]
    fn of<'a>(&self, text: &'a str) -> NewEventRef<'a> {
        let optional = |place: Option<Place>| place.map(|place| place.of(text));
        NewEventRef {
            id: self.id.of(text),
            source: optional(self.source),
            kind: self.kind.of(text),
            subject: optional(self.subject),
            sequence: self.sequence,
            correlationid: optional(self.correlationid),
            causationid: optional(self.causationid),
            time: optional(self.time),
            datacontenttype: optional(self.datacontenttype),
            dataschema: optional(self.dataschema),
            traceparent: optional(self.traceparent),
            extensions: &[],
            data: optional(self.data).map(DataRef::Json),
        }
    }
}

impl From<Vec<NewEvent>> for NewEvents {
    fn from(events: Vec<NewEvent>) -> Self {
        Self(Kept::Owned(events))
    }
}

impl PartialEq for NewEvents {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for NewEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for NewEvents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|event| event.to_event()))
    }
}

impl<'de> Deserialize<'de> for NewEvents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|events: Vec<NewEvent>| events.into())
    }
}
