//! Names in byte order: keys, and before them, behind a character that no key
//! may hold, the types.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use daybook_model::Position;

use super::mem::{KeyHead, Mem};
use super::run::Run;

const TYPE: char = '\u{1}';
/// Before every key: they hold no control characters.
const BEFORE_KEYS: &str = "\u{1f}";

/// Which names are asked for.
pub(crate) struct Keys {
    prefix: String,
    after: Option<String>,
    limit: usize,
}

impl Keys {
    pub fn subjects(prefix: &str, after: Option<&str>, limit: usize) -> Self {
        let after = after.filter(|after| *after > BEFORE_KEYS).unwrap_or(BEFORE_KEYS);
        Self { prefix: prefix.to_owned(), after: Some(after.to_owned()), limit }
    }

    pub fn types(prefix: &str, limit: usize) -> Self {
        Self { prefix: format!("{TYPE}{prefix}"), after: None, limit }
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    fn from(&self) -> Bound<&str> {
        match self.after.as_deref() {
            Some(after) if after >= self.prefix.as_str() => Bound::Excluded(after),
            _ => Bound::Included(&self.prefix),
        }
    }

    fn is_before(&self, key: &str) -> bool {
        match self.from() {
            Bound::Excluded(after) => key <= after,
            Bound::Included(first) => key < first,
            Bound::Unbounded => false,
        }
    }

    pub(super) fn of_mem(&self, mem: &Mem, out: &mut BTreeMap<Arc<str>, KeyHead>) {
        if let Some(prefix) = self.prefix.strip_prefix(TYPE).filter(|_| self.after.is_none()) {
            let types = mem.types.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
            for (name, last) in types.take_while(|(name, _)| name.starts_with(prefix)).take(self.limit) {
                let (name, head) = of_type(name, *last);
                newest(out, &name, head);
            }
            return;
        }
        let keys = mem.keys_from(self.from()).take_while(|(key, _)| key.starts_with(&self.prefix));
        keys.take(self.limit).for_each(|(key, head)| newest(out, key, *head));
    }

    pub(super) fn of_run(&self, run: &Run, out: &mut BTreeMap<Arc<str>, KeyHead>) -> io::Result<()> {
        let first = match self.from() {
            Bound::Included(key) | Bound::Excluded(key) => key,
            Bound::Unbounded => "",
        };
        let mut taken = 0;
        for i in run.key_block_of(first)..run.key_blocks() {
            for entry in run.key_block(i)? {
                if self.is_before(&entry.text) {
                    continue;
                }
                if taken == self.limit || !entry.text.starts_with(&self.prefix) {
                    return Ok(());
                }
                taken += 1;
                newest(out, entry.text.as_str(), run.head_of(&entry));
            }
        }
        Ok(())
    }
}

/// How a type stands among the keys.
pub(super) fn of_type(name: &str, last: Position) -> (String, KeyHead) {
    (format!("{TYPE}{name}"), KeyHead { next: last.0 + 1, last })
}

/// The name as events have it.
pub(super) fn plain(name: &str) -> &str {
    name.strip_prefix(TYPE).unwrap_or(name)
}

fn newest(out: &mut BTreeMap<Arc<str>, KeyHead>, key: &str, head: KeyHead) {
    match out.get_mut(key) {
        Some(known) if known.next >= head.next => {}
        Some(known) => *known = head,
        None => drop(out.insert(key.into(), head)),
    }
}
