//! Order and stickiness: who gets a key, and what waits for what.

use crate::common::{World, join};
use daybook_model::wire::{self, NackAction};

#[test]
fn three_instances_take_new_keys_in_turn_and_second_events_stick() {
    let mut world = World::new();
    (1..=3).for_each(|member| world.join(member));
    world.publish(&["a", "b", "c", "d", "e", "f"]);
    let first = world.take();
    assert_eq!(first.iter().map(|got| got.member()).collect::<Vec<_>>(), [1, 2, 3, 1, 2, 3]);
    first.iter().for_each(|got| world.ack(got));
    world.publish(&["f", "e", "d", "c", "b", "a"]);
    let mut second = world.take();
    second.sort_by_key(|got| got.position());
    assert_eq!(second.iter().map(|got| got.member()).collect::<Vec<_>>(), [3, 2, 1, 3, 2, 1]);
}

#[test]
fn the_next_event_of_a_key_waits_until_the_one_before_is_settled() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a", "a", "b"]);
    let got = world.take();
    assert_eq!(got.iter().map(|got| got.position()).collect::<Vec<_>>(), [0, 2]);
    world.ack(&got[0]);
    assert_eq!(world.positions(), [1]);
}

#[test]
fn events_without_key_wait_for_nobody() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["", "", ""]);
    assert_eq!(world.positions(), [0, 1, 2]);
}

#[test]
fn a_session_never_holds_more_than_its_credit() {
    let mut world = World::new();
    world.join_as(1, "i", None, 2);
    world.publish(&["a", "b", "c", "d"]);
    let got = world.take();
    assert_eq!(got.len(), 2);
    world.ack(&got[1]);
    assert_eq!(world.positions(), [2]);
}

#[test]
fn a_new_key_goes_to_a_session_with_room_while_an_old_one_waits_for_its_owner() {
    let mut world = World::new();
    world.join_as(1, "i1", None, 1);
    world.join_as(2, "i2", None, 1);
    world.publish(&["a", "b"]);
    let got = world.take();
    world.ack(&got[1]);
    // 1 is full with `a`; 2 has room and gets what nobody owns.
    world.publish(&["c", "a"]);
    let new = world.take();
    assert_eq!(new.iter().map(|got| (got.member(), got.position())).collect::<Vec<_>>(), [(2, 2)]);
    world.ack(&got[0]);
    assert_eq!(world.take()[0].member(), 1);
}

#[test]
fn a_joiner_gets_work_and_no_key_moves_while_in_flight() {
    let mut world = World::new();
    world.join(1);
    let keys: Vec<String> = (0..20).map(|n| format!("key/{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    world.publish(&keys);
    let held = world.take();
    world.join(2);
    assert!(world.take().is_empty(), "a key moved");
    held.iter().for_each(|got| world.ack(got));
    world.publish(&keys);
    let again = world.take();
    let second = again.iter().filter(|got| got.member() == 2).count();
    assert!((8..=12).contains(&second), "the joiner got {second} of 20 keys");
}

#[test]
fn keys_of_a_session_that_left_go_on_elsewhere_without_an_attempt_counted() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a", "a", "b"]);
    world.take();
    world.join(2);
    world.leave(1);
    let got = world.take();
    assert_eq!(
        got.iter().map(|g| (g.member(), g.position(), g.attempt)).collect::<Vec<_>>(),
        [(2, 0, 1), (2, 2, 1)]
    );
    world.ack(&got[0]);
    assert_eq!(world.positions(), [1]);
}

#[test]
fn after_a_crash_events_come_again_in_key_order_and_later_ones_wait() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a", "a", "a"]);
    let first = world.take();
    world.join(2);
    world.lost(1);
    assert!(world.take().is_empty(), "the key left before its grace was over");
    world.pass(4_999);
    assert!(world.take().is_empty(), "the key left before its grace was over");
    world.pass(200);
    let again = world.take();
    assert_eq!(again.iter().map(|g| (g.member(), g.position(), g.attempt)).collect::<Vec<_>>(), [(2, 0, 2)]);
    world.ack(&first[0]);
    assert!(world.take().is_empty(), "a lost claim has settled something");
    world.ack(&again[0]);
    assert_eq!(world.drain(), [1, 2]);
}

#[test]
fn a_session_without_boot_cannot_come_back_so_nothing_waits_for_it() {
    let mut world = World::new();
    world.join_as(1, "i", None, 10);
    world.publish(&["a"]);
    world.take();
    world.join(2);
    world.lost(1);
    world.pass(world.settings.save_gap_ms);
    assert_eq!(world.take()[0].member(), 2);
}

#[test]
fn the_same_boot_within_the_grace_keeps_its_keys_and_no_attempt_is_counted() {
    let mut world = World::new();
    world.join_as(1, "i", Some("boot"), 10);
    world.join(9);
    world.publish(&["a", "a"]);
    let before = world.take();
    assert_eq!(before[0].member(), 1);
    world.lost(1);
    world.pass(3_000);
    world.join_as(2, "i", Some("boot"), 10);
    let after = world.take();
    assert_eq!((after[0].member(), after[0].position(), after[0].attempt), (2, 0, 1));
    world.ack(&before[0]);
    assert!(world.take().is_empty(), "the old connection's token still settles");
    world.pass(60_000);
    assert!(world.revoked.iter().all(|(member, _)| *member != 9));
    assert_eq!(world.ack_answered(2, &[before[0].token]), [before[0].token]);
}

