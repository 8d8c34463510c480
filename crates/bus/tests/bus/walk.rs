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

mod acts;
mod checks;

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
}
