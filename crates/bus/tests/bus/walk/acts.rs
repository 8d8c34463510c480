//! What may happen in a walk: events, members, answers, failures, restarts.

use super::*;

impl Walk {
    pub(super) fn act(&mut self) {
        match self.dice.below(100) {
            0..20 => {
                let keys = ["a", "b", "c", "d", "e", "f", "g", ""];
                let n = 1 + self.dice.below(3);
                let subjects: Vec<&str> = (0..n).filter_map(|_| self.dice.pick(&keys)).collect();
                self.world.publish(&subjects);
            }
            20..28 => self.join(),
            28..30 => {
                if let Some(member) = self.gone() {
                    self.world.leave(member);
                }
            }
            30..34 => {
                let held: Vec<(u64, u64)> =
                    self.live.values().map(|got| (got.member(), got.position())).collect();
                if let Some(member) = self.gone() {
                    if self.without_boot.contains(&member) {
                        let its = held.iter().filter(|(holder, _)| *holder == member);
                        self.crashed.extend(its.map(|(_, position)| *position));
                    }
                    self.world.lost(member);
                }
            }
            34..62 => self.ack(),
            62..65 => self.ack_what_is_not_ours(),
            65..74 => self.nack(),
            74..76 => {
                if let Some(token) = self.dice.pick(&self.tokens()) {
                    self.world.step(Input::Progress { member: token.member, token });
                }
            }
            76..84 => {
                let ms = self.dice.pick(&[1, 9, 30, 120, 700, 5_001, 40_000]).unwrap_or(1);
                self.pass(ms);
            }
            84..90 => match self.dice.below(3) {
                0 => self.world.answer_saves = !self.world.answer_saves,
                1 => self.world.answer_fences = !self.world.answer_fences,
                _ => self.world.answer_reads = !self.world.answer_reads,
            },
            90..96 => self.answer(),
            96..98 => self.operate(),
            98 => self.fail_something(),
            _ => {
                if self.dice.below(4) == 0 {
                    self.restart();
                }
            }
        }
    }

