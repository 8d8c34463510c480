//! Events that fail for good: parked, skipped, or the whole group stops; and what an
//! operator then does.

use crate::common::{World, join};
use daybook_bus::{Options, Settings};
use daybook_model::wire::{self, NackAction, Poison};

#[test]
fn after_its_last_attempt_an_event_is_parked_and_the_key_waits_behind_it() {
    let mut world = World::with(wire::Join { max_attempts: Some(3), ..join() }, Settings::default());
    world.join(1);
    world.publish(&["a", "b", "a"]);
    for attempt in 1..=3 {
        let got: Vec<_> = world.take().into_iter().filter(|got| got.position() != 1).collect();
        assert_eq!((got[0].position(), got[0].attempt), (0, attempt));
        world.nack(&got[0], NackAction::Retry);
        world.pass(1_000);
    }
    assert!(world.take().is_empty());
    let parked = world.group.parked();
    assert_eq!((parked[0].subject.as_str(), parked[0].position.0, parked[0].attempts), ("a", 0, 3));
    // Parked is not settled, but it no longer holds up the cursor.
    assert_eq!(world.low(), 1);
    assert!(!world.group.settled().contains(&world.log[0]));
    assert!(!world.group.settled().contains(&world.log[2]));
}

#[test]
fn a_parked_key_with_ten_thousand_later_events_costs_one_record_and_is_delivered_in_order_on_retry() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a"]);
    let got = world.take();
    world.nack(&got[0], NackAction::Park);
    let later = vec!["a"; 10_000];
    world.publish(&later);
    world.publish(&["b"]);
    assert_eq!(world.drain(), [10_001]);
    assert_eq!((world.low(), world.group.report().waiting), (10_002, 0));
    world.pass(10_000);
    world.restart();
    world.join(1);
    assert!(world.take().is_empty(), "the restart forgot that the key is parked");
    world.retry("a");
    assert_eq!(world.drain(), (0..=10_000).collect::<Vec<_>>());
    assert_eq!(world.group.report().behind, 0, "the key was never re-attached");
    world.publish(&["a"]);
    assert_eq!(world.drain(), [10_002]);
}

#[test]
fn a_retry_that_races_new_events_at_the_head_delivers_each_once_in_order() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a"]);
    let got = world.take();
    world.nack(&got[0], NackAction::Park);
    world.publish(&["a", "a"]);
    world.answer_reads = false;
    world.retry("a");
    world.publish(&["a", "b"]);
    let mut order = Vec::new();
    while !world.reads.is_empty() || !world.inbox.is_empty() {
        world.answer_reads();
        order.extend(world.drain());
        if world.log.len() < 12 {
            world.publish(&["a"]);
        }
    }
    let of_a: Vec<u64> = order.iter().copied().filter(|p| *p != 4).collect();
    assert_eq!(of_a, (0..12).filter(|p| *p != 4).collect::<Vec<_>>());
    assert_eq!(world.low(), 12);
}

#[test]
fn skipping_a_parked_event_lets_the_key_go_on_without_it() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a", "a", ""]);
    let got = world.take();
    world.nack(&got[0], NackAction::Park);
    world.nack(&got[1], NackAction::Park);
    world.skip("a");
    assert_eq!(world.drain(), [1]);
    assert!(world.group.settled().contains(&world.log[0]), "skipped by an operator is settled");
    // An event without key is known by its position.
    world.retry("2");
    assert_eq!(world.drain(), [2]);
    world.pass(10_000);
    world.restart();
    world.join(1);
    assert!(world.take().is_empty());
}

#[test]
fn an_event_skipped_after_a_restart_that_reads_around_it_again_stays_skipped() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["b", "a", "c"]);
    let got = world.take();
    world.nack(&got[1], NackAction::Park);
    world.pass(1_000);
    world.restart();
    world.skip("a");
    world.join(1);
    assert_eq!(world.drain(), [0, 2]);
}

