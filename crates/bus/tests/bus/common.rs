//! A group with a log, a clock and a disk that the test holds in its hands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use daybook_bus::{
    BarrierId, Checkpoint, Effect, Group, Input, MemberId, Millis, Options, ReplyId, Settings, Token,
};
use daybook_model::wire::{self, Count, NackAction};
use daybook_model::{Event, Filter, Position, Timestamp};

/// One delivery as its session sees it.
#[derive(Clone, Debug)]
pub struct Got {
    pub token: Token,
    pub attempt: u32,
    pub event: Arc<Event>,
}

impl Got {
    pub fn member(&self) -> u64 {
        self.token.member.0
    }
    pub fn position(&self) -> u64 {
        self.event.position.0
    }
}

pub struct World {
    pub log: Vec<Arc<Event>>,
    pub group: Group,
    pub settings: Settings,
    pub now: Millis,
    /// Deliveries not yet looked at by the test.
    pub inbox: Vec<Got>,
    pub overdue: Vec<Token>,
    pub revoked: Vec<(u64, String)>,
    pub replies: BTreeMap<u64, Vec<Token>>,
    /// What a restart would find.
    pub disk: Checkpoint,
    /// Answers that the test holds back.
    pub saves: Vec<(u64, Checkpoint)>,
    pub fences: Vec<(BarrierId, Vec<Token>)>,
    /// Whose fences are up.
    pub fenced: BTreeSet<Token>,
    pub reads: Vec<Effect>,
    pub answer_saves: bool,
    pub answer_fences: bool,
    pub answer_reads: bool,
    /// Looking at everything after every step; too slow for very many keys.
    pub check: bool,
    /// Print what the group is told.
    pub aloud: bool,
}

pub fn join() -> wire::Join {
    wire::Join {
        id: 0,
        group: "g".into(),
        credit: Count(1),
        filter: None,
        start: None,
        mode: None,
        key: None,
        poison: None,
        max_attempts: None,
        max_processing_ms: None,
        window: None,
        credit_bytes: None,
    }
}

pub fn event(position: u64, subject: Option<&str>, kind: &str) -> Arc<Event> {
    Arc::new(Event {
        id: format!("e{position}"),
        source: "/test".into(),
        kind: kind.into(),
        subject: subject.map(Into::into),
        sequence: None,
        correlationid: "c".into(),
        causationid: None,
        sessionid: "test/1/1".into(),
        authid: None,
        time: "2026-11-24T09:30:00Z".into(),
        recordedtime: Timestamp(0),
        position: Position(position),
        batch: None,
        datacontenttype: None,
        dataschema: None,
        traceparent: None,
        extensions: Vec::new(),
        data: None,
    })
}

impl World {
    pub fn new() -> Self {
        Self::with(join(), Settings::default())
    }

    pub fn with(options: wire::Join, settings: Settings) -> Self {
        let options = Options::of(&options).expect("options of a test are valid");
        let disk = Checkpoint::new(options, Position::ZERO);
        Self {
            log: Vec::new(),
            group: Group::new(disk.clone(), settings.clone(), Position::ZERO),
            settings,
            now: Millis(1_000),
            inbox: Vec::new(),
            overdue: Vec::new(),
            revoked: Vec::new(),
            replies: BTreeMap::new(),
            disk,
            saves: Vec::new(),
            fences: Vec::new(),
            fenced: BTreeSet::new(),
            reads: Vec::new(),
            answer_saves: true,
            answer_fences: true,
            answer_reads: true,
            check: true,
            aloud: false,
        }
    }

    /// The process dies; another one opens what was durable. Through JSON, as on disk.
    pub fn restart(&mut self) {
        let json = serde_json::to_string(&self.disk).unwrap();
        self.disk = serde_json::from_str(&json).unwrap();
        self.group = Group::new(self.disk.clone(), self.settings.clone(), Position(self.log.len() as u64));
        self.inbox.clear();
        self.overdue.clear();
        self.saves.clear();
        self.fences.clear();
        self.reads.clear();
    }

