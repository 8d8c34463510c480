//! The checker against histories that somebody made up: the good one passes, and
//! each way to break a promise is found by the rule that speaks of it.

use daybook_sim::history::{Entry, GroupSpec, KeyOf, Logged, Record, Told, What, check};

const GROUP: GroupSpec =
    GroupSpec { name: "g", key: KeyOf::Subject, types: "Work", effects: "Effect", max_attempts: 3 };

struct Story {
    log: Vec<Entry>,
    records: Vec<Record>,
}

/// Delivery tokens: of the first run of the server, the third member, and so on.
const T1: &str = "a-1-1-1";
const T2: &str = "a-1-1-2";
const T3: &str = "a-1-2-3";

impl Story {
    /// Two events of one key, read, handled in order by one member.
    fn good() -> Self {
        let mut story = Self { log: Vec::new(), records: Vec::new() };
        story.publish("p", 0, "e0", None);
        story.entry("e0", "Work", Some(("k", 0)), None);
        story.stored("p", 0, 0);
        story.publish("p", 1, "e1", None);
        story.entry("e1", "Work", Some(("k", 1)), None);
        story.stored("p", 1, 1);
        story.read("f", 0);
        story.read("f", 1);
        story.handle("m", T1, 0, 0, 2);
        story.handle("m", T2, 1, 1, 3);
        story
    }

    fn handle(&mut self, who: &str, token: &str, position: u64, call: u64, effect: u64) {
        self.delivered(who, token, position);
        let id = format!("x{position}");
        self.publish(who, call, &id, Some(token));
        self.entry(&id, "Effect", None, Some(&format!("e{position}")));
        self.stored(who, call, effect);
        self.ack(who, token, position);
        self.acked(who, token, position);
    }

    fn entry(&mut self, id: &str, kind: &str, key: Option<(&str, u64)>, cause: Option<&str>) {
        let position = self.log.len() as u64;
        self.log.push(Entry {
            position,
            id: id.to_owned(),
            kind: kind.to_owned(),
            subject: key.map(|(subject, _)| subject.to_owned()),
            sequence: key.map(|(_, sequence)| sequence),
            cause: cause.map(str::to_owned),
            recorded: position as i64,
            content: 7_000 + position,
        });
    }

    fn note(&mut self, who: &str, what: What) {
        let at = self.records.len() as u64;
        self.records.push(Record { at, ms: at, who: who.to_owned(), what });
    }

    fn publish(&mut self, who: &str, call: u64, id: &str, token: Option<&str>) {
        self.note(who, What::Publish { call, ids: vec![id.to_owned()], token: token.map(str::to_owned) });
    }

    /// The truth, as the log has it.
    fn stored(&mut self, who: &str, call: u64, position: u64) {
        let entry = &self.log[position as usize];
        let told = Told { id: entry.id.clone(), position, sequence: entry.sequence, duplicate: false };
        self.note(who, What::Stored { call, events: vec![told] });
    }

    fn read(&mut self, who: &str, position: u64) {
        let (id, content) = self.seen(position);
        self.note(who, What::Read { position, id, content });
    }

    fn delivered(&mut self, who: &str, token: &str, position: u64) {
        let (id, content) = self.seen(position);
        let (group, token) = (GROUP.name.to_owned(), token.to_owned());
        self.note(who, What::Delivered { group, token, attempt: 1, position, id, content });
    }

    fn seen(&self, position: u64) -> (String, u64) {
        let entry = &self.log[position as usize];
        (entry.id.clone(), entry.content)
    }

    fn ack(&mut self, who: &str, token: &str, position: u64) {
        self.note(who, What::Ack { group: GROUP.name.to_owned(), token: token.to_owned(), position });
    }

    fn acked(&mut self, who: &str, token: &str, position: u64) {
        self.note(who, What::Acked { group: GROUP.name.to_owned(), token: token.to_owned(), position });
    }

    fn without(mut self, unwanted: impl Fn(&What) -> bool) -> Self {
        self.records.retain(|record| !unwanted(&record.what));
        self
    }

