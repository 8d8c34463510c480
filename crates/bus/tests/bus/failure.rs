//! Acks, retries, deadlines, fences, restarts.

use crate::common::{World, join};
use daybook_bus::{Input, MemberId, Settings, Token};
use daybook_model::wire::NackAction;

#[test]
fn acking_twice_is_fine_and_a_token_given_back_is_stale() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a", "b"]);
    let got = world.take();
    assert_eq!(world.ack_answered(1, &[got[0].token]), []);
    assert_eq!(world.ack_answered(1, &[got[0].token]), []);
    world.nack(&got[1], NackAction::Retry);
    assert_eq!(world.ack_answered(1, &[got[1].token]), [got[1].token]);
}

#[test]
fn tokens_of_others_and_tokens_never_given_settle_nothing_and_are_told() {
    let mut world = World::new();
    world.join(1);
    world.join(2);
    world.publish(&["a"]);
    let got = world.take();
    let never = Token { member: MemberId(2), serial: 999 };
    assert_eq!(world.ack_answered(2, &[got[0].token, never]), [got[0].token, never]);
    assert_eq!(world.low(), 0);
}

#[test]
fn an_answered_ack_is_in_the_durable_checkpoint() {
    let mut world = World::new();
    world.answer_saves = false;
    world.join(1);
    world.publish(&["a"]);
    let got = world.take();
    world.step(Input::Ack {
        member: MemberId(1),
        tokens: vec![got[0].token],
        reply: Some(daybook_bus::ReplyId(7)),
    });
    world.pass(1_000);
    assert!(world.replies.is_empty(), "answered before it was durable");
    while !world.saves.is_empty() {
        world.answer_saves();
        world.pass(world.settings.save_gap_ms);
    }
    assert!(world.replies.contains_key(&7));
    assert_eq!(world.disk.top.0, 1);
}

#[test]
fn a_failed_save_is_tried_again_and_the_answer_waits_for_it() {
    let mut world = World::new();
    world.answer_saves = false;
    world.join(1);
    world.publish(&["a"]);
    let got = world.take();
    world.step(Input::Ack {
        member: MemberId(1),
        tokens: vec![got[0].token],
        reply: Some(daybook_bus::ReplyId(7)),
    });
    world.pass(20);
    for _ in 0..3 {
        let number = world.saves.pop().expect("a save is on its way").0;
        world.step(Input::SaveFailed(number));
        assert!(world.replies.is_empty());
        world.pass(world.settings.retry_ms);
    }
    world.answer_saves();
    assert!(world.replies.contains_key(&7));
}

#[test]
fn a_restart_delivers_only_what_was_not_settled_whatever_the_order_of_acks() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a", "b", "c", "a", "b", "c"]);
    let got = world.take();
    world.ack(&got[2]);
    world.ack(&got[0]);
    world.pass(200);
    assert_eq!(world.low(), 1);
    world.restart();
    world.join(1);
    let mut again: Vec<(u64, u32)> = Vec::new();
    loop {
        let got = world.take();
        if got.is_empty() {
            break;
        }
        for got in got {
            again.push((got.position(), got.attempt));
            world.ack(&got);
        }
    }
    again.sort_unstable();
    // 1, 3 and 5 were in flight: the server's crash counts for nobody.
    assert_eq!(again, [(1, 1), (3, 1), (4, 1), (5, 1)]);
}

#[test]
fn a_nacked_event_comes_back_later_and_later_and_its_successor_never_overtakes() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a", "a"]);
    for (attempt, wait) in [(1, 100), (2, 200), (3, 400), (4, 800)] {
        let got = world.take();
        assert_eq!(got.iter().map(|g| (g.position(), g.attempt)).collect::<Vec<_>>(), [(0, attempt)]);
        world.nack(&got[0], NackAction::Retry);
        world.pass(wait - 1);
        assert!(world.take().is_empty(), "came back before {wait} ms");
        world.pass(1);
    }
    let got = world.take();
    world.ack(&got[0]);
    assert_eq!(world.drain(), [1]);
}

#[test]
fn a_retry_fires_when_nothing_is_published_and_nobody_speaks() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a"]);
    let got = world.take();
    world.step(Input::Nack {
        member: MemberId(1),
        token: got[0].token,
        action: NackAction::Retry,
        delay_ms: Some(7_000),
        reason: None,
        jitter: 3,
    });
    world.pass(6_999);
    assert!(world.take().is_empty());
    world.pass(1);
    assert_eq!(world.take()[0].attempt, 2);
}

#[test]
fn the_attempt_count_survives_a_crash_of_the_server_during_backoff() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a"]);
    let got = world.take();
    world.nack(&got[0], NackAction::Retry);
    world.pass(100);
    let got = world.take();
    assert_eq!(got[0].attempt, 2);
    world.nack(&got[0], NackAction::Retry);
    world.pass(150);
    world.restart();
    world.join(1);
    assert_eq!(world.take()[0].attempt, 3);
}

