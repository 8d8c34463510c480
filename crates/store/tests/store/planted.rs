//! Who catches what: each suite must fail when the store makes the mistake.

use std::process::{Command, Stdio};

use daybook_store::Bug;

/// The test that is to fail.
fn catcher(bug: Bug) -> &'static str {
    match bug {
        Bug::KeyOnlyInMemory | Bug::IdOnlyInMemory => "walk::the_local_store_and_the_model_agree",
        Bug::TornCheckpointTaken => "local::a_torn_checkpoint_leaves_the_one_before_it",
        Bug::FoundCheckpointUnsynced | Bug::CheckpointNameUnsynced => {
            "checkpoints::a_checkpoint_that_was_confirmed_or_served_is_never_lost"
        }
        Bug::IndexUnchecked => "index::a_damaged_index_gives_no_wrong_answer",
        Bug::PlacesKept => "sim::a_full_disk_refuses_and_takes_more_when_there_is_room",
        _ => "sim::whatever_the_disk_does_the_store_keeps_its_word",
    }
}

/// A checker that finds nothing proves nothing.
#[test]
fn every_planted_mistake_is_caught() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        if !(0..RUNS).any(|_| catches(bug)) {
            missed.push(bug);
        }
    }
    eprintln!(
        "planted mistakes of the store caught: {} of {}",
        Bug::ALL.len() - missed.len(),
        Bug::ALL.len()
    );
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

/// The committers take turns as the machine lets them: some mistakes need a moment
/// that not every run has (one in three for the rarest).
const RUNS: usize = 30;

fn catches(bug: Bug) -> bool {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", catcher(bug)])
        .env("DAYBOOK_PLANTED", format!("{bug:?}"))
        .env("DAYBOOK_SUITE", "quick")
        .env("RUST_BACKTRACE", "0")
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(told.contains("running 1 test"), "{bug:?}: there is no test {}", catcher(bug));
    !child.status.success()
}