    fn rules(self) -> Vec<&'static str> {
        check(&self.records, &Logged::new(self.log), &[GROUP], true).rules()
    }
}

#[track_caller]
fn breaks(rule: &str, story: Story) {
    let rules = story.rules();
    assert!(rules.contains(&rule), "expected `{rule}`, found {rules:?}");
}

#[test]
fn a_good_history_breaks_nothing() {
    assert_eq!(Story::good().rules(), Vec::<&str>::new());
}

#[test]
fn unknown_outcomes_and_missing_notes_are_no_alarm() {
    let mut story = Story::good();
    story.publish("p", 2, "gone", None);
    story.note("p", What::Unknown { call: 2 });
    story.publish("p", 3, "there", None);
    story.entry("there", "Other", None, None);
    story.note("p", What::Unknown { call: 3 });
    let story = story.without(|what| matches!(what, What::Acked { .. } | What::Read { .. }));
    assert_eq!(story.rules(), Vec::<&str>::new());
}

#[test]
fn a_receipt_for_what_is_not_in_the_log_is_found() {
    let mut story = Story::good();
    story.log.pop();
    breaks("what was receipted is in the log", story);
}

#[test]
fn an_event_that_is_stored_twice_is_found() {
    let mut story = Story::good();
    story.entry("x1", "Effect", None, Some("e1"));
    breaks("an id is stored once", story);
}

#[test]
fn a_gap_in_the_positions_or_in_a_keys_values_is_found() {
    let mut story = Story::good();
    story.log[3].position = 4;
    breaks("positions are gapless", story);
    let mut story = Story::good();
    story.log[1].sequence = Some(2);
    breaks("a key's values are 0..n without gap", story);
}

#[test]
fn a_refused_event_in_the_log_is_found() {
    let mut story = Story::good();
    story.publish("p", 2, "no", None);
    story.note("p", What::Refused { call: 2, code: "conflict".into() });
    story.entry("no", "Other", None, None);
    breaks("what was refused is not stored", story);
}

#[test]
fn an_event_that_nobody_published_is_found() {
    let mut story = Story::good();
    story.entry("whence", "Other", None, None);
    breaks("nothing is in the log that nobody published", story);
}

#[test]
fn a_receipt_for_other_ids_is_found() {
    let mut story = Story::good();
    story.publish("p", 2, "other", None);
    story.stored("p", 2, 0);
    breaks("a receipt names what was published", story);
}

#[test]
fn a_later_publish_at_a_lower_position_is_found() {
    let mut story = Story::good();
    story.records.swap(0, 3);
    // Now e0 begins only after e1 was stored.
    let first = story.records.remove(3);
    story.records.insert(5, first);
    let stored = story.records.iter().position(|r| matches!(r.what, What::Stored { call: 0, .. }));
    let stored = story.records.remove(stored.expect("it is there"));
    story.records.push(stored);
    breaks("later publishes get higher positions", story);
}

#[test]
fn a_follower_that_misses_an_event_or_sees_another_content_is_found() {
    let mut story = Story::good();
    story.read("late", 0);
    story.read("late", 2);
    breaks("a follower sees every event in order", story);
    let mut story = Story::good();
    story.note("late", What::Read { position: 0, id: "e0".into(), content: 1 });
    breaks("a position has one content", story);
}

#[test]
fn an_event_that_was_read_and_is_not_in_the_log_is_found() {
    let mut story = Story::good();
    story.note("f", What::Read { position: 4, id: "lost".into(), content: 1 });
    breaks("a position has one content", story);
}

#[test]
fn a_delivery_outside_the_filter_is_found() {
    let mut story = Story::good();
    story.delivered("m", T3, 2);
    breaks("a group gets only what it wants", story);
}

#[test]
fn a_token_given_twice_is_found() {
    let mut story = Story::good();
    story.delivered("m", T2, 1);
    breaks("a token is given once", story);
}

