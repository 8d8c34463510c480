//! A member that asks for a window holds several events of one key, and goes
//! back when one of them fails.

use crate::common::{Got, World, join};
use daybook_bus::{Input, KeyState, MemberId, ReplyId};
use daybook_model::wire::{self, NackAction};

fn with_window(options: wire::Join, window: usize) -> World {
    let mut world = World::with(options, Default::default());
    world.join_with_window(1, ("i1", Some("b1")), 100, window);
    world
}

fn of(got: &[Got]) -> Vec<(u64, u32)> {
    got.iter().map(|got| (got.position(), got.attempt)).collect()
}

#[test]
fn a_window_is_how_many_events_of_a_key_a_session_holds() {
    let mut world = with_window(join(), 3);
    world.join(2);
    world.publish(&["a", "a", "a", "a", "a"]);
    let got = world.take();
    assert_eq!(of(&got), [(0, 1), (1, 1), (2, 1)]);
    assert!(got.iter().all(|got| got.member() == 1), "one session has the key");
    world.ack(&got[0]);
    world.ack(&got[1]);
    assert!(world.take().is_empty());
    world.ack(&got[2]);
    assert_eq!(world.positions(), [3, 4]);
}

#[test]
fn a_failure_takes_back_everything_later_of_the_key_and_goes_on_one_by_one() {
    let mut world = with_window(join(), 4);
    world.answer_fences = false;
    world.publish(&["a", "b", "a", "a"]);
    let got = world.take();
    let a: Vec<Got> = got.iter().filter(|got| got.position() != 1).cloned().collect();
    world.ack(&a[0]);
    world.nack(&a[1], NackAction::Retry);
    assert_eq!(world.fences.iter().map(|(_, tokens)| tokens.len()).sum::<usize>(), 2, "both claims end");
    world.ack(&a[2]);
    assert_eq!(world.low(), 1, "an ack of what was taken back settles nothing");
    world.pass(200);
    assert!(world.take().is_empty(), "not before the fences are up");
    world.answer_fences();
    let again = world.take();
    assert_eq!(of(&again), [(2, 2)], "what has failed goes alone");
    world.ack(&again[0]);
    assert_eq!(of(&world.take()), [(3, 1)], "what came after it counts no attempt");
}

#[test]
fn an_ack_before_its_time_settles_when_the_earlier_ones_are() {
    let mut world = with_window(join(), 3);
    world.publish(&["a", "a", "a"]);
    let got = world.take();
    world.step(Input::Ack {
        member: MemberId(1),
        tokens: vec![got[2].token, got[1].token],
        reply: Some(ReplyId(7)),
    });
    world.pass(1_000);
    assert!(!world.group.settled().contains(&world.log[1]));
    assert!(world.replies.is_empty(), "nothing of it would survive a crash");
    world.restart();
    world.join_with_window(2, ("i2", None), 100, 3);
    let got = world.take();
    assert_eq!(of(&got), [(0, 1), (1, 1), (2, 1)]);
    let (first, rest) = (&got[0], [got[1].token, got[2].token]);
    world.step(Input::Ack { member: MemberId(2), tokens: rest.to_vec(), reply: Some(ReplyId(8)) });
    world.ack(first);
    world.pass(1_000);
    assert_eq!(world.replies[&8], []);
    assert_eq!(world.low(), 3);
}

#[test]
fn an_ack_before_its_time_is_stale_when_an_earlier_event_fails() {
    let mut world = with_window(join(), 2);
    world.publish(&["a", "a"]);
    let got = world.take();
    world.step(Input::Ack { member: MemberId(1), tokens: vec![got[1].token], reply: Some(ReplyId(7)) });
    world.nack(&got[0], NackAction::Retry);
    world.pass(200);
    assert_eq!(world.replies[&7], [got[1].token]);
    assert_eq!(world.drain(), [0, 1], "both come again");
}

