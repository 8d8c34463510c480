//! What publishers, members and followers do, in both worlds.
//!
//! They use the product's own client and nothing else, and note what they do.
//! They are as bad as clients are allowed to be: slow, forgetful, late, double.

mod follower;
mod member;
mod operator;
mod publisher;
mod rebuilder;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use daybook_client::{Builder, Client, Join};
use daybook_model::wire::Mode;
use daybook_model::{Filter, Pattern};
use tokio::time::sleep;

use crate::entropy::Dice;
use crate::history::{GroupSpec, KeyOf, Scribe, What};

pub use follower::follow;
pub use member::serve;
pub use operator::{QUIET_ROUNDS, mend};
pub use publisher::publish;
pub use rebuilder::rebuild;

/// The groups of every run: keys wait for themselves, everything waits for
/// everything, and keys that fail until somebody mends the handler.
pub const GROUPS: [GroupSpec; 3] = [
    group("ledger", KeyOf::Subject, "Work", "Effect.ledger", 1_000),
    group("audit", KeyOf::Group, "Work.a", "Effect.audit", 1_000),
    group("fragile", KeyOf::Subject, "Work", "Effect.fragile", 3),
];

const fn group(
    name: &'static str,
    key: KeyOf,
    types: &'static str,
    effects: &'static str,
    max_attempts: u32,
) -> GroupSpec {
    GroupSpec { name, key, types, effects, max_attempts }
}

/// Keys whose handlers fail in `fragile` until it is calm.
pub fn is_poison(subject: &str) -> bool {
    subject.ends_with('3')
}

/// How a member asks for its seat.
pub fn join(group: &GroupSpec, credit: u64, window: u64) -> Join {
    Join {
        window: (window > 1).then_some(window),
        filter: Some(Filter { types: Some(vec![Pattern(format!("{}*", group.types))]), ..Filter::default() }),
        mode: (group.key == KeyOf::Group).then_some(Mode::Exclusive),
        max_attempts: Some(group.max_attempts),
        max_processing: Some(Duration::from_millis(2_000)),
        ..Join::new(group.name, credit)
    }
}

/// What an actor has.
#[derive(Clone)]
pub struct Actor {
    pub scribe: Scribe,
    pub dice: Dice,
    /// A builder that knows the way to the bus.
    pub dial: Arc<dyn Fn() -> Builder + Send + Sync>,
    pub orders: Orders,
    pub calls: Arc<AtomicU64>,
    /// Different keys that publishers use.
    pub keys: u64,
    /// Pause between two publishes at most, in milliseconds.
    pub pause_ms: u64,
    /// A handler without fault: then nothing has a reason to come twice.
    pub faultless: bool,
}

/// What an actor is told from outside.
#[derive(Clone, Default)]
pub struct Orders {
    /// No more mischief and nothing new: what is open shall end.
    pub calm: Arc<AtomicBool>,
    /// Go in good order.
    pub leave: Arc<AtomicBool>,
}

impl Actor {
    /// Whether something may be done wrong now.
    fn may_fail(&self) -> bool {
        !self.faultless && !self.orders.is_calm()
    }
}

impl Orders {
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    pub fn is_leaving(&self) -> bool {
        self.leave.load(Ordering::SeqCst)
    }
}

impl Actor {
    pub fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::SeqCst)
    }

    /// Connects, however long it takes.
    async fn connect(&self, service: &str, deadline: Duration) -> Client {
        loop {
            let builder = (self.dial)().service(service).instance(self.instance());
            match builder.publish_deadline(deadline).connect().await {
                Ok(client) => return client,
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// The part of the name that survives a restart.
    fn instance(&self) -> String {
        self.scribe.who().split('#').next().unwrap_or_default().to_owned()
    }

    /// One publish with its notes. `None`: nobody knows.
    async fn call(
        &self,
        ids: Vec<String>,
        token: Option<&str>,
        publish: impl Future<Output = Result<daybook_client::Receipt, daybook_client::PublishError>>,
    ) -> Option<Result<daybook_client::Receipt, String>> {
        let call = self.next_call();
        self.scribe.note(What::Publish { call, ids, token: token.map(str::to_owned) });
        match publish.await {
            Ok(receipt) => {
                let told = |event: &daybook_model::wire::Receipted| crate::history::Told {
                    id: event.id.clone(),
                    position: event.position.0,
                    sequence: event.sequence.map(|sequence| sequence.0),
                    duplicate: event.duplicate,
                };
                let events = receipt.events.iter().map(told).collect();
                self.scribe.note(What::Stored { call, events });
                Some(Ok(receipt))
            }
            Err(error) if error.code() == daybook_model::Code::UnknownOutcome => {
                self.scribe.note(What::Unknown { call });
                None
            }
            Err(error) => {
                let code = error.code().to_string();
                self.scribe.note(What::Refused { call, code: code.clone() });
                Some(Err(code))
            }
        }
    }
}
