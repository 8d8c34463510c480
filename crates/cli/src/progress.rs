//! How far something long is, on stderr: a line that changes for people, a line
//! now and then for a file. Nothing is said of what takes less than a second.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

pub struct Progress {
    /// What is being done, like "checking".
    doing: &'static str,
    people: bool,
    begun: Instant,
    told: Instant,
    /// A line without its end stands there.
    open: bool,
}

const FOR_PEOPLE: Duration = Duration::from_millis(200);
const FOR_FILES: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_secs(1);

impl Progress {
    pub fn new(doing: &'static str) -> Self {
        let now = Instant::now();
        Self { doing, people: std::io::stderr().is_terminal(), begun: now, told: now, open: false }
    }

    /// `done` of `total` in any unit (0: nobody knows), which is so many `events`.
    pub fn at(&mut self, events: u64, done: u64, total: u64) {
        let every = if self.people { FOR_PEOPLE } else { FOR_FILES };
        if self.told.elapsed() < every || self.begun.elapsed() < SHORT {
            return;
        }
        self.told = Instant::now();
        let line = line(self.doing, events, done, total, self.begun.elapsed());
        if self.people {
            // `\x1b[K`: the line before may have been longer.
            eprint!("\r{line}\x1b[K");
            self.open = true;
        } else {
            eprintln!("{line}");
        }
    }

    /// Before anything else is said.
    pub fn pause(&mut self) {
        if std::mem::take(&mut self.open) {
            eprintln!();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.pause();
    }
}

fn line(doing: &str, events: u64, done: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let rate = events as f64 / seconds;
    let mut line = format!("{doing}: {events} events, {rate:.0} a second");
    if total > 0 {
        let share = (done as f64 / total as f64).min(1.0);
        line += &format!(", {:.0} %", share * 100.0);
        if share > 0.0 {
            line += &format!(", {} left", span(seconds / share - seconds));
        }
    }
    line
}

/// A length of time as a person says it.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_share_and_what_is_left() {
        let at = |done, total| line("import", 3_000, done, total, Duration::from_secs(30));
        assert_eq!(at(0, 0), "import: 3000 events, 100 a second");
        assert_eq!(at(25, 100), "import: 3000 events, 100 a second, 25 %, 1 min 30 s left");
        assert_eq!(at(120, 100), "import: 3000 events, 100 a second, 100 %, 0 s left");
        assert_eq!(span(7_322.0), "2 h 2 min");
    }
}
