//! How far a group has come.
//!
//! Everything below `top` is settled, except `unsettled` and what a detached
//! key's record covers. The lowest unsettled position is `low`. Written down is
//! no more than needed: what was read but is not settled yet is read again.

use std::collections::BTreeSet;

use daybook_model::Position;

use crate::planted::{Bug, has};

#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    /// Next position to read. Below `top` only after a restart.
    pub read: Position,
    top: Position,
    unsettled: BTreeSet<Position>,
    /// One beyond the highest settled position: above it nothing needs to be told.
    settled_top: Position,
    /// What was settled since it was last asked for, if anybody wants to know.
    watched: Option<Vec<Position>>,
}

impl Cursor {
    pub fn new(top: Position, unsettled: impl IntoIterator<Item = Position>) -> Self {
        let unsettled: BTreeSet<_> = unsettled.into_iter().filter(|p| *p < top).collect();
        let read = unsettled.first().copied().unwrap_or(top);
        Self { read, top, unsettled, settled_top: top, watched: None }
    }

    pub fn low(&self) -> Position {
        self.unsettled.first().copied().unwrap_or(self.top)
    }

    /// Whether an event just read at `position` still has to be done.
    pub fn is_open(&self, position: Position) -> bool {
        position >= self.top || self.unsettled.contains(&position) || has(Bug::SettledComesAgain)
    }

    pub fn open(&mut self, position: Position) {
        self.unsettled.insert(position);
    }

    /// [`self.read`, `next`) has been read and `wanted` of it is open: whatever
    /// else was open there is wanted no more (the filter changed).
    pub fn passed(&mut self, next: Position, wanted: &BTreeSet<Position>) {
        if self.read < self.top {
            let gone: Vec<_> =
                self.unsettled.range(self.read..next).filter(|p| !wanted.contains(p)).copied().collect();
            for position in gone {
                self.unsettled.remove(&position);
            }
        }
        self.read = self.read.max(next);
        self.top = self.top.max(next);
    }

    pub fn settle(&mut self, position: Position) {
        self.unsettled.remove(&position);
        self.settled_top = self.settled_top.max(position.next());
        if let Some(watched) = &mut self.watched {
            watched.push(position);
        }
    }

    /// From now on every settling is told, in its order; or no more.
    pub fn watch(&mut self, on: bool) {
        self.watched = on.then(|| self.watched.take().unwrap_or_default());
    }

    pub fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    pub fn take_settled(&mut self) -> Vec<Position> {
        self.watched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A detached key's record answers for it from now on. What is written down
    /// goes beyond it, as beyond what is settled: a record that said `next` of a
    /// position which is read again would lose what was settled in between.
    pub fn cover(&mut self, position: Position) {
        self.unsettled.remove(&position);
        if !has(Bug::CoveredIsReadAgain) {
            self.settled_top = self.settled_top.max(position.next());
        }
    }

    pub fn is_unsettled(&self, position: Position) -> bool {
        self.unsettled.contains(&position)
    }

    /// Up to here the log has been looked at, now or before a restart.
    pub fn top(&self) -> Position {
        self.top
    }

    /// What to write down: `top`, at least `least` if that was read, and the
    /// unsettled positions below it.
    pub fn saved(&self, least: Position) -> (Position, Vec<Position>) {
        let Some(low) = self.unsettled.first().copied().filter(|_| !has(Bug::CursorPastUnsettled)) else {
            return (self.top, Vec::new());
        };
        let top = self.settled_top.max(low).max(least).min(self.top);
        (top, self.unsettled.range(..top).copied().collect())
    }

    pub fn snapshot(&self) -> (Position, BTreeSet<Position>) {
        (self.top, self.unsettled.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cursor: &mut Cursor, next: u64, wanted: &[u64]) {
        let wanted: BTreeSet<_> = wanted.iter().copied().map(Position).collect();
        wanted.iter().for_each(|p| cursor.open(*p));
        cursor.passed(Position(next), &wanted);
    }

    #[test]
    fn low_is_the_earliest_event_not_settled_whatever_the_order_of_acks() {
        let mut cursor = Cursor::new(Position(0), []);
        read(&mut cursor, 10, &[1, 4, 7]);
        assert_eq!(cursor.low(), Position(1));
        cursor.settle(Position(7));
        cursor.settle(Position(1));
        assert_eq!(cursor.low(), Position(4));
        assert_eq!(cursor.saved(Position(0)), (Position(8), vec![Position(4)]));
        cursor.settle(Position(4));
        assert_eq!(cursor.low(), Position(10));
    }

    #[test]
    fn a_restart_reads_again_only_what_was_not_settled() {
        let mut cursor = Cursor::new(Position(8), [Position(4)]);
        assert_eq!(cursor.read, Position(4));
        let open: Vec<u64> = (0..12).filter(|p| cursor.is_open(Position(*p))).collect();
        assert_eq!(open, [4, 8, 9, 10, 11]);
        cursor.settle(Position(4));
        assert_eq!(cursor.saved(Position(0)), (Position(8), vec![]));
    }

    #[test]
    fn what_was_read_but_not_settled_is_not_written_down() {
        let mut cursor = Cursor::new(Position(0), []);
        read(&mut cursor, 1_000, &(0..1_000).collect::<Vec<_>>());
        cursor.settle(Position(0));
        assert_eq!(cursor.saved(Position(0)), (Position(1), vec![]));
    }

    #[test]
    fn an_open_position_that_the_filter_no_longer_wants_is_given_up() {
        let mut cursor = Cursor::new(Position(8), [Position(4), Position(6)]);
        cursor.passed(Position(8), &[Position(6)].into());
        assert_eq!(cursor.low(), Position(6));
    }
}