    /// Time passes; each step is looked at, since what one sends the next may take back.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.world.now + ms;
        while let Some(at) = self.world.group.wake_at().filter(|at| *at <= end) {
            self.world.now = self.world.now.max(at);
            self.world.step(Input::Tick);
            self.look();
        }
        self.world.now = end;
    }

    pub(super) fn join(&mut self) {
        if self.present.len() >= 4 {
            return;
        }
        let member = self.next_member;
        self.next_member += 1;
        let resumed = if self.dice.below(2) == 0 {
            let known: Vec<_> = self.boots.values().cloned().collect();
            self.dice.pick(&known)
        } else {
            None
        };
        let (instance, boot) = resumed.unwrap_or_else(|| {
            self.next_boot += 1;
            (format!("i{}", self.dice.below(3)), format!("b{}", self.next_boot))
        });
        let credit = 1 + self.dice.below(6) as usize;
        self.present.push(member);
        self.boots.insert(member, (instance.clone(), boot.clone()));
        let boot = (self.dice.below(5) > 0).then_some(boot.as_str());
        if boot.is_none() {
            self.without_boot.insert(member);
        }
        let window = self.dice.pick(&[1, 1, 2, 4]).unwrap_or(1);
        self.windows.insert(member, window);
        self.world.join_with_window(member, (&instance, boot), credit, window);
    }

    /// A member that goes now: what it holds is no longer its.
    pub(super) fn gone(&mut self) -> Option<u64> {
        let member = self.dice.pick(&self.present)?;
        self.forget(member);
        Some(member)
    }

    pub(super) fn forget(&mut self, member: u64) {
        self.present.retain(|other| *other != member);
        let over: Vec<Token> = self.live.keys().filter(|token| token.member.0 == member).copied().collect();
        for token in over {
            self.end(token, true);
        }
    }

    /// The delivery is over; unless it was settled its fence has to come.
    pub(super) fn end(&mut self, token: Token, unsettled: bool) {
        let Some(got) = self.live.remove(&token) else { return };
        self.dead.push(token);
        let early = self.early.remove(&token);
        if unsettled {
            self.unfenced.insert(token, got.position());
            if early {
                self.voided.insert(token);
            }
        }
    }

    /// Of each key the earliest that are acked, up to the first that is not.
    pub(super) fn settle_acked(&mut self) {
        let mut early: Vec<(u64, Token)> =
            self.early.iter().map(|token| (self.live[token].position(), *token)).collect();
        early.sort_unstable();
        for (position, token) in early {
            if self.held_before(position).next().is_none() {
                self.settled.insert(position);
                self.end(token, false);
            }
        }
    }

    /// Earlier events of the same key that sessions hold.
    pub(super) fn held_before(&self, position: u64) -> impl Iterator<Item = &Got> {
        self.live
            .values()
            .filter(move |held| held.position() < position && self.same_key(held.position(), position))
    }

    pub(super) fn tokens(&self) -> Vec<Token> {
        self.live.keys().copied().collect()
    }

    pub(super) fn ack(&mut self) {
        let Some(first) = self.dice.pick(&self.tokens()) else { return };
        let mut tokens = vec![first];
        if self.dice.below(3) == 0 {
            tokens = self.tokens().into_iter().filter(|token| token.member == first.member).collect();
        }
        let positions = tokens.iter().map(|token| (*token, self.live[token].position())).collect();
        self.early.extend(&tokens);
        self.settle_acked();
        let reply = (self.dice.below(2) == 0).then(|| {
            self.next_reply += 1;
            let id = self.next_reply;
            self.asked.insert(id, positions);
            ReplyId(id)
        });
        self.world.step(Input::Ack { member: first.member, tokens, reply });
    }

    /// Changes nothing, or [`Self::compare`] finds out.
    pub(super) fn ack_what_is_not_ours(&mut self) {
        let anybody = MemberId(self.dice.below(self.next_member + 1));
        if let Some(token) = self.dice.pick(&self.dead.clone()) {
            self.world.step(Input::Ack { member: token.member, tokens: vec![token], reply: None });
            let action = NackAction::Skip;
            let (delay_ms, reason) = (None, None);
            self.world.step(Input::Nack { member: token.member, token, action, delay_ms, reason, jitter: 0 });
        }
        if let Some(token) = self.dice.pick(&self.tokens())
            && token.member != anybody
        {
            self.world.step(Input::Ack { member: anybody, tokens: vec![token], reply: None });
        }
    }

    pub(super) fn nack(&mut self) {
        let Some(token) = self.dice.pick(&self.tokens()) else { return };
        let actions =
            [NackAction::Retry, NackAction::Retry, NackAction::Retry, NackAction::Park, NackAction::Skip];
        let action = self.dice.pick(&actions).unwrap_or(NackAction::Retry);
        let position = self.live[&token].position();
        if action == NackAction::Skip && self.held_before(position).next().is_none() {
            self.settled.insert(position);
            self.skipped.insert(position);
            self.end(token, false);
        }
        // Whatever else the session has of the key comes again.
        let of_key = |got: &&Got| self.same_key(got.position(), position);
        let back: Vec<Token> = self.live.values().filter(of_key).map(|got| got.token).collect();
        back.into_iter().for_each(|token| self.end(token, true));
        let delay_ms = self.dice.pick(&[None, Some(0), Some(50)]).flatten();
        let (member, jitter, reason) = (token.member, self.dice.next(), None);
        self.world.step(Input::Nack { member, token, action, delay_ms, reason, jitter });
    }

    pub(super) fn answer(&mut self) {
        match self.dice.below(3) {
            0 => self.world.answer_saves(),
            1 => self.world.answer_fences(),
            _ => self.world.answer_reads(),
        }
    }

    pub(super) fn fail_something(&mut self) {
        if let Some((number, _)) = self.world.saves.pop() {
            self.world.step(Input::SaveFailed(number));
        }
        if self.world.reads.pop().is_some() {
            self.world.step(Input::ReadFailed);
        }
    }

    pub(super) fn operate(&mut self) {
        let Some(parked) = self.dice.pick(&self.world.group.parked()) else { return };
        if self.dice.below(3) == 0 {
            self.settled.insert(parked.position.0);
            self.skipped.insert(parked.position.0);
            self.world.step(Input::Skip(parked.key));
        } else {
            // It begins anew: its attempts are counted from one.
            self.last_attempt.remove(&parked.position.0);
            self.crashed.remove(&parked.position.0);
            self.world.step(Input::Retry(parked.key));
        }
    }

    pub(super) fn restart(&mut self) {
        self.hear_replies();
        self.world.restart();
        self.live.clear();
        self.dead.clear();
        self.unfenced.clear();
        self.early.clear();
        self.voided.clear();
        self.asked.clear();
        self.world.replies.clear();
        self.present.clear();
        self.boots.clear();
        self.crashed.clear();
        let remembered = self.group_settled();
        let forgotten: Vec<_> = self.answered.difference(&remembered).collect();
        assert!(forgotten.is_empty(), "answered acks are lost: {forgotten:?}");
        let made_up: Vec<_> = remembered.difference(&self.settled).filter(|p| !self.poisoned(**p)).collect();
        assert!(made_up.is_empty(), "settled by nobody: {made_up:?}");
        let back: Vec<_> = self.passed.difference(&remembered).collect();
        assert!(back.is_empty(), "skipped, gone on without, and forgotten: {back:?}");
        self.skipped.retain(|position| remembered.contains(position));
        self.settled = remembered;
    }
}
