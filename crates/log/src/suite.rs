//! What every storage suite shares: its size and seed come from the environment,
//! it counts what it reached, and it says at the end "0 of N".
//!
//! `DAYBOOK_SUITE` is `quick` (the default) or `full`, `DAYBOOK_SEED` a number.
//! A suite that never reached one of its phases fails: it would prove nothing.

use std::collections::BTreeMap;
use std::io::Write;

pub struct Suite {
    name: &'static str,
    full: bool,
    seed: u64,
    cases: u64,
    phases: BTreeMap<&'static str, u64>,
}

impl Suite {
    /// `phases` must all be reached before [`Suite::end`].
    pub fn begin(name: &'static str, phases: &[&'static str]) -> Self {
        let var = |name| std::env::var(name).ok();
        let seed = var("DAYBOOK_SEED").map_or(1, |seed| seed.parse().expect("DAYBOOK_SEED is a number"));
        let full = match var("DAYBOOK_SUITE").as_deref() {
            None | Some("quick") => false,
            Some("full") => true,
            Some(other) => panic!("DAYBOOK_SUITE is quick or full, not {other}"),
        };
        Self { name, full, seed, cases: 0, phases: phases.iter().map(|phase| (*phase, 0)).collect() }
    }

    /// How much to do.
    pub fn pick(&self, quick: u64, full: u64) -> u64 {
        if self.full { full } else { quick }
    }

    /// Different from run to run of a soak; the same for the same `DAYBOOK_SEED`.
    pub fn seeds(&self, quick: u64, full: u64) -> impl Iterator<Item = u64> + use<> {
        let first = self.seed.wrapping_mul(1_000_003);
        (0..self.pick(quick, full)).map(move |i| first.wrapping_add(i))
    }

    pub fn case(&mut self) {
        self.cases += 1;
    }

    pub fn hit(&mut self, phase: &'static str) {
        *self.phases.entry(phase).or_default() += 1;
    }

    /// Nothing was violated: says so, past the capture of the test runner.
    pub fn end(mut self) {
        self.say("0");
        let missed: Vec<_> =
            self.phases.iter().filter(|(_, hits)| **hits == 0).map(|(phase, _)| *phase).collect();
        let name = self.name;
        self.phases.clear();
        assert!(missed.is_empty(), "{name}: never reached: {missed:?}");
    }

    /// It cannot run here.
    pub fn skip(mut self, why: &str) {
        self.phases.clear();
        let _ = writeln!(std::io::stderr(), "{}: not run: {why}", self.name);
    }

    fn say(&self, violations: &str) {
        let size = if self.full { "full" } else { "quick" };
        let phases: Vec<_> = self.phases.iter().map(|(phase, hits)| format!("{phase} {hits}")).collect();
        let _ = writeln!(
            std::io::stderr(),
            "{}: {violations} of {} [DAYBOOK_SUITE={size} DAYBOOK_SEED={}] {}",
            self.name,
            self.cases,
            self.seed,
            phases.join(", ")
        );
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.phases.is_empty() {
            self.say("violated: 1");
        }
    }
}
