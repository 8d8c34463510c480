//! Bytes that nobody would write, for everything that reads what others wrote.
//!
//! Inputs are made from a kept corpus by small changes: bits, numbers, lengths,
//! pieces doubled, cut, moved, taken from another input, or from the words that
//! the corpus is made of. An input that is answered as none before it was is
//! changed further, so that the search gets behind the first check.
//!
//! # Promises
//! 1. `DAYBOOK_SEED` decides the inputs and their order; a longer run begins
//!    with the shorter one. Quick and full runs are counted, so that a fast
//!    machine tries what a slow one does; `DAYBOOK_FUZZ_SECONDS` searches on for
//!    a time instead.
//! 2. A panic, and two seconds of computing for one input, end the run with the
//!    input: it belongs into the corpus, beside the fix.
//!
//! # Not here
//! Whether a right answer was given: the target checks that itself. Coverage of
//! the code: the search sees only answers.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sim::Random;
use crate::suite::Suite;

/// No input is longer.
const INPUT_BYTES: usize = 64 << 10;
/// Inputs that are changed further.
const POOL: usize = 4_096;
/// Of the thread's own time, so that a busy machine is no hang.
const HANG: Duration = Duration::from_secs(2);
/// An input that is not through by then never will be.
const STUCK: Duration = Duration::from_secs(120);
/// How many times the inputs of a quick run a full one has.
const FULL: u64 = 20;

/// What a target makes of an input: it took it, or says why not.
pub type Verdict = Result<(), String>;

/// The inputs for one target.
pub struct Fuzz {
    name: &'static str,
    corpus: Vec<Vec<u8>>,
}

/// An input that must not be.
#[derive(Debug)]
pub struct Found {
    pub case: u64,
    pub input: Vec<u8>,
    pub what: String,
}

impl Fuzz {
    pub fn new(name: &'static str) -> Self {
        Self { name, corpus: Vec::new() }
    }

    /// The files of a folder; a `.txt` has one input a line.
    #[must_use]
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        let list = std::fs::read_dir(folder.as_ref()).expect("the corpus is in the tree");
        let mut paths: Vec<_> = list.map(|entry| entry.expect("it is readable").path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.is_file()) {
            let bytes = std::fs::read(path).expect("it is readable");
            if path.extension().is_some_and(|ending| ending == "txt") {
                self.corpus.extend(bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
            } else {
                self.corpus.push(bytes);
            }
        }
        self
    }

    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.corpus.push(input.into());
        self
    }

    /// Runs the target on the whole corpus and on `quick` changed inputs, in
    /// full on 20 times as many; panics with the input that the target cannot bear.
    pub fn run(self, quick: u64, target: impl FnMut(&[u8]) -> Verdict) {
        let name = self.name;
        let mut suite = Suite::begin(name, &["taken", "refused", "answers"]);
        let most = suite.pick(quick, quick * FULL);
        let seed = suite.seeds(1, 1).next().expect("there is one");
        let until = std::env::var("DAYBOOK_FUZZ_SECONDS").ok().map(|seconds| {
            let seconds = seconds.parse().expect("DAYBOOK_FUZZ_SECONDS is a number");
            Instant::now() + Duration::from_secs(seconds)
        });
        let go_on = |case| until.map_or(case < most, |until| Instant::now() < until);
        if let Err(Found { case, input, what }) = self.search(seed, go_on, target, &mut suite) {
            let path = std::env::temp_dir().join(format!("daybook-fuzz-{}", name.replace(' ', "-")));
            let kept =
                std::fs::write(&path, &input).map_or_else(|e| e.to_string(), |()| path.display().to_string());
            panic!("{name}: case {case}: {what}\ninput ({kept}): {}", input.escape_ascii());
        }
        suite.end();
    }

    /// The first input that the target cannot bear, of those that `go_on` lets be tried.
    pub fn search(
        self,
        seed: u64,
        go_on: impl Fn(u64) -> bool,
        mut target: impl FnMut(&[u8]) -> Verdict,
        suite: &mut Suite,
    ) -> Result<(), Found> {
        let mut random = Random::new(seed);
        let words = words(&self.corpus);
        let watch = Watch::over(self.name);
        // What was refused in a new way leads behind the first check; what was
        // taken behind the last.
        let (mut pool, mut good, mut answers) = (Vec::new(), Vec::new(), HashSet::new());
        let mut corpus = self.corpus.into_iter();
        let mut case = 0;
        loop {
            // What is kept comes first, as it is.
            let input = match corpus.next() {
                Some(input) => input,
                None if go_on(case) => {
                    let of = if good.is_empty() || random.below(2) == 0 { &pool } else { &good };
                    change(of, &words, &mut random)
                }
                None => return Ok(()),
            };
            let found = |what| Found { case, input: input.clone(), what };
            let began = computed();
            let verdict = catch_unwind(AssertUnwindSafe(|| target(&input)))
                .map_err(|panic| found(format!("panicked: {}", said(&*panic))))?;
            let took = computed() - began;
            if took > HANG {
                return Err(found(format!("computed for {took:?}")));
            }
            suite.case();
            suite.hit(if verdict.is_ok() { "taken" } else { "refused" });
            let is_new = answers.insert(shape(&verdict));
            if is_new {
                suite.hit("answers");
            }
            match (&verdict, is_new) {
                (Ok(()), _) if good.len() < POOL => good.push(input),
                (Ok(()), _) => {
                    let old = random.below(POOL);
                    good[old] = input;
                }
                (Err(_), true) if pool.len() < POOL => pool.push(input),
                (Err(_), _) => {}
            }
            case += 1;
            watch.case.store(case, Ordering::Relaxed);
        }
    }
}

