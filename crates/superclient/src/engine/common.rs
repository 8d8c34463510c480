//! What the instances of a service share within one process: turns on keys, and
//! what they have lately stored.

use std::collections::{HashMap, VecDeque};
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

/// Events this process has stored, for its other instances.
#[derive(Default)]
pub(crate) struct Recent(Mutex<HashMap<String, VecDeque<Arc<Event>>>>);

impl Recent {
    pub fn add(&self, events: &[Event]) {
        let mut all = lock(&self.0);
        if all.len() >= KEYS {
            all.clear();
        }
        for event in events {
            let (Some(subject), Some(_)) = (&event.subject, event.sequence) else { continue };
            if !all.contains_key(subject) {
                all.insert(subject.clone(), VecDeque::new());
            }
            let Some(known) = all.get_mut(subject) else { continue };
            if known.len() == EACH {
                known.pop_front();
            }
            known.push_back(Arc::new(event.clone()));
        }
    }

    /// What is known of a key from this sequence on.
    pub fn after(&self, subject: &str, next: u64) -> Vec<Arc<Event>> {
        let all = lock(&self.0);
        let Some(known) = all.get(subject) else { return Vec::new() };
        let later = |event: &&Arc<Event>| event.sequence.is_some_and(|sequence| sequence.0 >= next);
        known.iter().filter(later).cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}
