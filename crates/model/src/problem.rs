//! What went wrong, in the protocol's own words (RFC 9457 plus `code`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Stable codes; clients branch on these and on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Another writer took this sequence value; nothing was stored.
    Conflict,
    /// The id is known with other content, or only part of a batch is known.
    IdConflict,
    /// The input does not have the form of the protocol.
    Invalid,
    TooLarge,
    Unauthorized,
    Forbidden,
    NotFound,
    /// The delivery that this publish belongs to is no longer the session's.
    Fenced,
    /// Too much unanswered; try again after `retry_after_ms`.
    Overloaded,
    /// Not stored, and cannot be now.
    Unavailable,
    /// May or may not be stored: publish the same ids again to find out.
    UnknownOutcome,
}

impl Code {
    pub const ALL: [Self; 11] = [
        Self::Conflict,
        Self::IdConflict,
        Self::Invalid,
        Self::TooLarge,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Fenced,
        Self::Overloaded,
        Self::Unavailable,
        Self::UnknownOutcome,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::IdConflict => "id-conflict",
            Self::Invalid => "invalid",
            Self::TooLarge => "too-large",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::Fenced => "fenced",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::UnknownOutcome => "unknown-outcome",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Conflict => "The sequence value is taken",
            Self::IdConflict => "The id is known with other content",
            Self::Invalid => "The request is not valid",
            Self::TooLarge => "The request is too large",
            Self::Unauthorized => "Who are you?",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "Not found",
            Self::Fenced => "The delivery is no longer yours",
            Self::Overloaded => "Too much at once",
            Self::Unavailable => "Not stored, and cannot be now",
            Self::UnknownOutcome => "May or may not be stored",
        }
    }

    /// Whether the same request can succeed later without change.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Overloaded | Self::Unavailable | Self::UnknownOutcome)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An RFC 9457 problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    pub title: String,
    pub code: Code,
    pub detail: String,
    /// Set over HTTP only, by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The member at fault, as a path: `events[3].subject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// The key in conflict; never the value it has (paper §4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

fn about_blank() -> String {
    "about:blank".into()
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("https://daybook.dev/problems/{code}"),
            title: code.title().into(),
            code,
            detail: detail.into(),
            status: None,
            member: None,
            subject: None,
            retry_after_ms: None,
        }
    }

    #[must_use]
    pub fn member(mut self, member: impl Into<String>) -> Self {
        self.member = Some(member.into());
        self
    }

    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    #[must_use]
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

/// A member that does not have the form it must have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member}{}{reason}", if .member.is_empty() { "" } else { ": " })]
pub struct Invalid {
    /// Empty for the whole.
    pub member: String,
    pub reason: String,
    /// Too large rather than malformed.
    pub too_large: bool,
}

impl Invalid {
    pub fn new(member: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { member: member.into(), reason: reason.into(), too_large: false }
    }

    /// The same, seen from one level up: `events[2]` + `subject`.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.member =
            if self.member.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.member) };
        self
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let code = if invalid.too_large { Code::TooLarge } else { Code::Invalid };
        let problem = Self::new(code, invalid.to_string());
        if invalid.member.is_empty() { problem } else { problem.member(invalid.member) }
    }
}
