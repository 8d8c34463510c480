//! Which events a reader, subscriber or group wants.

use serde::{Deserialize, Serialize};

use crate::{Event, Invalid};

/// An exact text, or a prefix if it ends in `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Pattern(pub String);

impl Pattern {
    /// The prefix, if this is one.
    pub fn prefix(&self) -> Option<&str> {
        self.0.strip_suffix('*')
    }

    pub fn matches(&self, text: &str) -> bool {
        match self.prefix() {
            Some(prefix) => text.starts_with(prefix),
            None => self.0 == text,
        }
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// All given members must match; a list matches if one of its entries does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Filter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<Pattern>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subjects: Option<Vec<Pattern>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlationid: Option<Pattern>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessionid: Option<Pattern>,
    /// Only what this group has settled (paper §7). Answered by the server,
    /// which knows the groups; stores ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_by: Option<String>,
}

/// Entries of one list: enough for any service, few enough to test each event against.
const MAX_ENTRIES: usize = 1_000;

impl Filter {
    pub fn types<I: IntoIterator<Item = S>, S: AsRef<str>>(types: I) -> Self {
        Self { types: Some(types.into_iter().map(|t| t.as_ref().into()).collect()), ..Self::default() }
    }

    pub fn subject(subject: &str) -> Self {
        Self { subjects: Some(vec![subject.into()]), ..Self::default() }
    }

    pub fn matches(&self, event: &Event) -> bool {
        let any = |list: &Option<Vec<Pattern>>, text: Option<&str>| match list {
            None => true,
            Some(list) => text.is_some_and(|text| list.iter().any(|p| p.matches(text))),
        };
        any(&self.types, Some(&event.kind))
            && any(&self.subjects, event.subject.as_deref())
            && self.correlationid.as_ref().is_none_or(|p| p.matches(&event.correlationid))
            && self.sessionid.as_ref().is_none_or(|p| p.matches(&event.sessionid))
    }

    pub fn validate(&self) -> Result<(), Invalid> {
        for (name, list) in [("types", &self.types), ("subjects", &self.subjects)] {
            if list.as_ref().is_some_and(|l| l.len() > MAX_ENTRIES) {
                return Err(Invalid::new(name, format!("more than {MAX_ENTRIES} entries")));
            }
        }
        Ok(())
    }
}
