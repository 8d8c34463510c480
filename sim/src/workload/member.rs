//! One instance of a service: takes deliveries, publishes what follows under
//! their tokens, acks. And does everything wrong that a handler may do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use daybook_client::model::wire::NackAction;
use daybook_client::{Client, Delivery, Membership, Settler};
use daybook_model::{Data, Event, NewEvent};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::{Actor, is_poison, join};
use crate::history::{GroupSpec, KeyOf, What, content};

/// How long a handler waits for the answer to its publish before it asks again.
const DEADLINE: Duration = Duration::from_secs(5);
/// Unsettled deliveries that a member takes.
const CREDIT: u64 = 8;

/// Serves until told to leave; takes up to `window` events of a key at once.
pub async fn serve(mut actor: Actor, group: &'static GroupSpec, window: u64) {
    let client = actor.connect(group.name, DEADLINE).await;
    let stall = Stall::default();
    while !actor.orders.is_leaving() {
        actor.scribe.note(What::Joining { group: group.name.to_owned(), window });
        let Ok(mut seat) = client.join(join(group, CREDIT, window)).await else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        match sit(&mut actor, group, &client, &mut seat, &stall).await {
            // The handlers still run, under claims that are lost.
            Left::Revoked(handlers) => {
                let mut handlers = handlers;
                handlers.detach_all();
            }
            Left::Told => {
                seat.leave().await;
                break;
            }
        }
    }
    client.close().await;
}

enum Left {
    Revoked(JoinSet<()>),
    Told,
}

/// Until when nothing of this member moves: a long pause of the garbage
/// collector, a machine that was suspended.
#[derive(Clone, Default)]
struct Stall(Arc<Mutex<Option<Instant>>>);

impl Stall {
    fn until(&self) -> Option<Instant> {
        *self.0.lock().expect("no code panics while it holds this lock")
    }

    fn begin(&self, length: Duration) -> Instant {
        let until = Instant::now() + length;
        *self.0.lock().expect("no code panics while it holds this lock") = Some(until);
        until
    }

    async fn over(&self) {
        while let Some(until) = self.until().filter(|until| *until > Instant::now()) {
            sleep_until(until).await;
        }
    }
}

async fn sit(
    actor: &mut Actor,
    group: &'static GroupSpec,
    client: &Client,
    seat: &mut Membership,
    stall: &Stall,
) -> Left {
    let mut handlers = JoinSet::new();
    let mut turns = Turns::default();
    loop {
        let orders = actor.orders.clone();
        let told = async move {
            while !orders.is_leaving() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            delivery = seat.next() => {
                let Some(delivery) = delivery else { return Left::Revoked(handlers) };
                actor.scribe.note(What::Delivered {
                    group: group.name.to_owned(),
                    token: delivery.token.clone(),
                    attempt: delivery.attempt,
                    position: delivery.event.position.0,
                    id: delivery.event.id.clone(),
                    content: content(&delivery.event),
                });
                let dice = crate::entropy::Dice::new(actor.dice.roll(), &delivery.event.id);
                let actor = Actor { dice, ..actor.clone() };
                let (client, settler) = (client.clone(), seat.settler());
                let turn = turns.of(group, &delivery.event);
                let handler = Handler { actor, group, client, settler, delivery, turn };
                handlers.spawn(handler.run(stall.clone()));
            }
            Some(_) = handlers.join_next(), if !handlers.is_empty() => {}
            () = told => return Left::Told,
        }
        if actor.may_fail() && actor.dice.chance(2) {
            let length = Duration::from_millis(actor.dice.between(3_000, 14_000));
            sleep_until(stall.begin(length)).await;
        }
    }
}

struct Handler {
    actor: Actor,
    group: &'static GroupSpec,
    client: Client,
    settler: Settler,
    delivery: Delivery,
    turn: Turn,
}

/// With a window there may be several handlers of one key: each does its work
/// when the one before has done its own.
#[derive(Default)]
struct Turns(HashMap<String, oneshot::Receiver<()>>);

#[derive(Default)]
struct Turn {
    before: Option<oneshot::Receiver<()>>,
    done: Option<oneshot::Sender<()>>,
}

impl Turns {
    fn of(&mut self, group: &GroupSpec, event: &Event) -> Turn {
        let key = match (group.key, &event.subject) {
            (KeyOf::Group, _) => String::new(),
            (KeyOf::Subject, Some(subject)) => subject.clone(),
            (KeyOf::Subject, None) => return Turn::default(),
        };
        let (done, ended) = oneshot::channel();
        Turn { before: self.0.insert(key, ended), done: Some(done) }
    }
}

