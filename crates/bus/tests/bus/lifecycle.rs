//! Restarts under load, slots that move, odd keys, many keys.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{Got, World, event, join};
use daybook_bus::{Effect, Group, Input, MemberId, Millis, Settings};
use daybook_model::Position;
use daybook_model::wire::NackAction;

/// Names that stick together: the same slot, by trying.
fn of_one_slot(world: &World, count: usize) -> Vec<String> {
    let mut by_slot: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for i in 0.. {
        let name = format!("key/{i}");
        let slot = world.group.explain(world.now, &name).slot;
        let names = by_slot.entry(slot).or_default();
        names.push(name);
        if names.len() == count {
            return names.clone();
        }
    }
    unreachable!("some slot has {count} keys")
}

fn publish(world: &mut World, subjects: &[String]) {
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    world.publish(&subjects);
}

/// Every key's positions came in ascending order, each once.
fn in_order_once(world: &World, got: &[u64]) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for position in got {
        assert!(seen.insert(*position), "{position} came twice");
        let subject = world.log[*position as usize].subject.as_deref().unwrap();
        if let Some(before) = last.insert(subject, *position) {
            assert!(before < *position, "{position} of {subject} came after {before}");
        }
    }
}

#[test]
fn a_rolling_restart_of_all_members_under_load_costs_no_attempt_and_no_order() {
    let mut world = World::new();
    (1..=3).for_each(|member| world.join(member));
    let (mut settled, mut held): (Vec<u64>, Vec<Got>) = (Vec::new(), Vec::new());
    for round in 0..30u64 {
        world.publish(&["a", "b", "c", "d", "e", "a", "b"]);
        if round % 5 == 4 {
            // One leaves while it holds events; another process takes its place.
            let leaving = 1 + round / 5;
            held.retain(|got| got.member() != leaving);
            world.leave(leaving);
            world.join(leaving + 3);
        }
        held.extend(world.take());
        assert!(held.iter().all(|got| got.attempt == 1), "a good end counted as an attempt");
        // Half of what is held is settled now, the rest later.
        for got in held.drain(..held.len().div_ceil(2)).collect::<Vec<_>>() {
            settled.push(got.position());
            world.ack(&got);
        }
        let freed = world.take();
        held.extend(freed);
    }
    for got in held {
        settled.push(got.position());
        world.ack(&got);
    }
    settled.extend(world.drain());
    assert_eq!(settled.len(), world.log.len());
    in_order_once(&world, &settled);
}

#[test]
fn a_slot_that_goes_from_one_to_another_and_back_keeps_its_keys_order() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a", "a", "a", "a"]);
    let first = world.take().remove(0);
    world.join(2);
    world.ack(&first);
    let second = world.take().remove(0);
    assert_eq!((second.member(), second.position()), (1, 1));
    world.leave(1);
    let again = world.take().remove(0);
    assert_eq!((again.member(), again.position(), again.attempt), (2, 1, 1));
    world.join(1 + 2);
    world.leave(2);
    let third = world.take().remove(0);
    assert_eq!((third.member(), third.position()), (3, 1));
    // What the two before say now changes nothing.
    world.ack(&second);
    world.ack(&again);
    assert!(world.take().is_empty());
    world.ack(&third);
    assert_eq!(world.drain(), [2, 3]);
}

#[test]
fn of_two_keys_of_one_slot_the_blocked_one_does_not_stop_the_other() {
    let mut world = World::new();
    let keys = of_one_slot(&world, 2);
    world.join(1);
    publish(&mut world, &[keys[0].clone(), keys[1].clone(), keys[0].clone(), keys[1].clone()]);
    let got = world.take();
    assert_eq!(got.iter().map(Got::position).collect::<Vec<_>>(), [0, 1]);
    // The first is never settled; the second key flows.
    world.ack(&got[1]);
    assert_eq!(world.drain(), [3]);
}

#[test]
fn an_idle_key_of_a_loaded_member_goes_to_the_one_that_joined() {
    let mut world = World::new();
    world.join(1);
    let keys: Vec<String> = (0..20).map(|i| format!("k{i}")).collect();
    publish(&mut world, &keys);
    assert_eq!(world.drain().len(), 20);
    world.join(2);
    publish(&mut world, &keys);
    let second: BTreeSet<u64> = world.take().iter().map(Got::member).collect();
    assert_eq!(second, [1, 2].into(), "the joiner got none of the idle keys");
}