#[test]
fn a_second_attempt_is_sent_only_when_its_count_is_durable() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a"]);
    let got = world.take();
    world.answer_saves = false;
    world.nack(&got[0], NackAction::Retry);
    world.pass(60_000);
    assert!(world.take().is_empty(), "sent although a crash would forget the attempt");
    world.answer_saves();
    assert_eq!(world.take()[0].attempt, 2);
    assert_eq!(world.disk.failed[0].attempts, 1);
}

#[test]
fn nobody_gets_a_key_before_its_old_claim_is_fenced() {
    let mut world = World::new();
    world.answer_fences = false;
    world.join(1);
    world.publish(&["a", "b"]);
    let got = world.take();
    world.join(2);
    world.leave(1);
    world.pass(60_000);
    assert!(world.take().is_empty(), "the old claim can still publish");
    assert_eq!(world.fences[0].1, [got[0].token, got[1].token]);
    world.answer_fences();
    assert_eq!(world.positions(), [0, 1]);
}

#[test]
fn a_key_parked_and_retried_at_once_still_waits_for_the_old_claims_fence() {
    let mut world = World::new();
    world.answer_fences = false;
    world.join(1);
    world.publish(&["a"]);
    let got = world.take();
    world.nack(&got[0], NackAction::Park);
    world.retry("a");
    assert!(world.take().is_empty());
    world.answer_fences();
    assert_eq!(world.positions(), [0]);
}

#[test]
fn an_overdue_session_is_asked_and_its_silence_ends_its_claim_on_all_its_keys() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a"]);
    let slow = world.take();
    world.pass(20_000);
    world.publish(&["b"]);
    let quick = world.take();
    world.join(2);
    world.pass(9_999);
    assert!(world.overdue.is_empty());
    world.pass(1);
    assert_eq!(world.overdue, [slow[0].token]);
    world.pass(4_999);
    assert!(world.revoked.is_empty());
    world.pass(100);
    assert_eq!(world.revoked[0].0, 1);
    let mut again: Vec<_> = world.take().iter().map(|g| (g.member(), g.position(), g.attempt)).collect();
    again.sort_unstable();
    // Only what was overdue counts an attempt.
    assert_eq!(again, [(2, 0, 2), (2, 1, 1)]);
    assert_eq!(world.ack_answered(1, &[quick[0].token]), [quick[0].token]);
}

#[test]
fn progress_extends_a_delivery_but_not_for_ever() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a"]);
    let got = world.take();
    let longest = 30_000 * world.settings.longest_factor;
    let mut passed = 0;
    while passed < longest - 20_000 {
        world.pass(20_000);
        passed += 20_000;
        world.step(Input::Progress { member: MemberId(1), token: got[0].token });
        assert!(world.overdue.is_empty(), "asked after {passed} ms");
    }
    world.pass(20_000);
    assert_eq!(world.overdue.len(), 1);
    world.step(Input::Progress { member: MemberId(1), token: got[0].token });
    world.pass(5_000);
    assert_eq!(world.revoked[0].0, 1);
}

#[test]
fn an_answer_to_overdue_keeps_the_claim() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a"]);
    let got = world.take();
    world.pass(32_000);
    world.step(Input::Progress { member: MemberId(1), token: got[0].token });
    world.pass(20_000);
    assert!(world.revoked.is_empty());
    world.ack(&got[0]);
    world.pass(600_000);
    assert!(world.revoked.is_empty() && world.low() == 1);
}

