//! A random walk against a checker that knows only the promises.
//!
//! The checker keeps, for every event, whether somebody entitled to it has
//! settled it, and who holds what. It is told nothing of lanes, slots, records
//! or cursors, and holds every delivery against G1, G2 and the fence, every
//! restart against "answered means durable" and "nothing is settled by
//! accident", and the end of every walk against G3.
//!
//! A failure is walked again and again with fewer steps; what is left is told
//! input by input. `DAYBOOK_SEED=…` walks one seed, `DAYBOOK_WALKS=…` so many:
//! 500 make a million steps.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{Got, World, join};
use daybook_bus::{Bug, Input, MemberId, ReplyId, Settings, Token, plant};
use daybook_model::wire::{self, Mode, NackAction, Poison};

const WALKS: u64 = 80;
const STEPS: u64 = 2_000;
const MAX_ATTEMPTS: u32 = 3;

#[test]
fn a_random_walk_keeps_the_promises() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("DAYBOOK_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("DAYBOOK_WALKS").unwrap_or(WALKS),
    };
    for seed in seeds {
        let steps = steps_of(seed);
        let Some(why) = failure(seed, &steps, None) else { continue };
        let least = shrink(seed, steps, None);
        eprintln!("the walk with DAYBOOK_SEED={seed} failed: {why}");
        eprintln!("so does one of {} steps, which is this:", least.len());
        Walk { aloud: true, ..Walk::new(seed) }.run(&least);
        panic!("the walk with DAYBOOK_SEED={seed} failed, and its shortest part did not once more");
    }
}

/// A checker that finds nothing proves nothing: each of these mistakes must be found.
#[test]
fn every_planted_mistake_is_found() {
    let found = |bug| (1..=WALKS).any(|seed| failure(seed, &steps_of(seed), Some(bug)).is_some());
    let missed: Vec<Bug> = Bug::ALL.into_iter().filter(|bug| !found(*bug)).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// A person can read what is left of two thousand steps.
#[test]
fn a_walk_that_fails_shrinks_to_few_steps() {
    let bug = Some(Bug::RetrySettles);
    let seed = (1..=WALKS).find(|seed| failure(*seed, &steps_of(*seed), bug).is_some()).expect("it is found");
    let least = shrink(seed, steps_of(seed), bug);
    assert!(failure(seed, &least, bug).is_some(), "what is left does not fail");
    assert!(failure(seed, &least, None).is_none(), "what is left fails without the mistake");
    assert!(least.len() <= 30, "{} steps are left", least.len());
}

/// Every step throws dice of its own: without its neighbours it does the same.
fn steps_of(seed: u64) -> Vec<u64> {
    let mut dice = Dice(seed);
    (0..STEPS).map(|_| dice.next()).collect()
}

/// What the walk panics with, in a thread whose panics nobody prints.
fn failure(seed: u64, steps: &[u64], bug: Option<Bug>) -> Option<String> {
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(|| {
        let aloud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some("quiet") {
                aloud(info);
            }
        }));
    });
    let steps = steps.to_vec();
    let walk = move || {
        plant(bug);
        Walk::new(seed).run(&steps);
    };
    let panic =
        std::thread::Builder::new().name("quiet".into()).spawn(walk).expect("a thread").join().err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default())
}

/// Leaves out whatever the failure does not need: halves first, single steps last.
fn shrink(seed: u64, mut steps: Vec<u64>, bug: Option<Bug>) -> Vec<u64> {
    let mut size = steps.len() / 2;
    while size > 0 {
        let (mut at, mut any) = (0, false);
        while at < steps.len() {
            let mut less = steps.clone();
            less.drain(at..(at + size).min(steps.len()));
            if failure(seed, &less, bug).is_some() {
                steps = less;
                any = true;
            } else {
                at += size;
            }
        }
        if !(any && size == 1) {
            size /= 2;
        }
    }
    steps
}

/// SplitMix64: the same walk everywhere, for ever.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> Option<T> {
        if list.is_empty() { None } else { Some(list[self.below(list.len() as u64) as usize].clone()) }
    }
}

