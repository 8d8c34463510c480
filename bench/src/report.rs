//! What the figures say: a table per cell, and first of all where Daybook
//! stands, in words that do not flatter.

use std::fmt::Write as _;

use crate::cells::{
    ATTEMPTS, CELLS, CPU, Cell, DISK, LOAD, Measure, OPEN_CLEAN, OPEN_KILLED, P50, P99, RATE, RSS, Workload,
};
use crate::peer::Kind;
use crate::results::{Results, Run, Spread};

const MEASURES: &[Measure] = &[RATE, P50, P99, ATTEMPTS, CPU, LOAD, DISK, RSS, OPEN_CLEAN, OPEN_KILLED];

pub fn markdown(results: &Results) -> String {
    let mut out = String::from(
        "# Daybook beside its peers\n\nWritten by `bench/run --report`; `bench/README.md` tells what is measured and how to read it.\n\n",
    );
    machine(results, &mut out);
    standing(results, &mut out);
    losses(results, &mut out);
    for (cell, run) in measured(results) {
        table(cell, run, &mut out);
    }
    let missing: Vec<_> = CELLS.iter().filter(|cell| !results.cells.contains_key(cell.name)).collect();
    if !missing.is_empty() {
        out.push_str("## Not measured yet\n\n");
        missing.iter().for_each(|cell| {
            let _ = writeln!(out, "- {}: `bench/run --only {}`", cell.title, cell.name);
        });
    }
    out
}

fn measured(results: &Results) -> impl Iterator<Item = (&'static Cell, &Run)> {
    CELLS.iter().filter_map(|cell| Some((cell, results.cells.get(cell.name)?)))
}

fn machine(results: &Results, out: &mut String) {
    out.push_str("## Machine and versions\n\n| | |\n|---|---|\n");
    for (name, value) in &results.machine {
        let _ = writeln!(out, "| {name} | {value} |");
    }
    for (peer, version) in &results.versions {
        let _ = writeln!(out, "| {} | {version} |", peer.title());
    }
    out.push('\n');
}

/// Who is best of those that keep what they acknowledge and check what they store.
fn best(run: &Run, measure: &Measure) -> Option<(Kind, Spread)> {
    let rivals = run.peers().into_iter().filter(|peer| !matches!(peer, Kind::Daybook | Kind::Ceiling));
    let figures = rivals.filter_map(|peer| Some((peer, run.spread(peer, measure.of)?)));
    figures.reduce(|a, b| if ahead(measure, a.1.median, b.1.median) >= 1.0 { a } else { b })
}

/// How many times as good `ours` is as `theirs`.
fn ahead(measure: &Measure, ours: f64, theirs: f64) -> f64 {
    if measure.more_is_better { ours / theirs } else { theirs / ours }
}

fn standing(results: &Results, out: &mut String) {
    out.push_str(
        "## Where Daybook stands\n\n| | figure | Daybook | best durable peer | Daybook is | goal | |\n|---|---|--:|---|--:|--:|---|\n",
    );
    for (cell, run) in measured(results) {
        for measure in cell.decisive() {
            let Some(ours) = run.spread(Kind::Daybook, measure.of) else { continue };
            let Some((peer, theirs)) = best(run, measure) else { continue };
            let times = ahead(measure, ours.median, theirs.median);
            let goal = cell.goal.map_or("–".into(), |goal| format!("{goal:.1} ×"));
            let verdict = match cell.goal {
                _ if times < 1.0 => "**behind**",
                Some(goal) if times < goal => "ahead, short of the goal",
                _ => "ahead",
            };
            let (title, theirs) = (peer.title(), number(theirs.median));
            let ours = number(ours.median);
            let _ = writeln!(
                out,
                "| {} | {} | {ours} | {title}: {theirs} | {times:.2} × | {goal} | {verdict} |",
                cell.title, measure.title
            );
        }
        for limit in cell.limits {
            let Some(ours) = run.spread(Kind::Daybook, limit.measure.of) else { continue };
            let kept = ahead(&limit.measure, ours.median, limit.at) >= 1.0;
            let side = if limit.measure.more_is_better { "≥" } else { "≤" };
            let _ = writeln!(
                out,
                "| {} | {} | {} | | | {side} {} | {} |",
                cell.title,
                limit.measure.title,
                number(ours.median),
                number(limit.at),
                if kept { "kept" } else { "**missed**" }
            );
        }
        if let (Workload::Append { .. }, Some(ours), Some(ceiling)) =
            (cell.workload, run.spread(Kind::Daybook, RATE.of), run.spread(Kind::Ceiling, RATE.of))
        {
            let share = ours.median / ceiling.median * 100.0;
            let _ = writeln!(
                out,
                "| {} | of the bare group commit | {} | ceiling: {} | {share:.0} % | | |",
                cell.title,
                number(ours.median),
                number(ceiling.median)
            );
        }
    }
    out.push('\n');
}

