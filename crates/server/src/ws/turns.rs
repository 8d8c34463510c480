//! Whose turn it is to be told, of those on a lane who follow the log and have
//! seen all of it.
//!
//! Told all at once they would keep the lane from its sockets until the last has
//! its push. What the first does about it, its next attempt for a key say, would
//! lie there unread, and come too late when all others have done the same. So a
//! few go on at a time, and the lane looks at its sockets after each wave. Who
//! is late gets the more events in one push.
//!
//! # Promises
//! 1. Who waits longest goes first. With [`FEWEST`] or fewer nobody waits for a
//!    turn, and with more everybody has had one after about [`ROUND`] looks at
//!    the sockets.
//! 2. A change is never missed: who gets a turn late is told at once that there
//!    was one.
//! 3. Waves begin at a different follower each round. The first of a wave has
//!    the best chances where all want the same, and it is not always the same.
//!
//! # After a failure
//! A follower that goes while it has a turn, or waits for one, leaves it to the
//! next.
//!
//! # Not here
//! What is read and sent then: `subscription.rs`. Off a lane nobody takes turns:
//! a runtime's other threads look at the sockets.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use daybook_model::Position;
use tokio::sync::watch::{self, error::RecvError};
use tokio::sync::{Notify, Semaphore};

use crate::lanes;

/// Of a wave, at least; more would not gain throughput (ADR 12), fewer would be
/// a look at the sockets for each push.
const FEWEST: usize = 3;
/// Waves until everybody had a turn, however many they are.
const ROUND: usize = 16;

thread_local! {
    static HERE: OnceCell<Arc<Turns>> = const { OnceCell::new() };
}

/// The turns of the caller's lane.
pub(super) fn here() -> Option<Arc<Turns>> {
    lanes::here()?;
    HERE.with(|here| Some(here.get_or_init(Turns::start).clone()))
}

/// Used by one thread; the atomics only let followers be `Send`.
pub(super) struct Turns {
    /// A place for each whose turn it is.
    places: Semaphore,
    /// Places given out: those that are free, and those that are taken.
    given: AtomicUsize,
    /// Followers in [`Turns::changed`].
    waiting: AtomicUsize,
    /// Somebody had its turn.
    had: Notify,
}

impl Turns {
    /// On the runtime of the caller, with which they end.
    fn start() -> Arc<Self> {
        let turns = Arc::new(Self {
            places: Semaphore::new(FEWEST),
            given: FEWEST.into(),
            waiting: 0.into(),
            had: Notify::new(),
        });
        tokio::spawn(turns.clone().give());
        turns
    }

    /// Waits for the caller's turn, and for a position that it has not seen.
    pub async fn changed(&self, head: &mut watch::Receiver<Position>) -> Result<(), RecvError> {
        let _waiting = Waiting::count(&self.waiting);
        self.places.acquire().await.expect("nobody closes it").forget();
        let _turn = Turn(self);
        head.changed().await
    }