#[test]
fn a_flood_on_one_slot_leaves_the_others_their_turns() {
    let settings = Settings { lane_events: 4, buffered_events: 64, page_events: 16, ..Settings::default() };
    let mut world = World::with(join(), settings);
    let flooded = of_one_slot(&world, 3);
    world.join_as(1, "i1", Some("b"), 10);
    let flood: Vec<String> = (0..600).map(|i| flooded[i % 3].clone()).collect();
    publish(&mut world, &flood);
    world.publish(&["calm"]);
    let mut until_calm = 0;
    'all: loop {
        let got = world.take();
        assert!(!got.is_empty(), "the calm key never came");
        for got in got {
            if got.event.subject.as_deref() == Some("calm") {
                break 'all;
            }
            until_calm += 1;
            world.ack(&got);
        }
    }
    assert!(until_calm < 600, "it came only after the whole flood");
}

#[test]
fn a_member_that_never_settles_holds_its_credit_and_nobody_else() {
    let settings = Settings { buffered_events: 100, ..Settings::default() };
    let mut world = World::with(join(), settings);
    world.join_as(1, "silent", Some("b1"), 3);
    world.join_as(2, "busy", Some("b2"), 3);
    let keys: Vec<String> = (0..2_000).map(|i| format!("k{}", i % 400)).collect();
    publish(&mut world, &keys);
    let (mut silent, mut settled) = (0, 0);
    loop {
        let got = world.take();
        if got.is_empty() {
            break;
        }
        for got in got {
            match got.member() {
                1 => silent += 1,
                _ => {
                    settled += 1;
                    world.ack(&got);
                }
            }
        }
        assert!(world.group.report().waiting <= 100 + 64);
    }
    assert_eq!(silent, 3, "it holds its credit");
    // Keys that stick to it wait for it; everything else is done.
    assert!(settled > 900, "only {settled} of 2,000 were settled by the other");
}

#[test]
fn a_crash_between_a_detach_and_its_checkpoint_repeats_but_loses_nothing() {
    let settings = Settings { lane_events: 3, ..Settings::default() };
    let mut world = World::with(join(), settings);
    world.join(1);
    world.answer_saves = false;
    world.publish(&["hot"; 40]);
    let first = world.take().remove(0);
    world.ack(&first);
    let mut settled = vec![0];
    settled.extend(world.drain());
    assert_eq!(settled, (0..40).collect::<Vec<_>>());
    // None of it was written down; then some of it; each restart goes on in order.
    for written in [false, true] {
        if written {
            world.answer_saves = true;
            world.pass(1_000);
        }
        world.restart();
        world.answer_saves = true;
        world.join(10 + u64::from(written));
        let again = world.drain();
        in_order_once(&world, &again);
        assert_eq!(again.len(), if written { 0 } else { 40 });
    }
    assert_eq!(world.low(), 40);
}

#[test]
fn whichever_checkpoint_a_crash_leaves_nothing_is_lost_and_nothing_overtakes() {
    let settings = Settings { lane_events: 3, save_after_ms: 0, ..Settings::default() };
    let mut world = World::with(join(), settings);
    world.join(1);
    world.answer_saves = false;
    // A key that is detached, read on its own, parked, retried and re-attached.
    world.publish(&["hot", "hot", "cold", "hot", "hot", "hot", "hot", "cold", "hot", "hot"]);
    let mut left = vec![world.disk.clone()];
    let mut parked = false;
    for _ in 0..40 {
        let Some(got) = world.inbox.pop() else { break };
        if got.position() == 4 && !parked {
            parked = true;
            world.nack(&got, NackAction::Park);
            world.publish(&["hot", "cold"]);
            world.retry("hot");
        } else {
            world.ack(&got);
        }
        world.pass(20);
        left.extend(world.saves.iter().map(|(_, checkpoint)| checkpoint.clone()));
        world.answer_saves();
    }
    assert_eq!((world.low(), world.group.report().behind), (12, 0), "it was never re-attached");
    left.push(world.disk.clone());
    assert!(left.iter().any(|checkpoint| serde_json::to_string(checkpoint).unwrap().contains("\"next\"")));
    world.answer_saves = true;
    for (i, checkpoint) in left.into_iter().enumerate() {
        world.disk = checkpoint;
        world.restart();
        let settled = world.group.settled();
        let open: BTreeSet<u64> =
            world.log.iter().filter(|event| !settled.contains(event)).map(|event| event.position.0).collect();
        world.join(100 + i as u64);
        if let Some(parked) = world.group.parked().first() {
            world.step(Input::Retry(parked.key.clone()));
        }
        let again = world.drain();
        in_order_once(&world, &again);
        assert_eq!(again.into_iter().collect::<BTreeSet<_>>(), open, "checkpoint {i}");
    }
}