#[test]
fn an_event_that_comes_again_after_its_answered_ack_is_found() {
    let mut story = Story::good();
    story.delivered("n", T3, 1);
    breaks("an answered ack is for ever", story);
}

#[test]
fn an_older_delivery_that_hung_in_the_network_is_no_alarm() {
    let mut story = Story::good();
    story.delivered("n", "9-1-1-99", 1);
    story.ack("n", "9-1-1-99", 1);
    assert_eq!(story.rules(), Vec::<&str>::new());
}

#[test]
fn an_event_that_overtakes_is_found() {
    let story = Story::good();
    let first = |what: &What| matches!(what, What::Ack { position: 0, .. } | What::Acked { position: 0, .. });
    breaks("the next event waits until this one is settled", story.without(first));
}

#[test]
fn two_sessions_on_one_key_are_found_by_what_the_older_one_may_still_do() {
    // n gets the event while m works on it; m may neither ack nor publish any more.
    let mut story = Story::good();
    story.records.truncate(9);
    story.log.truncate(2);
    story.delivered("n", T3, 0);
    story.ack("m", T1, 0);
    story.acked("m", T1, 0);
    breaks("a stale ack settles nothing", story);

    let mut story = Story::good();
    story.records.truncate(9);
    story.log.truncate(2);
    story.delivered("n", T3, 0);
    story.publish("m", 7, "x0", Some(T1));
    story.entry("x0", "Effect", None, Some("e0"));
    story.stored("m", 7, 2);
    breaks("a lost claim cannot publish", story);
}

#[test]
fn effects_in_another_order_than_their_causes_are_found() {
    let mut story = Story::good();
    let (a, b) = (story.log[2].cause.clone(), story.log[3].cause.clone());
    (story.log[2].cause, story.log[3].cause) = (b, a);
    breaks("effects of a key stand in the order of its events", story);
    let mut story = Story::good();
    story.log[2].cause = None;
    breaks("an effect has its cause", story);
}

#[test]
fn an_event_that_nobody_settled_is_found() {
    let last = |what: &What| matches!(what, What::Ack { position: 1, .. } | What::Acked { position: 1, .. });
    breaks("every event is settled in the end", Story::good().without(last));
}

#[test]
fn one_attempt_too_many_is_found() {
    let mut story = Story::good();
    let (id, content) = story.seen(1);
    let (group, token) = (GROUP.name.to_owned(), T3.to_owned());
    story.note("m", What::Delivered { group, token, attempt: 4, position: 1, id, content });
    breaks("no more attempts than allowed", story);
}

#[test]
fn a_time_that_goes_back_is_found() {
    let mut story = Story::good();
    story.log[2].recorded = 0;
    breaks("the time of the bus never goes back", story);
}

impl Story {
    /// Two events of one key out at once, with a session that asked for it.
    fn in_window() -> Self {
        let mut story = Self::good()
            .without(|what| matches!(what, What::Delivered { .. } | What::Ack { .. } | What::Acked { .. }));
        for record in &mut story.records {
            if let What::Publish { token, .. } = &mut record.what {
                *token = None;
            }
        }
        story.note("m", What::Joining { group: GROUP.name.to_owned(), window: 2 });
        story.delivered("m", T1, 0);
        story.delivered("m", T2, 1);
        story
    }
}

#[test]
fn a_window_is_no_alarm_and_acks_may_come_in_any_order() {
    let mut story = Story::in_window();
    story.ack("m", T2, 1);
    story.ack("m", T1, 0);
    story.acked("m", T1, 0);
    story.acked("m", T2, 1);
    assert_eq!(story.rules(), Vec::<&str>::new());
}

#[test]
fn more_of_a_key_than_the_window_is_found() {
    let mut story = Story::in_window();
    let third = story.log.len() as u64;
    story.publish("p", 2, "e4", None);
    story.entry("e4", "Work", Some(("k", 2)), None);
    story.stored("p", 2, third);
    story.delivered("m", "a-1-1-9", third);
    breaks("no more of a key than the window", story);
}

