//! Which lists of positions together hold every match of a filter.

use std::io;
use std::sync::Arc;

use daybook_model::{Filter, Pattern};

use super::hash::{Hasher, Kind, session_levels};
use super::names::{self, Keys};

/// More lists than this are slower to merge than the log is to scan.
const LISTS_MAX: usize = 64;

/// Their hashes; `None` if scanning is as good. What is likely to be rarest
/// decides. `expand` tells the names that a prefix of keys or types stands for.
pub(super) fn lists(
    hasher: Hasher,
    filter: &Filter,
    expand: impl Fn(&Keys) -> io::Result<Vec<Arc<str>>>,
) -> io::Result<Option<Vec<u64>>> {
    let exact = |kind: Kind, patterns: &[Pattern]| {
        let few = patterns.len() <= LISTS_MAX && patterns.iter().all(|p| p.prefix().is_none());
        few.then(|| patterns.iter().map(|p| hasher.hash(kind, p.0.as_str())).collect::<Vec<_>>())
    };
    let one = |kind: Kind, pattern: &Option<Pattern>| exact(kind, std::slice::from_ref(pattern.as_ref()?));
    let expanded = |kind: Kind, patterns: &[Pattern]| -> io::Result<Option<Vec<u64>>> {
        let mut hashes = Vec::new();
        for pattern in patterns {
            match pattern.prefix() {
                None => hashes.push(hasher.hash(kind, pattern.0.as_str())),
                Some(prefix) => {
                    let keys = match kind {
                        Kind::Type => Keys::types(prefix, LISTS_MAX + 1),
                        _ => Keys::subjects(prefix, None, LISTS_MAX + 1),
                    };
                    let found = expand(&keys)?;
                    hashes.extend(found.iter().map(|name| hasher.hash(kind, names::plain(name))));
                }
            }
            if hashes.len() > LISTS_MAX {
                return Ok(None);
            }
        }
        Ok(Some(hashes))
    };
    // What a session's prefix names at least: its service, or service and instance.
    let levels: Vec<&str> = filter
        .sessionid
        .as_ref()
        .and_then(Pattern::prefix)
        .map_or(Vec::new(), |prefix| session_levels(prefix).collect());
    let session = |levels: &[&str]| levels.last().map(|level| vec![hasher.hash(Kind::Session, level)]);
    let mut found = filter.subjects.as_deref().and_then(|subjects| exact(Kind::Subject, subjects));
    found = found.or_else(|| one(Kind::Correlation, &filter.correlationid));
    if let (None, Some(subjects)) = (&found, &filter.subjects) {
        found = expanded(Kind::Subject, subjects)?;
    }
    found = found.or_else(|| one(Kind::Session, &filter.sessionid));
    found = found.or_else(|| session(&levels).filter(|_| levels.len() == 2));
    if let (None, Some(types)) = (&found, &filter.types) {
        found = expanded(Kind::Type, types)?;
    }
    found = found.or_else(|| session(&levels));
    if let Some(hashes) = &mut found {
        hashes.sort_unstable();
        hashes.dedup();
    }
    Ok(found)
}