/// An answer without what it repeats of the input.
fn shape(verdict: &Verdict) -> u64 {
    let mut hasher = DefaultHasher::new();
    if let Err(reason) = verdict {
        let mut quoted = false;
        for char in reason.chars() {
            quoted ^= char == '`' || char == '"';
            if !quoted && !char.is_ascii_digit() {
                char.hash(&mut hasher);
            }
        }
    }
    verdict.is_ok().hash(&mut hasher);
    hasher.finish()
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Time that this thread has computed for.
pub fn computed() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Ends the process when an input is never through: nothing else would.
struct Watch {
    case: Arc<AtomicU64>,
    thread: std::thread::Thread,
}

impl Watch {
    fn over(name: &'static str) -> Self {
        let case = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&case);
        let watch = std::thread::spawn(move || {
            let mut last = (u64::MAX, Instant::now());
            while let Some(case) = seen.upgrade().map(|case| case.load(Ordering::Relaxed)) {
                if case != last.0 {
                    last = (case, Instant::now());
                } else if last.1.elapsed() > STUCK {
                    eprintln!("{name}: case {case} does not end");
                    std::process::abort();
                }
                std::thread::park_timeout(STUCK / 4);
            }
        });
        Self { case, thread: watch.thread().clone() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.case = Arc::default();
        self.thread.unpark();
    }
}

/// What the corpus is made of: names, numbers, signs.
fn words(corpus: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = ODD.iter().map(|word| word.as_bytes().to_vec()).collect();
    for input in corpus {
        let parts = input.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'.' && *byte != b'-');
        words.extend(parts.filter(|word| (2..=40).contains(&word.len())).map(<[u8]>::to_vec));
    }
    words.sort();
    words.dedup();
    words
}

/// What parsers stumble over.
const ODD: [&str; 41] = [
    "0",
    "-1",
    "00",
    "1e999",
    "-0",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "4294967296",
    "4294967295",
    "null",
    "true",
    "false",
    "{}",
    "[]",
    "\"\"",
    "{\"",
    "\":",
    "\",\"",
    "[[[[",
    "}}",
    "]]",
    "*",
    "%",
    "%00",
    "%+f",
    "+",
    " ",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\0",
    "\u{1}",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "ü",
    "\u{1f600}",
    "9999-12-31T23:59:60Z",
    "0000-00-00T00:00:00+99:99",
    "Infinity",
];

/// Numbers that lengths and counts are compared with.
const NUMBERS: [u64; 12] =
    [0, 1, 7, 127, 128, 255, 65_535, i32::MAX as u64, u32::MAX as u64, 1 << 40, i64::MAX as u64, u64::MAX];

/// One of the pool, changed in one to eight places, mostly in one.
fn change(pool: &[Vec<u8>], words: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    if pool.is_empty() {
        return Vec::new();
    }
    let mut input = pool[random.below(pool.len())].clone();
    let other = &pool[random.below(pool.len())];
    for _ in 0..[1, 1, 1, 2, 2, 4, 8][random.below(7)] {
        change_once(&mut input, other, words, random);
    }
    input.truncate(INPUT_BYTES);
    input
}

fn change_once(input: &mut Vec<u8>, other: &[u8], words: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let piece = |of: &[u8], random: &mut Random| {
        let from = random.below(of.len() + 1);
        let most = [4, 16, 64, usize::MAX][random.below(4)];
        from..from + random.below((of.len() - from).min(most) + 1)
    };
    match random.below(18) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.below(256) as u8,
        2 => input.insert(at, random.below(256) as u8),
        3 => drop(input.drain(piece(input, random))),
        4 => {
            let copy = input[piece(input, random)].to_vec();
            drop(input.splice(at..at, copy));
        }
        // Deep, or long.
        5 => {
            let copy = input[piece(input, random)].to_vec();
            let times = 1 << random.below(12);
            if copy.len() * times < INPUT_BYTES {
                drop(input.splice(at..at, copy.repeat(times)));
            }
        }
        6 => {
            let copy = other[piece(other, random)].to_vec();
            drop(input.splice(at..at, copy));
        }
        7 => {
            let (into, copy) = (piece(input, random), other[piece(other, random)].to_vec());
            drop(input.splice(into, copy));
        }
        8 => input.truncate(at),
        9 => {
            let number =
                NUMBERS[random.below(NUMBERS.len())].wrapping_sub(random.below(3) as u64).to_le_bytes();
            let number = &number[..[1, 2, 4, 8][random.below(4)]];
            let until = (at + number.len()).min(input.len());
            drop(input.splice(at..until, number.iter().copied()));
        }
        // A word in the place of a word.
        10..=14 => {
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'.';
            let from = input[..at].iter().rposition(|byte| !is_word(byte)).map_or(0, |before| before + 1);
            let until =
                input[at..].iter().position(|byte| !is_word(byte)).map_or(input.len(), |len| at + len);
            drop(input.splice(from..until, words[random.below(words.len())].iter().copied()));
        }
        _ => drop(input.splice(at..at, words[random.below(words.len())].iter().copied())),
    }
}
