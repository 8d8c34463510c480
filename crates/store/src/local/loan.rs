//! Threads that are lent: whether one was called, and whether it comes.
//!
//! A request that a lent thread has received is checked, written, synced and
//! answered on it: none of the three hops to a committer's own thread and back.
//! In return that thread does nothing else for the length of a sync: while syncs
//! are slow none is borrowed, because what it would take in meanwhile would have
//! come along.
//!
//! # Promises
//! 1. A call that nobody follows is forgotten after [`LATE`]: a thread of our
//!    own does the work.
//! 2. Whoever lends is told of a write that takes longer than that.
//! 3. After either of the two no thread is borrowed for a while: [`REST`] the
//!    first time, twice as long each time that it happens again soon, so that a
//!    disk that hangs, or threads that are busy, come to cost a hundredth of the time.
//!
//! # Not here
//! Clocks and locks: `queue.rs` has them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Lender;

/// A sync takes a fraction of a millisecond, and so does the way to it.
pub(super) const LATE: Duration = Duration::from_millis(5);
/// The first time it may be an accident: our own threads make more, smaller batches.
const REST: Duration = Duration::from_millis(10);
const REST_MAX: Duration = Duration::from_millis(500);
/// Syncs that take longer than this on average are slow.
const SLOW: Duration = Duration::from_micros(400);
/// How many syncs an average remembers, roughly. So many writes in time
/// make two thirds of a rest forgotten.
const REMEMBERED: u32 = 16;

#[derive(Default)]
pub(super) struct Loan {
    lender: Option<Arc<dyn Lender>>,
    /// Since when somebody is on the way.
    called: Option<Instant>,
    /// Since when a lent thread is at the disk, and whether its owner was told.
    writes: Option<(Instant, bool)>,
    rests_until: Option<Instant>,
    /// How long it rested last; shorter with every write in time.
    rest: Duration,
    /// Average time of a sync, whoever waited for it.
    syncs: Duration,
}

impl Loan {
    pub fn begin(&mut self, lender: Arc<dyn Lender>) {
        self.lender = Some(lender);
    }

    /// Whom to call, if a lent thread is to do it.
    pub fn call(&mut self, now: Instant) -> Option<Arc<dyn Lender>> {
        if self.rests_until.is_some_and(|until| now < until) || self.syncs >= SLOW {
            return None;
        }
        let lender = self.lender.clone()?;
        self.called = Some(now);
        Some(lender)
    }

    /// Whether one was called and may still come.
    pub fn is_called(&self, now: Instant) -> bool {
        self.called.is_some_and(|since| now.saturating_duration_since(since) < LATE)
    }

    pub fn came(&mut self) {
        self.called = None;
    }

    /// A thread of our own has begun: whoever was called has not come.
    pub fn overtaken(&mut self, now: Instant) {
        if self.called.take().is_some() {
            self.rest(now);
        }
    }

    pub fn writes(&mut self, now: Instant) {
        self.writes = Some((now, false));
    }

    pub fn is_writing(&self) -> bool {
        self.writes.is_some()
    }

    pub fn written(&mut self, now: Instant) {
        let Some((since, _)) = self.writes.take() else { return };
        if now.saturating_duration_since(since) >= LATE {
            self.rest(now);
        } else {
            self.rest -= self.rest / REMEMBERED;
        }
    }

    fn rest(&mut self, now: Instant) {
        self.rest = (self.rest * 2).clamp(REST, REST_MAX);
        self.rests_until = Some(now + self.rest);
    }

    /// The disk took so long to confirm a write. One that took much longer than
    /// others is an accident, and counts less.
    pub fn synced(&mut self, took: Duration) {
        self.syncs = (self.syncs * (REMEMBERED - 1) + took.min((self.syncs * 2).max(SLOW * 2))) / REMEMBERED;
    }

    /// How long a sync takes.
    pub fn average_sync(&self) -> Duration {
        self.syncs
    }