#[test]
fn the_same_boot_takes_over_while_the_old_socket_is_half_open() {
    let mut world = World::new();
    world.join_as(1, "i", Some("boot"), 10);
    world.publish(&["a"]);
    world.take();
    world.join_as(2, "i", Some("boot"), 10);
    assert_eq!(world.revoked.iter().map(|(member, _)| *member).collect::<Vec<_>>(), [1]);
    let got = world.take();
    assert_eq!((got[0].member(), got[0].attempt), (2, 1));
    // The old connection is noticed to be dead only now: nobody loses anything.
    world.lost(1);
    world.ack(&got[0]);
    assert_eq!(world.low(), 1);
}

#[test]
fn another_boot_of_the_instance_proves_the_crash_at_once() {
    let mut world = World::new();
    world.join_as(1, "i", Some("first"), 10);
    world.publish(&["a"]);
    world.take();
    world.lost(1);
    world.join_as(2, "i", Some("second"), 10);
    world.pass(world.settings.save_gap_ms);
    let got = world.take();
    assert_eq!((got[0].member(), got[0].attempt), (2, 2));
}

#[test]
fn a_new_boot_that_comes_before_the_old_connection_ends_proves_the_crash_as_well() {
    let mut world = World::new();
    world.join_as(1, "i", Some("first"), 10);
    world.join_as(3, "other", Some("first"), 10);
    world.publish(&["a"]);
    assert_eq!(world.take()[0].member(), 1);
    world.join_as(2, "i", Some("second"), 10);
    // Two processes under one name may both be alive: nothing is taken away.
    assert!(world.take().is_empty() && world.revoked.is_empty());
    world.lost(1);
    world.pass(world.settings.save_gap_ms);
    assert_eq!(world.take()[0].attempt, 2);
    // The later process is not proved dead by the earlier one's end.
    world.publish(&["b", "c", "d"]);
    let second = world.take().into_iter().find(|got| got.member() == 2).expect("2 has a turn");
    world.lost(2);
    world.pass(world.settings.grace_ms - 1_000);
    world.join_as(4, "i", Some("second"), 10);
    let again = world.take().into_iter().find(|got| got.position() == second.position()).unwrap();
    assert_eq!((again.member(), again.attempt), (4, 1));
}

#[test]
fn all_gone_then_back_goes_on_where_it_was() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a", "b"]);
    let got = world.take();
    world.ack(&got[0]);
    world.lost(1);
    world.pass(10_000);
    world.publish(&["a"]);
    world.pass(60_000);
    assert!(world.take().is_empty());
    world.join(2);
    let mut positions = world.drain();
    positions.sort_unstable();
    assert_eq!(positions, [1, 2]);
    assert_eq!(world.low(), 3);
}

#[test]
fn an_exclusive_group_has_one_active_member_and_strict_total_order_through_a_crash() {
    let mut world =
        World::with(wire::Join { mode: Some(wire::Mode::Exclusive), ..join() }, Default::default());
    world.join(1);
    world.join(2);
    world.publish(&["a", "b", "", "c", "a"]);
    let mut order = Vec::new();
    for _ in 0..2 {
        let got = world.take();
        assert_eq!((got.len(), got[0].member()), (1, 1));
        order.push(got[0].position());
        world.ack(&got[0]);
    }
    world.take();
    world.lost(1);
    world.pass(5_200);
    order.extend(world.drain());
    assert_eq!(order, [0, 1, 2, 3, 4]);
}

#[test]
fn one_key_in_retry_does_not_hold_up_the_others() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a", "b"]);
    let got = world.take();
    world.nack(&got[0], NackAction::Retry);
    world.ack(&got[1]);
    world.publish(&["a", "b", "c"]);
    assert_eq!(world.drain(), [3, 4]);
}

#[test]
fn an_event_larger_than_the_credit_in_bytes_is_delivered_alone() {
    let mut world = World::new();
    world.step(daybook_bus::Input::Join {
        member: daybook_bus::MemberId(1),
        instance: "i".into(),
        boot: None,
        credit: 10,
        credit_bytes: 1,
        window: 1,
    });
    world.publish(&["a", "b"]);
    let got = world.take();
    assert_eq!(got.len(), 1);
    world.ack(&got[0]);
    assert_eq!(world.positions(), [1]);
}

#[test]
fn the_key_of_a_group_may_be_the_correlation() {
    let mut world =
        World::with(wire::Join { key: Some(wire::Key::CorrelationId), ..join() }, Default::default());
    world.join(1);
    // All test events share one correlation: one key.
    world.publish(&["a", "b"]);
    assert_eq!(world.positions(), [0]);
}

#[test]
fn reserved_types_come_only_to_who_names_them_exactly() {
    for (filter, wanted) in [
        (None, vec![0]),
        (Some("*"), vec![0]),
        (Some("daybook.*"), vec![]),
        (Some("daybook.parked"), vec![1]),
    ] {
        let options = filter.map_or_else(join, |filter| crate::common::types(&[filter]));
        let mut world = World::with(options, Default::default());
        world.join(1);
        world.publish_typed("T", "a");
        world.publish_typed("daybook.parked", "b");
        assert_eq!(world.positions(), wanted, "filter {filter:?}");
    }
}