#[test]
fn a_batch_over_two_keys_is_two_keys() {
    let mut world = World::new();
    world.join(1);
    for (i, subject) in ["a", "b", "a"].into_iter().enumerate() {
        let mut event = (*event(i as u64, Some(subject), "T")).clone();
        event.batch = Some((Position(0), 3));
        world.log.push(event.into());
    }
    world.step(Input::Head(Position(3)));
    let got = world.take();
    assert_eq!(got.iter().map(Got::position).collect::<Vec<_>>(), [0, 1]);
    world.nack(&got[0], NackAction::Park);
    world.ack(&got[1]);
    assert!(world.take().is_empty(), "the batch's later event of the parked key overtook");
    assert_eq!(world.low(), 3, "a parked key holds up the cursor");
}

#[test]
fn keys_with_every_odd_character_are_themselves() {
    let odd =
        ["*", "k/*", " ", "k ", "ü", "🦀", "a\u{301}", "á", "%2F", "0", "null", "\"", "\\", "k/1?x=1#y"];
    let mut world = World::new();
    world.join(1);
    world.publish(&odd);
    world.publish(&odd);
    let first = world.take();
    assert_eq!(first.len(), odd.len(), "two of them are taken for one");
    first.iter().for_each(|got| world.nack(got, NackAction::Park));
    for name in odd {
        world.retry(name);
        assert_eq!(world.drain().len(), 2, "{name:?}");
    }
}

#[test]
fn a_million_keys_leave_nothing_behind_once_they_are_settled() {
    let mut world = World::new();
    world.check = false;
    world.join_as(1, "i", Some("b"), 1_000);
    for round in 0..100u64 {
        for i in 0..10_000 {
            let position = world.log.len() as u64;
            world.log.push(event(position, Some(&format!("k{}", round * 10_000 + i)), "T"));
        }
        world.step(Input::Head(Position(world.log.len() as u64)));
        assert_eq!(world.drain().len(), 10_000);
        let report = world.group.report();
        assert_eq!((report.waiting, report.behind, report.parked), (0, 0, 0));
    }
    world.pass(200);
    let checkpoint = serde_json::to_string(&world.disk).unwrap();
    assert!(checkpoint.len() < 1_000, "the checkpoint grew to {} bytes", checkpoint.len());
}

#[test]
fn positions_beyond_what_javascript_counts_are_exact() {
    let far = (1u64 << 53) + 1;
    let world = World::new();
    let mut checkpoint = world.disk;
    checkpoint.top = Position(far);
    checkpoint.unsettled = vec![Position(far - 2)];
    let json = serde_json::to_string(&checkpoint).unwrap();
    assert!(json.contains(&format!("\"{far}\"")), "{json}");
    assert_eq!(serde_json::from_str::<daybook_bus::Checkpoint>(&json).unwrap(), checkpoint);
    // And the machine goes on from there, one by one.
    let (mut group, head, now) =
        (Group::new(checkpoint, Settings::default(), Position(far + 2)), far + 2, Millis(0));
    let mut out = Vec::new();
    let (member, instance) = (MemberId(1), "i".to_owned());
    let (credit, credit_bytes, window) = (10, 1 << 20, 1);
    group.step(now, Input::Join { member, instance, boot: None, credit, credit_bytes, window }, &mut out);
    assert!(
        matches!(out[0], Effect::Read { from, until, .. } if from.0 == far - 2 && until.0 == head),
        "{out:?}"
    );
    let events = (far - 2..head).map(|position| event(position, None, "T")).collect();
    group.step(now, Input::Page { next: Position(head), events }, &mut out);
    let delivered = out.iter().filter_map(|effect| match effect {
        Effect::Deliver { event, .. } => Some(event.position.0),
        _ => None,
    });
    assert_eq!(delivered.collect::<Vec<_>>(), [far - 2, far, far + 1], "{} was settled before", far - 1);
}

#[test]
fn a_session_that_hangs_up_while_the_server_goes_down_has_not_crashed() {
    let mut world = World::new();
    world.join_as(1, "i1", None, 10);
    world.publish(&["a"]);
    assert_eq!(world.positions(), [0]);
    world.step(Input::Drain);
    world.lost(1);
    world.pass(1_000);
    world.restart();
    world.join(2);
    let got = world.take();
    assert_eq!((got[0].position(), got[0].attempt), (0, 1));
}