#[test]
fn skipping_the_first_takes_back_what_is_behind_it_until_the_skip_is_on_disk() {
    let mut world = with_window(join(), 3);
    world.answer_saves = false;
    world.publish(&["a", "a", "a"]);
    let got = world.take();
    world.step(Input::Ack { member: MemberId(1), tokens: vec![got[1].token], reply: Some(ReplyId(7)) });
    world.nack(&got[0], NackAction::Skip);
    assert_eq!(world.low(), 1, "an ack before its time is void");
    assert!(world.fenced.contains(&got[2].token), "its claim is over");
    world.pass(200);
    assert!(world.take().is_empty(), "a crash now would bring back what was skipped");
    world.answer_saves = true;
    world.answer_saves();
    world.pass(200);
    assert_eq!(world.replies[&7], [got[1].token]);
    let again = world.take();
    assert_eq!(of(&again), [(1, 1), (2, 1)], "nothing of them has failed");
    world.ack(&again[0]);
    world.ack(&again[1]);
    assert_eq!(world.low(), 3);
}

#[test]
fn giving_up_a_later_event_goes_back_to_the_first_and_is_heard_once_it_is_its_turn() {
    for action in [NackAction::Park, NackAction::Skip] {
        let mut world = with_window(join(), 3);
        world.publish(&["a", "a", "a"]);
        let got = world.take();
        world.nack(&got[1], action);
        assert!(world.group.parked().is_empty());
        world.pass(200);
        let again = world.take();
        assert_eq!(of(&again), [(0, 1)], "{action:?}");
        world.ack(&again[0]);
        let again = world.take();
        assert_eq!(of(&again), [(1, 2)], "{action:?}");
        world.nack(&again[0], action);
        assert_eq!(world.group.parked().len(), usize::from(action == NackAction::Park));
    }
}

#[test]
fn a_later_event_whose_last_attempt_failed_is_parked_when_it_is_the_first() {
    let mut world = with_window(wire::Join { max_attempts: Some(1), ..join() }, 2);
    world.publish(&["a", "a"]);
    let got = world.take();
    world.nack(&got[1], NackAction::Retry);
    world.pass(200);
    let again = world.take();
    assert_eq!(of(&again), [(0, 1)]);
    world.ack(&again[0]);
    assert!(world.take().is_empty());
    assert_eq!(world.group.parked()[0].position.0, 1);
}

#[test]
fn a_crash_counts_for_all_of_a_window_and_then_they_go_one_by_one() {
    let mut world = World::new();
    world.join_with_window(1, ("i1", None), 100, 3);
    world.publish(&["a", "a", "a", "b"]);
    world.take();
    world.join_with_window(2, ("i2", None), 100, 3);
    world.lost(1);
    let mut seen = Vec::new();
    for _ in 0..4 {
        world.pass(20);
        let got = world.take();
        assert_eq!(got.len(), 1, "suspects go one at a time");
        seen.extend(of(&got));
        world.ack(&got[0]);
    }
    seen.sort_unstable();
    assert_eq!(seen, [(0, 2), (1, 2), (2, 2), (3, 2)]);
}

#[test]
fn the_time_for_an_event_begins_when_those_before_it_are_settled() {
    let mut world = with_window(wire::Join { max_processing_ms: Some(1_000), ..join() }, 3);
    world.publish(&["a", "a", "a"]);
    let got = world.take();
    world.pass(900);
    world.ack(&got[0]);
    world.pass(900);
    world.ack(&got[1]);
    world.pass(900);
    assert!(world.overdue.is_empty(), "each took less than its time");
    world.pass(200);
    assert_eq!(world.overdue, [got[2].token]);
    let state = world.group.explain(world.now, "a").state;
    assert!(matches!(state, KeyState::InFlight { asked: true, .. }), "{state:?}");
}

#[test]
fn credit_bounds_a_window_in_events_and_in_bytes() {
    let mut world = World::new();
    world.join_with_window(1, ("i1", None), 2, 10);
    world.publish(&["a", "a", "a"]);
    assert_eq!(world.positions(), [0, 1]);

    let mut world = World::new();
    let weight = crate::common::event(0, Some("a"), "T").weight();
    world.step(Input::Join {
        member: MemberId(1),
        instance: "i1".into(),
        boot: None,
        credit: 10,
        credit_bytes: 2 * weight,
        window: 10,
    });
    world.publish(&["a", "a", "a"]);
    assert_eq!(world.positions(), [0, 1]);
}
