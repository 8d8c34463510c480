//! What the instances of a service share within one process: turns on keys, and
//! what they have lately stored.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use daybook_model::Event;
use tokio::sync::OwnedMutexGuard;

/// Beyond this, what nobody uses is dropped.
const KEYS: usize = 20_000;
/// Events remembered of one key: an instance that is further behind asks the bus.
const EACH: usize = 16;

#[derive(Default)]
pub(crate) struct Common {
    pub turns: Turns,
    pub recent: Recent,
}

/// Who may write a key now: the instances of a host do not fight each other.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    fn of(&self, subject: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = lock(&self.0);
        if let Some(turn) = all.get(subject) {
            return turn.clone();
        }
        if all.len() >= KEYS {
            all.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        all.entry(subject.to_owned()).or_default().clone()
    }

    /// Turns on all of these keys, which must be sorted: so no two wait for each
    /// other. The flag tells whether there was somebody to wait for.
    pub async fn take(&self, subjects: &[String]) -> (Vec<OwnedMutexGuard<()>>, bool) {
        let mut held = Vec::with_capacity(subjects.len());
        let mut waited = false;
        for subject in subjects {
            let turn = self.of(subject);
            match turn.clone().try_lock_owned() {
                Ok(guard) => held.push(guard),
                Err(_) => {
                    waited = true;
                    held.push(turn.lock_owned().await);
                }
            }
        }
        (held, waited)
    }
}

/// The last events of the keys that this process wrote or read, for its other
/// instances. Two halves: what is not touched again goes with the old one.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    young: HashMap<String, Last>,
    old: HashMap<String, Last>,
}

/// By sequence: two instances may tell of one key in any order.
type Last = BTreeMap<u64, Arc<Event>>;

impl Recent {
    /// Of what was just stored: the keys that it was decided on, and those that
    /// somebody here knows. Nobody asks for the others, like a transaction that is over.
    pub fn add_wanted(&self, events: &[Arc<Event>], decided_on: impl Fn(&str) -> bool) {
        let wanted = |event: &&Arc<Event>| {
            let Some(subject) = event.subject.as_deref() else { return false };
            decided_on(subject) || lock(&self.0).knows(subject)
        };
        let wanted: Vec<_> = events.iter().filter(wanted).cloned().collect();
        self.add(&wanted);
    }

    pub fn add(&self, events: &[Arc<Event>]) {
        let mut all = lock(&self.0);
        for event in events {
            let (Some(subject), Some(sequence)) = (&event.subject, event.sequence) else { continue };
            let known = all.of(subject);
            known.insert(sequence.0, event.clone());
            if known.len() > EACH {
                known.pop_first();
            }
        }
    }

    /// What is known of a key from this sequence on, without a gap.
    pub fn after(&self, subject: &str, next: u64) -> Vec<Arc<Event>> {
        let all = lock(&self.0);
        let Some(known) = all.young.get(subject).or_else(|| all.old.get(subject)) else { return Vec::new() };
        let later = known.range(next..).zip(next..);
        later
            .take_while(|((sequence, _), wanted)| *sequence == wanted)
            .map(|((_, event), _)| event.clone())
            .collect()
    }
}

impl Halves {
    fn knows(&self, subject: &str) -> bool {
        self.young.contains_key(subject) || self.old.contains_key(subject)
    }

    fn of(&mut self, subject: &str) -> &mut Last {
        if !self.young.contains_key(subject) {
            if self.young.len() >= KEYS {
                self.old = std::mem::take(&mut self.young);
            }
            let known = self.old.remove(subject).unwrap_or_default();
            self.young.insert(subject.to_owned(), known);
        }
        self.young.get_mut(subject).expect("it was just put there")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}