#[test]
fn a_window_that_reaches_over_two_sessions_is_found() {
    let mut story = Story::in_window();
    story.records.pop();
    story.note("n", What::Joining { group: GROUP.name.to_owned(), window: 2 });
    story.delivered("n", T3, 1);
    breaks("the next event waits until this one is settled", story);
}

#[test]
fn an_ack_that_is_answered_before_an_earlier_event_is_settled_is_found() {
    let mut story = Story::in_window();
    story.ack("m", T2, 1);
    story.acked("m", T2, 1);
    breaks("an ack is answered once all before it is settled", story);
}

#[test]
fn what_has_failed_in_company_is_found() {
    let mut story = Story::in_window();
    let Some(Record { what: What::Delivered { attempt, .. }, .. }) = story.records.last_mut() else {
        panic!("a window ends with a delivery");
    };
    *attempt = 2;
    breaks("what has failed comes alone", story);
}

#[test]
fn an_event_that_comes_again_was_not_settled_by_what_came_before() {
    let mut story = Story::good();
    let last = story.records.iter().position(|r| matches!(r.what, What::Acked { position: 0, .. }));
    story.records.truncate(last.expect("it is there"));
    story.log.truncate(3);
    // The ack got lost; the event came again, and the next one before it was settled.
    story.delivered("n", "a-1-2-4", 0);
    story.delivered("n", "a-1-2-5", 1);
    breaks("the next event waits until this one is settled", story);
}

#[test]
fn with_noted_runs_the_clock_in_a_token_does_not_tell_which_was_later() {
    let run = |run| What::Run { run };
    let mut story = Story::good();
    let mut records = std::mem::take(&mut story.records);
    story.note("faults", run(0xa));
    story.records.append(&mut records);
    story.note("faults", run(0x9));
    // Later, although 9 is less than a: its clock had gone back.
    story.delivered("n", "9-1-1-1", 1);
    breaks("an answered ack is for ever", story);
}

impl Story {
    fn rebuilding(&mut self, who: &str) {
        self.note(who, What::Rebuilding { group: GROUP.name.to_owned() });
    }

    fn rebuilt(&mut self, who: &str, position: u64) {
        let (id, content) = self.seen(position);
        self.note(who, What::Rebuilt { group: GROUP.name.to_owned(), position, id, content });
    }

    fn rebuilt_past(&mut self, who: &str) {
        self.note(who, What::RebuiltPast { group: GROUP.name.to_owned() });
    }
}

#[test]
fn a_complete_rebuild_is_no_alarm_and_repeats_are_none() {
    let mut story = Story::good();
    story.rebuilding("r");
    for position in [0, 1, 0, 1] {
        story.rebuilt("r", position);
    }
    story.rebuilt_past("r");
    assert_eq!(story.rules(), Vec::<&str>::new());
}

#[test]
fn a_rebuild_that_is_told_what_nobody_settled_is_found() {
    let last = |what: &What| matches!(what, What::Ack { position: 1, .. } | What::Acked { position: 1, .. });
    let mut story = Story::good().without(last);
    story.rebuilding("r");
    story.rebuilt("r", 0);
    story.rebuilt("r", 1);
    breaks("what is told as settled was settled", story);
}

#[test]
fn a_rebuild_that_misses_what_was_settled_is_found() {
    let mut story = Story::good();
    story.rebuilding("r");
    story.rebuilt("r", 0);
    story.rebuilt_past("r");
    breaks("who rebuilds is told all that was settled", story);
}

#[test]
fn a_rebuild_in_another_order_than_the_keys_is_found() {
    let mut story = Story::good();
    story.rebuilding("r");
    story.rebuilt("r", 1);
    story.rebuilt("r", 0);
    breaks("who rebuilds is told a key's events in order, and all", story);
}

#[test]
fn a_rebuild_that_is_told_what_the_group_does_not_want_is_found() {
    let mut story = Story::good();
    story.rebuilding("r");
    story.rebuilt("r", 2);
    breaks("a group settles only what it wants", story);
}