    pub fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            if self.aloud {
                eprintln!("{:>8} ms  {input:?}", self.now.0);
            }
            let mut out = Vec::new();
            self.group.step(self.now, input, &mut out);
            if self.check {
                self.group.check_invariants();
            }
            for effect in out {
                match effect {
                    Effect::Deliver { token, attempt, event } => {
                        self.inbox.push(Got { token, attempt, event })
                    }
                    Effect::Overdue(token) => self.overdue.push(token),
                    Effect::GaveUp { .. } => {}
                    Effect::Revoke { member, reason } => self.revoked.push((member.0, reason)),
                    Effect::Reply { reply, stale } => drop(self.replies.insert(reply.0, stale)),
                    Effect::Fence { id, tokens } => {
                        if self.answer_fences {
                            self.fenced.extend(tokens);
                            inputs.push(Input::Fenced(id));
                        } else {
                            self.fences.push((id, tokens));
                        }
                    }
                    Effect::Save { number, checkpoint } => {
                        if self.answer_saves {
                            self.disk = *checkpoint;
                            inputs.push(Input::Saved(number));
                        } else {
                            self.saves.push((number, *checkpoint));
                        }
                    }
                    read @ (Effect::Read { .. } | Effect::ReadKey { .. }) => {
                        if self.answer_reads {
                            inputs.push(self.page(&read));
                        } else {
                            self.reads.push(read);
                        }
                    }
                }
            }
        }
    }

    /// What a store answers.
    pub fn page(&self, read: &Effect) -> Input {
        let (filter, from, until, max_events, of_key) = match read {
            Effect::Read { from, until, max_events, .. } => {
                (self.group.options().filter.clone(), *from, *until, *max_events, false)
            }
            Effect::ReadKey { key, from, until, max_events, .. } => {
                (key.filter(self.group.options().key), *from, *until, *max_events, true)
            }
            other => panic!("{other:?} reads nothing"),
        };
        assert!(max_events > 0 && from < until, "a read of nothing: {read:?}");
        let (mut events, mut next) = (Vec::new(), until);
        for event in &self.log[from.0 as usize..until.0 as usize] {
            if events.len() == max_events {
                next = event.position;
                break;
            }
            if filter.matches(event) {
                events.push(event.clone());
            }
        }
        if of_key { Input::KeyPage { next, events } } else { Input::Page { next, events } }
    }

    pub fn publish(&mut self, subjects: &[&str]) {
        for subject in subjects {
            let position = self.log.len() as u64;
            self.log.push(event(position, (!subject.is_empty()).then_some(subject), "T"));
        }
        self.step(Input::Head(Position(self.log.len() as u64)));
    }

    pub fn publish_typed(&mut self, kind: &str, subject: &str) {
        self.log.push(event(self.log.len() as u64, Some(subject), kind));
        self.step(Input::Head(Position(self.log.len() as u64)));
    }

    /// A session of its own instance and boot.
    pub fn join(&mut self, member: u64) {
        self.join_as(member, &format!("i{member}"), Some(&format!("b{member}")), 100);
    }

    pub fn join_as(&mut self, member: u64, instance: &str, boot: Option<&str>, credit: usize) {
        self.join_with_window(member, (instance, boot), credit, 1);
    }

    pub fn join_with_window(
        &mut self,
        member: u64,
        (instance, boot): (&str, Option<&str>),
        credit: usize,
        window: usize,
    ) {
        let (member, instance, boot) = (MemberId(member), instance.to_owned(), boot.map(Into::into));
        self.step(Input::Join { member, instance, boot, credit, credit_bytes: 1 << 20, window });
    }

    pub fn lost(&mut self, member: u64) {
        self.step(Input::Lost(MemberId(member)));
    }

    pub fn leave(&mut self, member: u64) {
        self.step(Input::Leave(MemberId(member)));
    }

    /// Everything delivered since the last look.
    pub fn take(&mut self) -> Vec<Got> {
        std::mem::take(&mut self.inbox)
    }

    /// Positions delivered since the last look.
    pub fn positions(&mut self) -> Vec<u64> {
        self.take().iter().map(Got::position).collect()
    }

    pub fn ack(&mut self, got: &Got) {
        self.step(Input::Ack { member: got.token.member, tokens: vec![got.token], reply: None });
    }

    /// Acks and tells which tokens were stale; the save answers at once.
    pub fn ack_answered(&mut self, member: u64, tokens: &[Token]) -> Vec<Token> {
        let reply = self.replies.len() as u64;
        self.step(Input::Ack {
            member: MemberId(member),
            tokens: tokens.to_vec(),
            reply: Some(ReplyId(reply)),
        });
        self.pass(self.settings.save_gap_ms);
        self.replies[&reply].clone()
    }

    pub fn nack(&mut self, got: &Got, action: NackAction) {
        let (member, token) = (got.token.member, got.token);
        self.step(Input::Nack { member, token, action, delay_ms: None, reason: None, jitter: 0 });
    }

    /// Lets time pass, waking the group whenever it asked for it.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(at) = self.group.wake_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Input::Tick);
        }
        self.now = end;
    }

    pub fn answer_fences(&mut self) {
        for (id, tokens) in std::mem::take(&mut self.fences) {
            self.fenced.extend(tokens);
            self.step(Input::Fenced(id));
        }
    }

    pub fn answer_saves(&mut self) {
        for (number, checkpoint) in std::mem::take(&mut self.saves) {
            self.disk = checkpoint;
            self.step(Input::Saved(number));
        }
    }

    pub fn answer_reads(&mut self) {
        for read in std::mem::take(&mut self.reads) {
            let page = self.page(&read);
            self.step(page);
        }
    }

    /// Acks whatever comes until nothing comes any more; the order of positions.
    pub fn drain(&mut self) -> Vec<u64> {
        let mut all = Vec::new();
        loop {
            let got = self.take();
            if got.is_empty() {
                return all;
            }
            for got in got {
                all.push(got.position());
                self.ack(&got);
            }
        }
    }

    pub fn low(&self) -> u64 {
        self.group.low().0
    }

    pub fn retry(&mut self, subject: &str) {
        let key = self.group.find_parked(subject).expect("the key is parked");
        self.step(Input::Retry(key));
    }

    pub fn skip(&mut self, subject: &str) {
        let key = self.group.find_parked(subject).expect("the key is parked");
        self.step(Input::Skip(key));
    }
}

pub fn types(list: &[&str]) -> wire::Join {
    wire::Join { filter: Some(Filter::types(list)), ..join() }
}