/// Every figure, not only the decisive ones.
fn losses(results: &Results, out: &mut String) {
    out.push_str("## Where Daybook loses\n\n");
    let mut any = false;
    for (cell, run) in measured(results) {
        for measure in MEASURES {
            let Some(ours) = run.spread(Kind::Daybook, measure.of) else { continue };
            // All are sent the same 1,000 a second; and what the generator spends is not theirs.
            if measure.title == RATE.title && cell.workload == Workload::Delivery
                || measure.title == LOAD.title
            {
                continue;
            }
            let rivals =
                run.peers().into_iter().filter(|peer| !matches!(peer, Kind::Daybook | Kind::Ceiling));
            for peer in rivals {
                let Some(theirs) = run.spread(peer, measure.of) else { continue };
                if ahead(measure, ours.median, theirs.median) < 1.0 {
                    any = true;
                    let (name, title) = (peer.title(), measure.title);
                    let (ours, theirs) = (number(ours.median), number(theirs.median));
                    let _ = writeln!(out, "- {}: {title} {ours}, {name} {theirs}", cell.title);
                }
            }
        }
    }
    if !any {
        out.push_str("Nowhere, in what was measured.\n");
    }
    out.push('\n');
}

fn table(cell: &Cell, run: &Run, out: &mut String) {
    let shown: Vec<&Measure> = MEASURES
        .iter()
        .filter(|measure| run.rounds.iter().any(|round| (measure.of)(&round.figures).is_some()))
        .collect();
    let rounds =
        run.rounds.iter().filter(|round| Some(round.peer) == run.rounds.first().map(|r| r.peer)).count();
    let _ = write!(out, "## {}\n\n`bench/run --only {}`: {rounds} rounds", cell.title, cell.name);
    if !matches!(
        cell.workload,
        Workload::Size { .. } | Workload::Replay { .. } | Workload::ReplayInProcess { .. }
    ) {
        let _ = write!(out, " of {} s", run.seconds);
    }
    let _ = write!(out, ", begun {}", crate::machine::date(run.begun));
    if let Some(commit) = &run.commit {
        let _ = write!(out, ", Daybook of commit {commit}");
    }
    out.push_str(".\n");
    if run.quick {
        out.push_str("**A quick run: these figures only show that it works.**\n");
    }
    out.push_str("\n| |");
    shown.iter().for_each(|measure| {
        let _ = write!(out, " {} (spread) |", measure.title);
    });
    out.push_str(" Daybook is |\n|---|");
    shown.iter().for_each(|_| out.push_str("--:|"));
    out.push_str("--:|\n");
    for peer in run.peers() {
        let _ = write!(out, "| {} |", peer.title());
        for measure in &shown {
            let cell =
                run.spread(peer, measure.of).map_or_else(|| "–".to_owned(), |spread| spread_of(&spread));
            let _ = write!(out, " {cell} |");
        }
        let ratios = cell.decisive().iter().filter_map(|measure| {
            let (ours, theirs) = (run.spread(Kind::Daybook, measure.of)?, run.spread(peer, measure.of)?);
            Some(format!("{:.2} ×", ahead(measure, ours.median, theirs.median)))
        });
        let ratios =
            if peer == Kind::Daybook { String::new() } else { ratios.collect::<Vec<_>>().join(", ") };
        let _ = writeln!(out, " {ratios} |");
    }
    out.push('\n');
    for (peer, reason) in &run.absent {
        let _ = writeln!(out, "- {} is not measured here: {reason}.", peer.title());
    }
    let peers = run.peers();
    let left_out = |peer: &&Kind| !peers.contains(peer) && !run.absent.contains_key(peer);
    for peer in Kind::ALL.iter().filter(left_out) {
        let _ = writeln!(out, "- {} was left out of this run.", peer.title());
    }
    if peers.len() < Kind::ALL.len() {
        out.push('\n');
    }
}

fn spread_of(spread: &Spread) -> String {
    match (number(spread.median), number(spread.least), number(spread.most)) {
        (median, least, most) if least == most => median,
        (median, least, most) => format!("{median} ({least}–{most})"),
    }
}

/// Three digits that matter, thousands apart.
pub fn number(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Figures, Round};

    fn results(daybook: f64, redis: f64) -> Results {
        let round =
            |peer, rate| Round { peer, figures: Figures { events_per_s: Some(rate), ..Figures::default() } };
        let run = Run {
            begun: 0,
            seconds: 3.0,
            quick: false,
            commit: None,
            rounds: vec![round(Kind::Daybook, daybook), round(Kind::Redis, redis)],
            absent: Default::default(),
        };
        Results { cells: [("w1-64".to_owned(), run)].into(), ..Results::default() }
    }

    #[test]
    fn a_loss_is_told_with_both_figures() {
        let report = markdown(&results(1_000.0, 2_000.0));

        assert!(
            report.contains("- W1: single events, 64 writers: events/s 1,000, Redis streams 2,000"),
            "{report}"
        );
        assert!(report.contains("0.50 × | 1.5 × | **behind**"), "{report}");
    }

    #[test]
    fn being_ahead_but_short_of_the_goal_is_not_called_a_success() {
        assert!(markdown(&results(1_200.0, 1_000.0)).contains("ahead, short of the goal"));
        assert!(markdown(&results(1_600.0, 1_000.0)).contains("1.60 × | 1.5 × | ahead |"));
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let report = markdown(&results(1.0, 1.0));

        assert!(report.contains("`bench/run --only w4`"), "{report}");
        assert!(!report.contains("- W1: single events, 64 writers: `bench/run"), "{report}");
    }

    #[test]
    fn numbers_are_told_as_people_read_them() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(100.0), "100");
    }
}