impl Turn {
    async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            // However it ended: what is void by that is refused.
            let _ = before.await;
        }
    }

    fn over(&mut self) {
        self.done = None;
    }
}

impl Handler {
    async fn run(mut self, stall: Stall) {
        sleep(Duration::from_millis(self.actor.dice.below(20))).await;
        stall.over().await;
        // Some fail before it is their turn.
        if self.actor.dice.chance(900) {
            self.turn.come().await;
        }
        if self.actor.may_fail() && self.misbehaves().await {
            return;
        }
        self.turn.come().await;
        stall.over().await;
        let entitled = self.publish().await;
        // Acks of one key may go out in any order.
        self.turn.over();
        if self.actor.dice.chance(100) {
            sleep(Duration::from_millis(self.actor.dice.below(200))).await;
        }
        stall.over().await;
        // Some try to settle what is not theirs any more.
        if entitled || self.actor.dice.chance(300) {
            self.ack().await;
        }
    }

    /// True: the delivery is done with.
    async fn misbehaves(&mut self) -> bool {
        let token = self.delivery.token.clone();
        let subject = self.delivery.event.subject.as_deref().unwrap_or_default();
        if self.group.name == "fragile" && is_poison(subject) {
            self.give_back("retry");
            self.settler.nack(&token, NackAction::Retry, None, Some("it fails".into())).await;
            return true;
        }
        match self.actor.dice.below(1_000) {
            0..20 => {
                self.give_back("retry");
                let delay =
                    self.actor.dice.chance(500).then(|| Duration::from_millis(self.actor.dice.below(500)));
                self.settler.nack(&token, NackAction::Retry, delay, None).await;
                true
            }
            20..23 => {
                self.actor.scribe.note(What::Skip {
                    group: self.group.name.to_owned(),
                    token: token.clone(),
                    position: self.delivery.event.position.0,
                });
                self.settler.nack(&token, NackAction::Skip, None, None).await;
                true
            }
            23..26 => {
                self.give_back("park");
                self.settler.nack(&token, NackAction::Park, None, None).await;
                true
            }
            // It is asked whether it still works, and the client says yes.
            26..34 => {
                sleep(Duration::from_millis(self.actor.dice.between(1_500, 3_500))).await;
                false
            }
            _ => false,
        }
    }

    fn give_back(&self, how: &str) {
        self.actor.scribe.note(What::GivenBack {
            group: self.group.name.to_owned(),
            token: self.delivery.token.clone(),
            position: self.delivery.event.position.0,
            how: how.to_owned(),
        });
    }

    /// Publishes the effect, whose id follows from its cause. False: the claim is gone.
    async fn publish(&self) -> bool {
        let cause = &self.delivery.event;
        let id = format!("{}<{}", self.group.name, cause.id);
        let mut effect = NewEvent::new(id.clone(), self.group.effects).caused_by(cause);
        effect.subject = cause.subject.as_ref().map(|subject| format!("{}<{subject}", self.group.name));
        effect.data = Data::json(&cause.position.0).ok();
        loop {
            let publish = self.client.publish_with(vec![effect.clone()], Some(&self.delivery.token));
            match self.actor.call(vec![id.clone()], Some(&self.delivery.token), publish).await {
                Some(Ok(_)) => return true,
                Some(Err(code)) if code == "fenced" => return false,
                Some(Err(_)) | None => sleep(Duration::from_millis(100)).await,
            }
            if self.actor.orders.is_leaving() {
                return false;
            }
        }
    }

    async fn ack(&mut self) {
        let (group, token) = (self.group.name.to_owned(), self.delivery.token.clone());
        let position = self.delivery.event.position.0;
        let times = if self.actor.dice.chance(50) { 2 } else { 1 };
        for time in 0..times {
            if time > 0 {
                sleep(Duration::from_millis(self.actor.dice.below(2_000))).await;
            }
            self.actor.scribe.note(What::Ack { group: group.clone(), token: token.clone(), position });
            if self.actor.dice.chance(500) {
                self.settler.ack(&token).await;
            } else if self.settler.ack_durable(&token).await {
                self.actor.scribe.note(What::Acked { group: group.clone(), token: token.clone(), position });
            }
        }
    }
}