#[test]
fn the_skip_policy_settles_what_fails_for_good() {
    let options = wire::Join { max_attempts: Some(1), poison: Some(Poison::Skip), ..join() };
    let mut world = World::with(options, Settings::default());
    world.join(1);
    world.publish(&["a", "a"]);
    let got = world.take();
    world.nack(&got[0], NackAction::Retry);
    assert_eq!(world.drain(), [1]);
    assert_eq!(world.low(), 2);
}

/// Otherwise a crash of the server would hand it out behind what followed it.
#[test]
fn what_follows_a_skipped_event_waits_until_the_skip_is_on_disk() {
    #[derive(Clone, Copy, Debug)]
    enum Skip {
        Session,
        Operator,
        Policy,
    }
    for how in [Skip::Session, Skip::Operator, Skip::Policy] {
        for next_is_there in [true, false] {
            let options = wire::Join { max_attempts: Some(1), poison: Some(Poison::Skip), ..join() };
            let mut world = World::with(options, Settings::default());
            world.join(1);
            world.publish(if next_is_there { &["a", "a"] } else { &["a"] });
            let got = world.take();
            if let Skip::Operator = how {
                world.nack(&got[0], NackAction::Park);
                world.pass(1_000);
            }
            world.answer_saves = false;
            match how {
                Skip::Session => world.nack(&got[0], NackAction::Skip),
                Skip::Operator => world.skip("a"),
                Skip::Policy => world.nack(&got[0], NackAction::Retry),
            }
            if !next_is_there {
                world.publish(&["a"]);
            }
            world.publish(&["b"]);
            let keys: Vec<_> = world.take().iter().map(|got| got.position()).collect();
            assert_eq!(keys, [2], "{how:?}: only the other key goes on");
            world.pass(1_000);
            assert!(world.take().is_empty(), "{how:?}: the skip is not on disk");
            world.answer_saves = true;
            world.answer_saves();
            world.pass(1_000);
            assert_eq!(world.drain(), [1], "{how:?}: the key goes on");
            world.restart();
            assert!(world.group.settled().contains(&world.log[0]), "{how:?}: the skip was forgotten");
        }
    }
}

#[test]
fn the_stop_policy_stops_the_group_also_after_a_restart_until_an_operator_decides() {
    for skip in [false, true] {
        for restart in [false, true] {
            let options = wire::Join { max_attempts: Some(1), poison: Some(Poison::Stop), ..join() };
            let mut world = World::with(options, Settings::default());
            world.join(1);
            world.publish(&["b", "a", "a", "c"]);
            let got = world.take();
            world.ack(&got[0]);
            world.nack(&got[1], NackAction::Retry);
            world.ack(&got[2]);
            world.publish(&["d"]);
            world.pass(10_000);
            assert!(world.take().is_empty(), "a stopped group delivers");
            if restart {
                world.restart();
                world.join(1);
                assert!(world.take().is_empty(), "the restart forgot that the group stopped");
            }
            assert!(world.group.parked()[0].stopped);
            if skip {
                world.skip("a")
            } else {
                world.retry("a")
            }
            let mut rest = world.drain();
            rest.sort_unstable();
            let expected: &[u64] = if skip { &[2, 4] } else { &[1, 2, 4] };
            assert_eq!(rest, expected, "skip {skip}, restart {restart}");
            assert_eq!(world.low(), 5);
        }
    }
}

#[test]
fn an_exclusive_group_cannot_park_so_it_stops() {
    let options = wire::Join { mode: Some(wire::Mode::Exclusive), ..join() };
    assert_eq!(Options::of(&options).unwrap().poison, Poison::Stop);
    let parking = wire::Join { poison: Some(Poison::Park), ..options.clone() };
    assert_eq!(Options::of(&parking).unwrap_err().member, "poison");
    let mut world = World::with(options, Settings::default());
    world.join(1);
    world.publish(&["a", "b"]);
    let got = world.take();
    world.nack(&got[0], NackAction::Park);
    assert!(world.take().is_empty());
    world.retry("*");
    assert_eq!(world.drain(), [0, 1]);
}
