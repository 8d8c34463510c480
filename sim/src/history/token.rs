//! Which of two deliveries the server gave later.
//!
//! Members see deliveries late: one that hung in the network for ten seconds is
//! older than the one that another member has long settled. The text of a token
//! tells (`crates/server/src/groups/tokens.rs`): runs of the server begin with
//! the time, and a group numbers its deliveries. Where clocks are wrong, the
//! server's own notes tell which run came first.

use std::collections::HashMap;

use super::{Record, What};

/// Ordered as the server gave them, within one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    run: u64,
    group: u64,
    serial: u64,
    member: u64,
}

/// Runs of the server in their order, if it was noted.
#[derive(Default)]
pub struct Runs(HashMap<u64, u64>);

impl Runs {
    pub fn noted(records: &[Record]) -> Self {
        let runs = records.iter().filter_map(|record| match record.what {
            What::Run { run } => Some(run),
            _ => None,
        });
        Self(runs.zip(1..).collect())
    }

    pub fn token(&self, text: &str) -> Option<Token> {
        let token = Token::parse(text)?;
        let run = if self.0.is_empty() { token.run } else { *self.0.get(&token.run)? };
        Some(Token { run, ..token })
    }
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.split('-').map(|part| u64::from_str_radix(part, 16).ok()).collect();
        match parts[..] {
            [Some(run), Some(group), Some(member), Some(serial)] => Some(Self { run, group, serial, member }),
            _ => None,
        }
    }

    /// Both were given to one session.
    pub fn same_session(self, other: Self) -> bool {
        (self.run, self.group, self.member) == (other.run, other.group, other.member)
    }
}