struct Walk {
    /// Tells what it does; for the shortest walk that fails.
    aloud: bool,
    dice: Dice,
    world: World,
    mode: Mode,
    poison: Poison,
    settled: BTreeSet<u64>,
    /// Acks that were answered: they must survive everything.
    answered: BTreeSet<u64>,
    /// Given up by a session, an operator or the policy.
    skipped: BTreeSet<u64>,
    /// Of these, those that their keys have gone on without: never to come again.
    passed: BTreeSet<u64>,
    /// What each reply speaks of.
    asked: BTreeMap<u64, Vec<(Token, u64)>>,
    next_reply: u64,
    /// Deliveries that their sessions still hold.
    live: BTreeMap<Token, Got>,
    /// Deliveries that are over, to be used again by mistake.
    dead: Vec<Token>,
    last_attempt: BTreeMap<u64, u32>,
    /// Was in the hands of a session that crashed for good: the next attempt has a higher number.
    crashed: BTreeSet<u64>,
    /// Members whose process cannot come back.
    without_boot: BTreeSet<u64>,
    /// How many events of one key each member takes at once.
    windows: BTreeMap<u64, usize>,
    /// Acked while an earlier event of the key was not.
    early: BTreeSet<Token>,
    /// So acked, and then an earlier event failed.
    voided: BTreeSet<Token>,
    /// Keys whose old claims are not fenced yet.
    unfenced: BTreeMap<Token, u64>,
    present: Vec<u64>,
    next_member: u64,
    next_boot: u64,
    boots: BTreeMap<u64, (String, String)>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let (mode, poison) = match seed % 5 {
            0 => (Mode::Exclusive, Poison::Stop),
            1 => (Mode::Keyed, Poison::Stop),
            2 => (Mode::Keyed, Poison::Skip),
            _ => (Mode::Keyed, Poison::Park),
        };
        let options =
            wire::Join { mode: Some(mode), poison: Some(poison), max_attempts: Some(MAX_ATTEMPTS), ..join() };
        let settings = Settings {
            lane_events: 3,
            buffered_events: 12,
            lag_positions: 15,
            page_events: 5,
            detached_keys: 6,
            ..Settings::default()
        };
        Self {
            aloud: false,
            dice: Dice(seed),
            world: World::with(options, settings),
            mode,
            poison,
            settled: BTreeSet::new(),
            answered: BTreeSet::new(),
            skipped: BTreeSet::new(),
            passed: BTreeSet::new(),
            asked: BTreeMap::new(),
            next_reply: 0,
            live: BTreeMap::new(),
            dead: Vec::new(),
            last_attempt: BTreeMap::new(),
            crashed: BTreeSet::new(),
            without_boot: BTreeSet::new(),
            windows: BTreeMap::new(),
            early: BTreeSet::new(),
            voided: BTreeSet::new(),
            unfenced: BTreeMap::new(),
            present: Vec::new(),
            next_member: 1,
            next_boot: 1,
            boots: BTreeMap::new(),
        }
    }

    fn run(mut self, steps: &[u64]) {
        self.world.aloud = self.aloud;
        for (step, dice) in steps.iter().enumerate() {
            self.dice = Dice(*dice);
            self.act();
            self.look();
            if step % 50 == 0 {
                self.compare();
            }
        }
        self.finish();
    }

    fn act(&mut self) {
        match self.dice.below(100) {
            0..20 => {
                let keys = ["a", "b", "c", "d", "e", "f", "g", ""];
                let n = 1 + self.dice.below(3);
                let subjects: Vec<&str> = (0..n).filter_map(|_| self.dice.pick(&keys)).collect();
                self.world.publish(&subjects);
            }
            20..28 => self.join(),
            28..30 => {
                if let Some(member) = self.gone() {
                    self.world.leave(member);
                }
            }
            30..34 => {
                let held: Vec<(u64, u64)> =
                    self.live.values().map(|got| (got.member(), got.position())).collect();
                if let Some(member) = self.gone() {
                    if self.without_boot.contains(&member) {
                        let its = held.iter().filter(|(holder, _)| *holder == member);
                        self.crashed.extend(its.map(|(_, position)| *position));
                    }
                    self.world.lost(member);
                }
            }
            34..62 => self.ack(),
            62..65 => self.ack_what_is_not_ours(),
            65..74 => self.nack(),
            74..76 => {
                if let Some(token) = self.dice.pick(&self.tokens()) {
                    self.world.step(Input::Progress { member: token.member, token });
                }
            }
            76..84 => {
                let ms = self.dice.pick(&[1, 9, 30, 120, 700, 5_001, 40_000]).unwrap_or(1);
                self.pass(ms);
            }
            84..90 => match self.dice.below(3) {
                0 => self.world.answer_saves = !self.world.answer_saves,
                1 => self.world.answer_fences = !self.world.answer_fences,
                _ => self.world.answer_reads = !self.world.answer_reads,
            },
            90..96 => self.answer(),
            96..98 => self.operate(),
            98 => self.fail_something(),
            _ => {
                if self.dice.below(4) == 0 {
                    self.restart();
                }
            }
        }
    }

    /// Time passes; each step is looked at, since what one sends the next may take back.
    fn pass(&mut self, ms: u64) {
        let end = self.world.now + ms;
        while let Some(at) = self.world.group.wake_at().filter(|at| *at <= end) {
            self.world.now = self.world.now.max(at);
            self.world.step(Input::Tick);
            self.look();
        }
        self.world.now = end;
    }

    fn join(&mut self) {
        if self.present.len() >= 4 {
            return;
        }
        let member = self.next_member;
        self.next_member += 1;
        let resumed = if self.dice.below(2) == 0 {
            let known: Vec<_> = self.boots.values().cloned().collect();
            self.dice.pick(&known)
        } else {
            None
        };
        let (instance, boot) = resumed.unwrap_or_else(|| {
            self.next_boot += 1;
            (format!("i{}", self.dice.below(3)), format!("b{}", self.next_boot))
        });
        let credit = 1 + self.dice.below(6) as usize;
        self.present.push(member);
        self.boots.insert(member, (instance.clone(), boot.clone()));
        let boot = (self.dice.below(5) > 0).then_some(boot.as_str());
        if boot.is_none() {
            self.without_boot.insert(member);
        }
        let window = self.dice.pick(&[1, 1, 2, 4]).unwrap_or(1);
        self.windows.insert(member, window);
        self.world.join_with_window(member, (&instance, boot), credit, window);
    }

    /// A member that goes now: what it holds is no longer its.
    fn gone(&mut self) -> Option<u64> {
        let member = self.dice.pick(&self.present)?;
        self.forget(member);
        Some(member)
    }

    fn forget(&mut self, member: u64) {
        self.present.retain(|other| *other != member);
        let over: Vec<Token> = self.live.keys().filter(|token| token.member.0 == member).copied().collect();
        for token in over {
            self.end(token, true);
        }
    }

    /// The delivery is over; unless it was settled its fence has to come.
    fn end(&mut self, token: Token, unsettled: bool) {
        let Some(got) = self.live.remove(&token) else { return };
        self.dead.push(token);
        let early = self.early.remove(&token);
        if unsettled {
            self.unfenced.insert(token, got.position());
            if early {
                self.voided.insert(token);
            }
        }
    }

    /// Of each key the earliest that are acked, up to the first that is not.
    fn settle_acked(&mut self) {
        let mut early: Vec<(u64, Token)> =
            self.early.iter().map(|token| (self.live[token].position(), *token)).collect();
        early.sort_unstable();
        for (position, token) in early {
            if self.held_before(position).next().is_none() {
                self.settled.insert(position);
                self.end(token, false);
            }
        }
    }

    /// Earlier events of the same key that sessions hold.
    fn held_before(&self, position: u64) -> impl Iterator<Item = &Got> {
        self.live
            .values()
            .filter(move |held| held.position() < position && self.same_key(held.position(), position))
    }

    fn tokens(&self) -> Vec<Token> {
        self.live.keys().copied().collect()
    }

    fn ack(&mut self) {
        let Some(first) = self.dice.pick(&self.tokens()) else { return };
        let mut tokens = vec![first];
        if self.dice.below(3) == 0 {
            tokens = self.tokens().into_iter().filter(|token| token.member == first.member).collect();
        }
        let positions = tokens.iter().map(|token| (*token, self.live[token].position())).collect();
        self.early.extend(&tokens);
        self.settle_acked();
        let reply = (self.dice.below(2) == 0).then(|| {
            self.next_reply += 1;
            let id = self.next_reply;
            self.asked.insert(id, positions);
            ReplyId(id)
        });
        self.world.step(Input::Ack { member: first.member, tokens, reply });
    }

    /// Changes nothing, or [`Self::compare`] finds out.
    fn ack_what_is_not_ours(&mut self) {
        let anybody = MemberId(self.dice.below(self.next_member + 1));
        if let Some(token) = self.dice.pick(&self.dead.clone()) {
            self.world.step(Input::Ack { member: token.member, tokens: vec![token], reply: None });
            let action = NackAction::Skip;
            let (delay_ms, reason) = (None, None);
            self.world.step(Input::Nack { member: token.member, token, action, delay_ms, reason, jitter: 0 });
        }
        if let Some(token) = self.dice.pick(&self.tokens())
            && token.member != anybody
        {
            self.world.step(Input::Ack { member: anybody, tokens: vec![token], reply: None });
        }
    }

    fn nack(&mut self) {
        let Some(token) = self.dice.pick(&self.tokens()) else { return };
        let actions =
            [NackAction::Retry, NackAction::Retry, NackAction::Retry, NackAction::Park, NackAction::Skip];
        let action = self.dice.pick(&actions).unwrap_or(NackAction::Retry);
        let position = self.live[&token].position();
        if action == NackAction::Skip && self.held_before(position).next().is_none() {
            self.settled.insert(position);
            self.skipped.insert(position);
            self.end(token, false);
        }
        // Whatever else the session has of the key comes again.
        let of_key = |got: &&Got| self.same_key(got.position(), position);
        let back: Vec<Token> = self.live.values().filter(of_key).map(|got| got.token).collect();
        back.into_iter().for_each(|token| self.end(token, true));
        let delay_ms = self.dice.pick(&[None, Some(0), Some(50)]).flatten();
        let (member, jitter, reason) = (token.member, self.dice.next(), None);
        self.world.step(Input::Nack { member, token, action, delay_ms, reason, jitter });
    }

    fn answer(&mut self) {
        match self.dice.below(3) {
            0 => self.world.answer_saves(),
            1 => self.world.answer_fences(),
            _ => self.world.answer_reads(),
        }
    }

    fn fail_something(&mut self) {
        if let Some((number, _)) = self.world.saves.pop() {
            self.world.step(Input::SaveFailed(number));
        }
        if self.world.reads.pop().is_some() {
            self.world.step(Input::ReadFailed);
        }
    }

    fn operate(&mut self) {
        let Some(parked) = self.dice.pick(&self.world.group.parked()) else { return };
        if self.dice.below(3) == 0 {
            self.settled.insert(parked.position.0);
            self.skipped.insert(parked.position.0);
            self.world.step(Input::Skip(parked.key));
        } else {
            // It begins anew: its attempts are counted from one.
            self.last_attempt.remove(&parked.position.0);
            self.crashed.remove(&parked.position.0);
            self.world.step(Input::Retry(parked.key));
        }
    }

    fn restart(&mut self) {
        self.hear_replies();
        self.world.restart();
        self.live.clear();
        self.dead.clear();
        self.unfenced.clear();
        self.early.clear();
        self.voided.clear();
        self.asked.clear();
        self.world.replies.clear();
        self.present.clear();
        self.boots.clear();
        self.crashed.clear();
        let remembered = self.group_settled();
        let forgotten: Vec<_> = self.answered.difference(&remembered).collect();
        assert!(forgotten.is_empty(), "answered acks are lost: {forgotten:?}");
        let made_up: Vec<_> = remembered.difference(&self.settled).filter(|p| !self.poisoned(**p)).collect();
        assert!(made_up.is_empty(), "settled by nobody: {made_up:?}");
        let back: Vec<_> = self.passed.difference(&remembered).collect();
        assert!(back.is_empty(), "skipped, gone on without, and forgotten: {back:?}");
        self.skipped.retain(|position| remembered.contains(position));
        self.settled = remembered;
    }

    fn group_settled(&self) -> BTreeSet<u64> {
        let settled = self.world.group.settled();
        self.world.log.iter().filter(|event| settled.contains(event)).map(|event| event.position.0).collect()
    }

    /// The `skip` policy may have settled it: it had all its attempts.
    fn poisoned(&self, position: u64) -> bool {
        self.poison == Poison::Skip
            && self.last_attempt.get(&position) == Some(&MAX_ATTEMPTS)
            && self.live.values().all(|got| got.position() != position)
    }

    fn hear_replies(&mut self) {
        for (id, stale) in std::mem::take(&mut self.world.replies) {
            let early = stale.iter().all(|token| self.voided.contains(token));
            assert!(early, "a live token was stale: {stale:?}");
            let acked = self.asked.remove(&id).unwrap_or_default();
            let settled = acked.into_iter().filter(|(token, _)| !stale.contains(token));
            self.answered.extend(settled.map(|(_, position)| position));
            let made_up: Vec<_> = self.answered.difference(&self.settled).collect();
            assert!(made_up.is_empty(), "answered, but not settled: {made_up:?}");
        }
    }

    /// Everything the group said since the last look.
    fn look(&mut self) {
        for (member, _) in std::mem::take(&mut self.world.revoked) {
            self.forget(member);
        }
        self.hear_replies();
        self.world.overdue.clear();
        let fenced = &self.world.fenced;
        self.unfenced.retain(|token, _| !fenced.contains(token));
        for got in self.world.take() {
            self.delivered(got);
        }
    }

    fn key(&self, position: u64) -> Option<&str> {
        match self.mode {
            Mode::Exclusive => Some("everything"),
            Mode::Keyed => self.world.log[position as usize].subject.as_deref(),
        }
    }

    fn same_key(&self, a: u64, b: u64) -> bool {
        a == b || (self.key(a).is_some() && self.key(a) == self.key(b))
    }

    fn delivered(&mut self, got: Got) {
        let position = got.position();
        assert!(self.present.contains(&got.member()), "{position} went to a session that is gone");
        assert!(!self.settled.contains(&position), "{position} was settled and came again");
        assert!((1..=MAX_ATTEMPTS).contains(&got.attempt), "attempt {} at {position}", got.attempt);
        if let Some(last) = self.last_attempt.get(&position).copied() {
            // The second attempt and all later ones are on disk before they are sent.
            assert!(last < 2 || got.attempt >= last, "{position}: attempt {} after {last}", got.attempt);
            let counted = !self.crashed.remove(&position) || got.attempt > last;
            assert!(counted, "{position}: a crash did not count, attempt {} after {last}", got.attempt);
        }
        let mut of_key = 1;
        for held in self.live.values().filter(|held| self.same_key(held.position(), position)) {
            of_key += 1;
            let own = held.member() == got.member() && held.position() < position;
            assert!(own, "G1: {} is held while {position} goes out", held.position());
            let first = held.attempt == 1 && got.attempt == 1;
            assert!(first, "{position} goes with {}, and one has failed", held.position());
        }
        assert!(of_key <= self.windows[&got.member()], "{of_key} events of one key are out");
        for earlier in 0..position {
            let given_up =
                self.skipped.contains(&earlier) || !self.settled.contains(&earlier) && self.poisoned(earlier);
            if given_up && self.same_key(earlier, position) {
                self.passed.insert(earlier);
            }
            let open = !self.settled.contains(&earlier) && !self.poisoned(earlier);
            let held = || self.live.values().any(|held| held.position() == earlier);
            assert!(
                !(open && self.same_key(earlier, position)) || held(),
                "G2: {position} overtakes {earlier}"
            );
        }
        for (token, old) in &self.unfenced {
            assert!(!self.same_key(*old, position), "G5: {position} goes out before {token:?} is fenced");
        }
        self.last_attempt.insert(position, got.attempt);
        self.live.insert(got.token, got);
    }

    /// The group and the checker agree on every single event.
    fn compare(&mut self) {
        let group = self.group_settled();
        let skipped: Vec<u64> =
            group.difference(&self.settled).copied().filter(|p| self.poisoned(*p)).collect();
        self.skipped.extend(&skipped);
        self.settled.extend(skipped);
        assert_eq!(group, self.settled, "group (left) and checker (right) disagree on what is settled");
        assert!(self.world.group.report().waiting <= 12 + 5, "memory is not bounded");
    }

    /// Everything works again: then everything gets settled.
    fn finish(mut self) {
        self.world.answer_saves = true;
        self.world.answer_fences = true;
        self.world.answer_reads = true;
        self.world.answer_saves();
        self.world.answer_fences();
        self.world.answer_reads();
        self.look();
        while let Some(member) = self.gone() {
            self.world.lost(member);
            self.look();
        }
        self.pass(120_000);
        self.present.push(self.next_member);
        self.windows.insert(self.next_member, 1);
        self.world.join_as(self.next_member, "last", None, 10);
        let head = self.world.log.len() as u64;
        for _ in 0..10 * head + 1_000 {
            self.look();
            for token in self.tokens() {
                self.settled.insert(self.live[&token].position());
                self.end(token, false);
                self.world.step(Input::Ack { member: token.member, tokens: vec![token], reply: None });
            }
            if let Some(parked) = self.world.group.parked().into_iter().next() {
                self.last_attempt.remove(&parked.position.0);
                self.crashed.remove(&parked.position.0);
                self.world.step(Input::Retry(parked.key));
            }
            if self.world.group.low().0 == head && self.world.group.report().behind == 0 {
                break;
            }
            self.pass(100);
        }
        self.look();
        self.compare();
        assert_eq!(self.settled.len() as u64, head, "G3: some events were never settled");
        assert_eq!((self.world.low(), self.world.group.report().waiting), (head, 0));
    }
}