#[test]
fn an_event_that_kills_its_session_is_parked_and_the_innocent_beside_it_are_not() {
    let mut world = World::new();
    let keys: Vec<String> = (0..50).map(|n| format!("key/{n}")).collect();
    world.publish(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    let killer = 17;
    let mut member = 0;
    while world.group.parked().is_empty() {
        member += 1;
        assert!(member < 40, "the killer is never found");
        world.join_as(member, "i", None, 100);
        world.pass(100);
        // The session handles what it has until the killer's turn comes.
        loop {
            let got = world.take();
            if got.is_empty() {
                break;
            }
            let fatal = got.iter().any(|got| got.position() == killer);
            if fatal {
                break;
            }
            got.iter().for_each(|got| world.ack(got));
        }
        world.inbox.clear();
        world.lost(member);
    }
    assert_eq!(world.group.parked().iter().map(|p| p.position.0).collect::<Vec<_>>(), [killer]);
    world.join(99);
    world.pass(1_000);
    let mut order = world.drain();
    world.pass(1_000);
    order.extend(world.drain());
    assert!(!order.contains(&killer));
    assert_eq!(world.group.report().waiting + world.group.report().in_flight, 0);
}

#[test]
fn one_hot_key_fills_neither_memory_nor_the_way_of_the_others() {
    let settings = Settings { buffered_events: 100, lane_events: 10, page_events: 20, ..Settings::default() };
    let mut world = World::with(join(), settings);
    world.join(1);
    let hot = vec!["hot"; 1_000];
    world.publish(&hot);
    world.publish(&["b", "c"]);
    let got = world.take();
    assert_eq!(got.iter().map(|g| g.position()).collect::<Vec<_>>(), [0, 1_000, 1_001]);
    assert!(world.group.report().waiting <= 100);
    got.iter().for_each(|got| world.ack(got));
    assert_eq!(world.drain(), (1..1_000).collect::<Vec<_>>());
    assert_eq!((world.low(), world.group.report().behind), (1_002, 0));
}

#[test]
fn a_restart_in_the_middle_of_a_hot_keys_backlog_repeats_nothing_answered_and_overtakes_nothing() {
    let settings = Settings { lane_events: 4, page_events: 8, ..Settings::default() };
    let mut world = World::with(join(), settings);
    world.join(1);
    world.publish(&["hot"; 40]);
    for done in 0..40 {
        let got = world.take();
        assert_eq!(got.iter().map(|g| g.position()).collect::<Vec<_>>(), [done]);
        assert_eq!(world.ack_answered(1, &[got[0].token]), []);
        world.restart();
        world.join(1);
    }
    assert!(world.take().is_empty());
    assert_eq!(world.low(), 40);
}

#[test]
fn a_stuck_event_does_not_make_a_restart_read_everything_again() {
    let settings = Settings { lag_positions: 50, ..Settings::default() };
    let mut world = World::with(join(), settings);
    world.join(1);
    world.publish(&["stuck"]);
    let stuck = world.take();
    for n in 0..200 {
        world.publish(&[format!("k{n}").as_str()]);
        assert_eq!(world.drain(), [n + 1]);
    }
    assert!(world.low() > 100, "low stands at {}", world.low());
    world.pass(200);
    world.restart();
    world.join(2);
    assert_eq!(world.drain(), [stuck[0].position()]);
    assert_eq!(world.group.report().behind, 0);
}

#[test]
fn a_changed_filter_is_taken_only_while_nobody_is_there_and_nothing_is_lost() {
    let mut world = World::with(crate::common::types(&["T"]), Settings::default());
    world.join(1);
    world.publish(&["a", "b"]);
    let got = world.take();
    world.ack(&got[1]);
    let other = crate::common::types(&["T", "U"]);
    let daybook_bus::Amendable::No(invalid) = world.group.may_amend(&other) else {
        panic!("taken beside a member")
    };
    assert_eq!(invalid.member, "filter");
    assert!(
        matches!(world.group.may_amend(&join()), daybook_bus::Amendable::Yes),
        "omitting all takes what is there"
    );
    world.leave(1);
    assert!(matches!(world.group.may_amend(&other), daybook_bus::Amendable::Yes));
    let options = world.group.options().amended(&other).unwrap();
    world.group.amend(world.now, options);
    world.join(2);
    world.publish_typed("U", "c");
    assert_eq!(world.drain(), [0, 2]);
}

#[test]
fn a_drained_group_sends_nothing_and_saves_at_once() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a", "a"]);
    let got = world.take();
    world.step(Input::Drain);
    world.ack(&got[0]);
    assert!(world.take().is_empty());
    assert!(world.group.is_saved());
    world.restart();
    world.join(1);
    assert_eq!(world.drain(), [1]);
}

#[test]
fn what_a_session_gives_as_reason_is_kept_but_not_without_end() {
    let mut world = World::new();
    world.join(1);
    world.publish(&["a"]);
    let token = world.take()[0].token;
    let (member, delay_ms, jitter) = (token.member, None, 0);
    let reason = Some("é".repeat(1_000_000));
    world.step(Input::Nack { member, token, action: NackAction::Retry, delay_ms, reason, jitter });
    let last = world.group.explain(world.now, "a").last_error.expect("a reason");
    assert_eq!(last, "é".repeat(500));
    world.pass(50);
    world.restart();
    world.join(2);
    assert_eq!(world.group.explain(world.now, "a").last_error, Some(last), "a restart knows it too");
}

#[test]
fn lag_counts_keys_with_a_backlog_of_their_own_but_not_what_waits_for_an_operator() {
    let settings = Settings { lane_events: 4, ..Settings::default() };
    let mut world = World::with(join(), settings);
    world.join_as(1, "i1", None, 1);
    world.publish(&["hot"; 20]);
    assert_eq!((world.group.report().behind, world.group.report().earliest.0), (1, 0));
    let got = world.take();
    world.nack(&got[0], NackAction::Park);
    assert_eq!((world.group.report().parked, world.group.report().earliest.0), (1, 20));
}
