//! What the figures were measured on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::peer::{Kind, Tools};

pub fn describe(dir: &Path) -> BTreeMap<String, String> {
    let mut machine = BTreeMap::new();
    let mut tell = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            machine.insert(name.to_owned(), value);
        }
    };
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    tell("processor", model.map(|(_, model)| format!("{cores} × {model}")));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
    tell("memory", kib.map(|kib| format!("{:.0} GiB", kib / f64::from(1 << 20))));
    tell("kernel", fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|s| s.trim().to_owned()));
    tell("file system", first_line(Command::new("stat").args(["-f", "-c", "%T"]).arg(dir)));
    machine
}

pub fn versions(tools: &Tools) -> BTreeMap<Kind, String> {
    let version = |program: &Path| first_line(Command::new(program).arg("--version"));
    let mut versions = BTreeMap::new();
    for (peer, version) in [
        (Kind::Daybook, version(&tools.daybook)),
        (Kind::Redis, version(&tools.redis)),
        (Kind::Postgres, version(&tools.postgres.join("postgres"))),
        (Kind::Umadb, version(&tools.umadb)),
        (Kind::Nats, version(&tools.nats)),
    ] {
        if let Some(version) = version {
            versions.insert(peer, version);
        }
    }
    versions
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
}

/// The day, UTC.
pub fn date(seconds: u64) -> String {
    // Days to a date, by eras of 400 years that begin on the 1st of March.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{}-{month:02}-{day:02}", era * 400 + year + later)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_over_leap_years() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_767_225_599), "2025-12-31");
    }
}
