//! What must hold after each step and at the end of a walk.

use super::*;

impl Walk {
    pub(super) fn group_settled(&self) -> BTreeSet<u64> {
        let settled = self.world.group.settled();
        self.world.log.iter().filter(|event| settled.contains(event)).map(|event| event.position.0).collect()
    }

    /// The `skip` policy may have settled it: it had all its attempts.
    pub(super) fn poisoned(&self, position: u64) -> bool {
        self.poison == Poison::Skip
            && self.last_attempt.get(&position) == Some(&MAX_ATTEMPTS)
            && self.live.values().all(|got| got.position() != position)
    }

    pub(super) fn hear_replies(&mut self) {
        for (id, stale) in std::mem::take(&mut self.world.replies) {
            let early = stale.iter().all(|token| self.voided.contains(token));
            assert!(early, "a live token was stale: {stale:?}");
            let acked = self.asked.remove(&id).unwrap_or_default();
            let settled = acked.into_iter().filter(|(token, _)| !stale.contains(token));
            self.answered.extend(settled.map(|(_, position)| position));
            let made_up: Vec<_> = self.answered.difference(&self.settled).collect();
            assert!(made_up.is_empty(), "answered, but not settled: {made_up:?}");
        }
    }

    /// Everything the group said since the last look.
    pub(super) fn look(&mut self) {
        for (member, _) in std::mem::take(&mut self.world.revoked) {
            self.forget(member);
        }
        self.hear_replies();
        self.world.overdue.clear();
        let fenced = &self.world.fenced;
        self.unfenced.retain(|token, _| !fenced.contains(token));
        for got in self.world.take() {
            self.delivered(got);
        }
    }

    pub(super) fn key(&self, position: u64) -> Option<&str> {
        match self.mode {
            Mode::Exclusive => Some("everything"),
            Mode::Keyed => self.world.log[position as usize].subject.as_deref(),
        }
    }

    pub(super) fn same_key(&self, a: u64, b: u64) -> bool {
        a == b || (self.key(a).is_some() && self.key(a) == self.key(b))
    }

    pub(super) fn delivered(&mut self, got: Got) {
        let position = got.position();
        assert!(self.present.contains(&got.member()), "{position} went to a session that is gone");
        assert!(!self.settled.contains(&position), "{position} was settled and came again");
        assert!((1..=MAX_ATTEMPTS).contains(&got.attempt), "attempt {} at {position}", got.attempt);
        if let Some(last) = self.last_attempt.get(&position).copied() {
            // The second attempt and all later ones are on disk before they are sent.
            assert!(last < 2 || got.attempt >= last, "{position}: attempt {} after {last}", got.attempt);
            let counted = !self.crashed.remove(&position) || got.attempt > last;
            assert!(counted, "{position}: a crash did not count, attempt {} after {last}", got.attempt);
        }
        let mut of_key = 1;
        for held in self.live.values().filter(|held| self.same_key(held.position(), position)) {
            of_key += 1;
            let own = held.member() == got.member() && held.position() < position;
            assert!(own, "G1: {} is held while {position} goes out", held.position());
            let first = held.attempt == 1 && got.attempt == 1;
            assert!(first, "{position} goes with {}, and one has failed", held.position());
        }
        assert!(of_key <= self.windows[&got.member()], "{of_key} events of one key are out");
        for earlier in 0..position {
            let given_up =
                self.skipped.contains(&earlier) || !self.settled.contains(&earlier) && self.poisoned(earlier);
            if given_up && self.same_key(earlier, position) {
                self.passed.insert(earlier);
            }
            let open = !self.settled.contains(&earlier) && !self.poisoned(earlier);
            let held = || self.live.values().any(|held| held.position() == earlier);
            assert!(
                !(open && self.same_key(earlier, position)) || held(),
                "G2: {position} overtakes {earlier}"
            );
        }
        for (token, old) in &self.unfenced {
            assert!(!self.same_key(*old, position), "G5: {position} goes out before {token:?} is fenced");
        }
        self.last_attempt.insert(position, got.attempt);
        self.live.insert(got.token, got);
    }

    /// The group and the checker agree on every single event.
    pub(super) fn compare(&mut self) {
        let group = self.group_settled();
        let skipped: Vec<u64> =
            group.difference(&self.settled).copied().filter(|p| self.poisoned(*p)).collect();
        self.skipped.extend(&skipped);
        self.settled.extend(skipped);
        assert_eq!(group, self.settled, "group (left) and checker (right) disagree on what is settled");
        assert!(self.world.group.report().waiting <= 12 + 5, "memory is not bounded");
    }

    /// Everything works again: then everything gets settled.
    pub(super) fn finish(mut self) {
        self.world.answer_saves = true;
        self.world.answer_fences = true;
        self.world.answer_reads = true;
        self.world.answer_saves();
        self.world.answer_fences();
        self.world.answer_reads();
        self.look();
        while let Some(member) = self.gone() {
            self.world.lost(member);
            self.look();
        }
        self.pass(120_000);
        self.present.push(self.next_member);
        self.windows.insert(self.next_member, 1);
        self.world.join_as(self.next_member, "last", None, 10);
        let head = self.world.log.len() as u64;
        for _ in 0..10 * head + 1_000 {
            self.look();
            for token in self.tokens() {
                self.settled.insert(self.live[&token].position());
                self.end(token, false);
                self.world.step(Input::Ack { member: token.member, tokens: vec![token], reply: None });
            }
            if let Some(parked) = self.world.group.parked().into_iter().next() {
                self.last_attempt.remove(&parked.position.0);
                self.crashed.remove(&parked.position.0);
                self.world.step(Input::Retry(parked.key));
            }
            if self.world.group.low().0 == head && self.world.group.report().behind == 0 {
                break;
            }
            self.pass(100);
        }
        self.look();
        self.compare();
        assert_eq!(self.settled.len() as u64, head, "G3: some events were never settled");
        assert_eq!((self.world.low(), self.world.group.report().waiting), (head, 0));
    }
}
