//! What a group is: said by its first member, durable, the same for all.

use daybook_model::wire::{Join, Key, Mode, Poison};
use daybook_model::{Event, Filter, Invalid};
use serde::{Deserialize, Serialize};

use crate::LaneKey;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub filter: Filter,
    pub mode: Mode,
    pub key: Key,
    pub poison: Poison,
    /// Deliveries of one event before `poison` applies.
    pub max_attempts: u32,
    /// Time for one delivery until the session is asked whether it still works.
    pub max_processing_ms: u64,
}

const MAX_ATTEMPTS: u32 = 10;
const MAX_PROCESSING_MS: u64 = 30_000;
/// A day: longer work belongs into several events.
const MAX_PROCESSING_MS_LIMIT: u64 = 86_400_000;

impl Options {
    /// The options that `join` asks for; what it omits has its default.
    pub fn of(join: &Join) -> Result<Self, Invalid> {
        let mode = join.mode.unwrap_or_default();
        let poison = match mode {
            Mode::Keyed => Poison::Park,
            Mode::Exclusive => Poison::Stop,
        };
        let defaults = Self {
            filter: Filter::default(),
            mode,
            key: Key::default(),
            poison,
            max_attempts: MAX_ATTEMPTS,
            max_processing_ms: MAX_PROCESSING_MS,
        };
        defaults.amended(join)
    }

    /// These options with what `join` names put in place; checked.
    pub fn amended(&self, join: &Join) -> Result<Self, Invalid> {
        let all = Self {
            filter: join.filter.clone().unwrap_or_else(|| self.filter.clone()),
            mode: join.mode.unwrap_or(self.mode),
            key: join.key.unwrap_or(self.key),
            poison: join.poison.unwrap_or(self.poison),
            max_attempts: join.max_attempts.unwrap_or(self.max_attempts),
            max_processing_ms: join.max_processing_ms.unwrap_or(self.max_processing_ms),
        };
        all.filter.validate().map_err(|invalid| invalid.within("filter"))?;
        if all.filter.settled_by.is_some() {
            return Err(Invalid::new("filter.settled_by", "is for reads: a group settles for itself"));
        }
        if all.max_attempts == 0 {
            return Err(Invalid::new("max_attempts", "must be at least 1"));
        }
        if !(1..=MAX_PROCESSING_MS_LIMIT).contains(&all.max_processing_ms) {
            return Err(Invalid::new("max_processing_ms", format!("must be 1 to {MAX_PROCESSING_MS_LIMIT}")));
        }
        if all.mode == Mode::Exclusive && all.poison == Poison::Park {
            let reason =
                "an exclusive group is one key: it can `stop` or `skip`, parking would stop it for good";
            return Err(Invalid::new("poison", reason));
        }
        Ok(all)
    }

    /// The member of `join` that contradicts these options.
    pub fn contradiction(&self, join: &Join) -> Option<Invalid> {
        let name = if join.filter.as_ref().is_some_and(|f| *f != self.filter) {
            "filter"
        } else if join.mode.is_some_and(|m| m != self.mode) {
            "mode"
        } else if join.key.is_some_and(|k| k != self.key) {
            "key"
        } else if join.poison.is_some_and(|p| p != self.poison) {
            "poison"
        } else if join.max_attempts.is_some_and(|n| n != self.max_attempts) {
            "max_attempts"
        } else if join.max_processing_ms.is_some_and(|n| n != self.max_processing_ms) {
            "max_processing_ms"
        } else {
            return None;
        };
        Some(Invalid::new(
            name,
            "differs from what the group has; it can change only while the group has no members",
        ))
    }

    pub fn key_of(&self, event: &Event) -> LaneKey {
        LaneKey::of(event, self.mode, self.key)
    }

    /// Reserved types are Daybook's own records: only who names one gets it.
    pub(crate) fn wants(&self, event: &Event) -> bool {
        let named = || self.filter.types.iter().flatten().any(|pattern| pattern.0 == event.kind);
        self.filter.matches(event) && (!event.kind.starts_with("daybook.") || named())
    }
}