    /// Whom to tell, once, that its thread is long at the disk.
    pub fn missing(&mut self, now: Instant) -> Option<Arc<dyn Lender>> {
        let (since, told) = self.writes.as_mut()?;
        if *told || now.saturating_duration_since(*since) < LATE {
            return None;
        }
        *told = true;
        self.lender.clone()
    }

    /// How long nobody has to look at it; `None` if there is nothing to see.
    pub fn look_after(&self, now: Instant) -> Option<Duration> {
        let since = self.writes.map(|(since, _)| since).or(self.called)?;
        let left = LATE.saturating_sub(now.saturating_duration_since(since));
        Some(if left.is_zero() { LATE } else { left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Lender for Nobody {
        fn call(&self, _: crate::Call) {}
        fn miss(&self) {}
    }

    fn loan() -> (Loan, Instant) {
        let mut loan = Loan::default();
        loan.begin(Arc::new(Nobody));
        (loan, Instant::now())
    }

    #[test]
    fn nobody_is_called_where_nobody_lends() {
        let mut loan = Loan::default();
        assert!(loan.call(Instant::now()).is_none());
        assert!(!loan.is_called(Instant::now()));
    }

    #[test]
    fn nobody_is_called_while_syncs_are_slow() {
        let (mut loan, now) = loan();
        // One alone is an accident.
        loan.synced(SLOW * 4);
        assert!(loan.call(now).is_some());
        (0..REMEMBERED).for_each(|_| loan.synced(SLOW * 4));
        assert!(loan.call(now).is_none());
        (0..REMEMBERED * 4).for_each(|_| loan.synced(SLOW / 2));
        assert!(loan.call(now).is_some());
    }

    #[test]
    fn a_call_that_nobody_follows_is_forgotten_and_not_repeated_at_once() {
        let (mut loan, now) = loan();
        assert!(loan.call(now).is_some());
        assert!(loan.is_called(now + LATE / 2));
        assert!(!loan.is_called(now + LATE));
        loan.overtaken(now + LATE);
        assert!(loan.call(now + LATE).is_none());
        assert!(loan.call(now + LATE + REST).is_some());
    }

    #[test]
    fn a_rest_is_short_the_first_time_and_longer_as_long_as_it_happens_again() {
        let (mut loan, begun) = loan();
        let mut now = begun;
        let mut late = |loan: &mut Loan| {
            now += REST_MAX * 2;
            loan.call(now).unwrap();
            loan.overtaken(now + LATE);
            (0..).map(|i| REST * i).find(|rested| loan.call(now + LATE + *rested).is_some()).unwrap()
        };
        let rests: Vec<_> = (0..8).map(|_| late(&mut loan)).collect();
        assert_eq!(rests[..4], [REST, REST * 2, REST * 4, REST * 8]);
        assert_eq!(rests[6..], [REST_MAX; 2]);
        // Many writes in time: it was an accident.
        for _ in 0..REMEMBERED * 8 {
            loan.writes(begun);
            loan.written(begun);
        }
        assert_eq!(late(&mut loan), REST);
    }

    #[test]
    fn who_comes_in_time_is_called_again() {
        let (mut loan, now) = loan();
        assert!(loan.call(now).is_some());
        loan.came();
        loan.writes(now);
        assert!(loan.missing(now + LATE / 2).is_none());
        loan.written(now + LATE / 2);
        loan.overtaken(now + LATE / 2);
        assert!(loan.call(now + LATE / 2).is_some());
    }

    #[test]
    fn a_long_write_is_told_once_and_followed_by_a_rest() {
        let (mut loan, now) = loan();
        loan.writes(now);
        assert_eq!(loan.look_after(now + LATE / 2), Some(LATE / 2));
        assert!(loan.missing(now + LATE).is_some());
        assert!(loan.missing(now + LATE * 2).is_none());
        assert_eq!(loan.look_after(now + LATE * 2), Some(LATE));
        loan.written(now + LATE * 3);
        assert_eq!(loan.look_after(now + LATE * 3), None);
        assert!(loan.call(now + LATE * 3).is_none());
    }
}