    /// After each look at the sockets, which a task that yields waits for, those
    /// go on whose turn it is; and after what has come is written, if this lane
    /// does that: they are told of it as well.
    async fn give(self: Arc<Self>) {
        let mut waves = Waves::default();
        loop {
            self.had.notified().await;
            tokio::task::yield_now().await;
            let (wave, given) = (waves.next(self.waiting.load(Relaxed)), self.given.load(Relaxed));
            if wave > given {
                self.places.add_permits(wave - given);
                self.given.store(wave, Relaxed);
            }
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Its place is not free again when it is dropped, but given anew.
struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.given.fetch_sub(1, Relaxed);
        self.0.had.notify_one();
    }
}

/// How many go on at a time. On average that is no whole number, nor a fraction
/// of two: however many followers there are, the waves of one round do not begin
/// where those of the last did.
#[derive(Default)]
struct Waves {
    /// Of a follower, what the last waves were too small by.
    rest: f64,
}

/// The fraction that is hardest to approach by others.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

impl Waves {
    fn next(&mut self, waiting: usize) -> usize {
        self.rest += GOLDEN;
        let more = self.rest as usize;
        self.rest -= more as f64;
        FEWEST.max(waiting / ROUND) + more
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    /// Who was told what, and after how many looks at the sockets.
    #[derive(Default)]
    struct Told {
        looks: usize,
        told: Vec<(usize, u64, usize)>,
    }

    struct Lane {
        turns: Arc<Turns>,
        head: watch::Sender<Position>,
        told: Arc<Mutex<Told>>,
    }

    impl Lane {
        fn new() -> Self {
            let told = Arc::new(Mutex::new(Told::default()));
            let looks = told.clone();
            tokio::spawn(async move {
                loop {
                    yield_now().await;
                    looks.lock().unwrap().looks += 1;
                }
            });
            Self { turns: Turns::start(), head: watch::Sender::new(Position::ZERO), told }
        }

        fn follow(&self, who: usize) -> JoinHandle<()> {
            let (turns, mut head, told) = (self.turns.clone(), self.head.subscribe(), self.told.clone());
            tokio::spawn(async move {
                while turns.changed(&mut head).await.is_ok() {
                    let seen = head.borrow_and_update().0;
                    let mut told = told.lock().unwrap();
                    let look = told.looks;
                    told.told.push((who, seen, look));
                }
            })
        }

        fn followers(&self, n: usize) -> Vec<JoinHandle<()>> {
            (0..n).map(|who| self.follow(who)).collect()
        }

        fn append(&self) {
            self.head.send_modify(|head| head.0 += 1);
        }

        /// Of `events` that come once for each `looks` at the sockets.
        async fn told(&self, events: usize, looks: usize) -> Vec<(usize, u64, usize)> {
            settle().await;
            *self.told.lock().unwrap() = Told::default();
            for _ in 0..events {
                self.append();
                for _ in 0..looks {
                    yield_now().await;
                }
            }
            settle().await;
            std::mem::take(&mut self.told.lock().unwrap().told)
        }
    }

    /// More looks than any of these followers needs.
    async fn settle() {
        for _ in 0..200 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_waits_longest_goes_first_and_the_sockets_are_looked_at_after_each_few() {
        let lane = Lane::new();
        lane.followers(40);
        let told = lane.told(1, 1).await;
        assert_eq!(told.len(), 40, "each once: {told:?}");
        let mut who = 0;
        for wave in told.chunk_by(|a, b| a.2 == b.2) {
            assert!(wave.len() <= FEWEST + 1, "{wave:?}");
            // Those who wait together for a change come in any order.
            let mut wave: Vec<_> = wave.iter().map(|(who, ..)| *who).collect();
            wave.sort_unstable();
            assert_eq!(wave, (who..who + wave.len()).collect::<Vec<_>>());
            who += wave.len();
        }
    }

    #[tokio::test]
    async fn few_followers_are_told_before_the_next_look() {
        let lane = Lane::new();
        lane.followers(FEWEST);
        for _ in 0..20 {
            let told = lane.told(1, 1).await;
            assert!(told.len() == FEWEST && told.iter().all(|(.., look)| *look <= 1), "{told:?}");
        }
    }

    #[tokio::test]
    async fn many_followers_have_all_had_their_turn_after_a_round_of_looks() {
        let lane = Lane::new();
        lane.followers(1_000);
        let told = lane.told(1, 1).await;
        assert_eq!(told.len(), 1_000);
        let last = told.last().unwrap().2;
        assert!((ROUND / 2..=2 * ROUND).contains(&last), "{last}");
    }

    #[tokio::test]
    async fn whatever_changes_meanwhile_everybody_sees_the_last_position_in_the_end() {
        for n in [1, FEWEST, FEWEST + 1, 16, 100] {
            let lane = Lane::new();
            lane.followers(n);
            for looks in 0..4 {
                let told = lane.told(50, looks).await;
                let end = lane.head.borrow().0;
                for who in 0..n {
                    let seen: Vec<_> =
                        told.iter().filter(|told| told.0 == who).map(|(_, seen, _)| *seen).collect();
                    assert_eq!(seen.last(), Some(&end), "{who} of {n}");
                    assert!(seen.is_sorted_by(|a, b| a < b), "told only of what is new: {seen:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn who_goes_away_leaves_its_turn_to_the_next() {
        let lane = Lane::new();
        let followers = lane.followers(30);
        settle().await;
        // Some that have a place, some that wait for one, some that are just given one.
        for who in (0..30).filter(|who| who % 3 != 0) {
            lane.append();
            followers[who].abort();
            yield_now().await;
        }
        for _ in 0..3 {
            let mut who: Vec<_> = lane.told(1, 1).await.into_iter().map(|(who, ..)| who).collect();
            who.sort_unstable();
            assert_eq!(who, (0..30).step_by(3).collect::<Vec<_>>());
        }
        followers.iter().for_each(JoinHandle::abort);
        settle().await;
        assert_eq!(lane.turns.waiting.load(Relaxed), 0);
        lane.follow(30);
        assert_eq!(lane.told(1, 1).await.len(), 1);
    }

    #[tokio::test]
    async fn followers_end_with_what_they_follow() {
        let lane = Lane::new();
        let followers = lane.followers(20);
        settle().await;
        drop(lane.head);
        settle().await;
        assert!(followers.iter().all(JoinHandle::is_finished));
    }

    #[test]
    fn each_lane_has_turns_of_its_own_and_no_other_thread_has_any() {
        let lanes = lanes::Lanes::start(2).unwrap();
        let caller = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let of_next = || caller.block_on(lanes.next().unwrap().spawn(async { here().unwrap() })).unwrap();
        let (first, second, first_again) = (of_next(), of_next(), of_next());
        assert!(Arc::ptr_eq(&first, &first_again) && !Arc::ptr_eq(&first, &second));
        assert!(here().is_none());
    }

    #[test]
    fn however_many_take_turns_each_is_as_often_the_first_of_a_wave() {
        for n in 5..=70 {
            let (mut waves, mut first, mut firsts) = (Waves::default(), 0, vec![0; n]);
            for _ in 0..1_000 * n {
                firsts[first] += 1;
                first = (first + waves.next(n)) % n;
            }
            assert!(firsts.iter().all(|times| (950..=1_050).contains(times)), "{n}: {firsts:?}");
        }
    }
}
