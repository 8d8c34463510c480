//! What events are filed under, hashed by whoever gives them their places:
//! neighbours mostly share their type, key and correlation, and all of a batch
//! their session.

use std::ops::Range;

use daybook_model::{Event, Sequence};

use super::hash::{Hasher, Kind, session_levels};
use super::times::time_of;

/// Consecutive events as far as they are filed, besides their time.
pub(crate) trait Filed {
    fn ids(&self) -> impl Iterator<Item = Id>;
    fn alikes(&self) -> &[Alike];
    fn kind(&self, at: u32) -> &str;
    fn key(&self, at: u32) -> Option<(&str, Sequence)>;
}

/// As much of an event's id as tells where it may be.
#[derive(Clone, Copy)]
pub(crate) struct Id {
    pub hash: u64,
    /// The millisecond that it names, if it does.
    pub time: Option<u64>,
}

/// Neighbours that are filed under the same.
pub(crate) struct Alike {
    pub hash: u64,
    pub events: Range<u32>,
}

impl Id {
    pub fn of(hasher: Hasher, id: &str) -> Self {
        Self { hash: hasher.hash(Kind::Id, id), time: time_of(id) }
    }
}

/// Of `count` events of one session, in no order.
#[inline(always)]
pub(crate) fn alikes<'a>(
    hasher: Hasher,
    session: &str,
    count: u32,
    kind: impl Fn(u32) -> &'a str,
    correlation: impl Fn(u32) -> &'a str,
    subject: impl Fn(u32) -> Option<&'a str>,
) -> Vec<Alike> {
    let sessions = std::iter::once(session).chain(session_levels(session));
    let mut all = Vec::with_capacity(6);
    all.extend(sessions.map(|text| Alike { hash: hasher.hash(Kind::Session, text), events: 0..count }));
    runs(
        count,
        |at| Some(kind(at)),
        |text, events| all.push(Alike { hash: hasher.hash(Kind::Type, text), events }),
    );
    runs(
        count,
        |at| Some(correlation(at)),
        |text, events| {
            all.push(Alike { hash: hasher.hash(Kind::Correlation, text), events });
        },
    );
    runs(count, subject, |text, events| all.push(Alike { hash: hasher.hash(Kind::Subject, text), events }));
    all
}

/// Hands over neighbours that have the same text.
#[inline(always)]
fn runs<'a>(count: u32, text: impl Fn(u32) -> Option<&'a str>, mut each: impl FnMut(&'a str, Range<u32>)) {
    let mut first = 0;
    while first < count {
        let of_first = text(first);
        let end = (first + 1..count).find(|at| text(*at) != of_first).unwrap_or(count);
        if let Some(text) = of_first {
            each(text, first..end);
        }
        first = end;
    }
}

/// An event alone, read from the log.
pub(super) struct Alone<'a> {
    event: &'a Event,
    id: Id,
    alikes: Vec<Alike>,
}

impl<'a> Alone<'a> {
    pub fn new(hasher: Hasher, event: &'a Event) -> Self {
        let subject = event.subject.as_deref().filter(|_| event.sequence.is_some());
        let alikes =
            alikes(hasher, &event.sessionid, 1, |_| &event.kind, |_| &event.correlationid, |_| subject);
        Self { event, id: Id::of(hasher, &event.id), alikes }
    }
}

impl Filed for Alone<'_> {
    fn ids(&self) -> impl Iterator<Item = Id> {
        std::iter::once(self.id)
    }

    fn alikes(&self) -> &[Alike] {
        &self.alikes
    }

    fn kind(&self, _: u32) -> &str {
        &self.event.kind
    }

    fn key(&self, _: u32) -> Option<(&str, Sequence)> {
        self.event.subject.as_deref().zip(self.event.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_with_the_same_text_come_together_and_others_alone() {
        let of = |texts: &[Option<&'static str>]| {
            let mut all = Vec::new();
            runs(texts.len() as u32, |at| texts[at as usize], |text, events| all.push((text, events)));
            all
        };
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[None, None]), []);
        assert_eq!(of(&[Some("a"); 3]), [("a", 0..3)]);
        let mixed = [None, Some("a"), Some("a"), Some("b"), None, Some("b"), Some("a")];
        assert_eq!(of(&mixed), [("a", 1..3), ("b", 3..4), ("b", 5..6), ("a", 6..7)]);
    }
}
