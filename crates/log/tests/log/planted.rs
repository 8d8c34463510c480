//! Who catches what: each suite must fail when the log makes the mistake.

use std::process::{Command, Stdio};

use daybook_log::Bug;

/// The test that is to fail.
fn catcher(bug: Bug) -> &'static str {
    match bug {
        Bug::SyncSkipped
        | Bug::DirectorySyncSkipped
        | Bug::HeaderSyncSkipped
        | Bug::FooterSyncSkipped
        | Bug::SpareSyncSkipped
        | Bug::MarkBeforeSync
        | Bug::TailLeft
        | Bug::HalfBatchServed => "crash::every_call_is_a_safe_place_to_lose_power",
        Bug::FoundServedUnsynced => "crash::what_recovery_has_served_is_never_lost_again",
        Bug::FailedSyncRetried | Bug::FailureForgotten | Bug::FoundNotRewritten => {
            "faults::after_any_failed_call_nothing_acknowledged_is_lost_and_nothing_more_is_taken"
        }
        Bug::MarkSkipped | Bug::DamageCutOff => {
            "damage::every_odd_bit_of_a_small_log_flipped_is_refused_or_harmless"
        }
        Bug::FooterIgnored => "damage::damage_before_a_footer_is_damage_also_where_no_segment_follows",
        Bug::ChainIgnored => "damage::a_segment_of_another_history_of_the_same_log_is_refused",
        Bug::ChecksumWithoutPlace => "damage::a_sector_in_the_wrong_place_is_seen",
        Bug::ReadUnchecked => "damage::random_flips_in_larger_logs_are_refused_or_harmless",
        Bug::FoundHandedOutEarly => "crash::what_is_handed_out_at_opening_is_durable",
        Bug::CopyUnmarked => "ship::a_copy_opens_whatever_call_of_it_was_the_last",
        Bug::CopyEndsAtDamage => "ship::a_copy_of_a_damaged_log_never_passes_for_the_whole",
        Bug::CutSegmentTaken => "misfits::a_file_cut_short_anywhere_is_told",
        Bug::NewerSegmentRemoved => "misfits::a_segment_from_the_future_is_refused_also_when_it_is_empty",
    }
}

/// A checker that finds nothing proves nothing.
#[test]
fn every_planted_mistake_is_caught() {
    let run = |bug: Bug| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", catcher(bug)])
            .env("DAYBOOK_PLANTED", format!("{bug:?}"))
            .env("DAYBOOK_SUITE", "quick")
            .env("RUST_BACKTRACE", "0")
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(told.contains("running 1 test"), "{bug:?}: there is no test {}", catcher(bug));
        (bug, child.status.success())
    };
    let half = Bug::ALL.len() / 2;
    let (first, second) = Bug::ALL.split_at(half);
    let results: Vec<_> = std::thread::scope(|scope| {
        let other = scope.spawn(|| second.iter().map(|bug| run(*bug)).collect::<Vec<_>>());
        let mut results: Vec<_> = first.iter().map(|bug| run(*bug)).collect();
        results.extend(other.join().unwrap());
        results
    });
    let missed: Vec<_> = results.iter().filter(|(_, passed)| *passed).map(|(bug, _)| bug).collect();
    eprintln!("planted mistakes of the log caught: {} of {}", results.len() - missed.len(), results.len());
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
