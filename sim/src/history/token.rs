//! Which of two deliveries the server gave later.
//!
//! Members see deliveries late: one that hung in the network for ten seconds is
//! older than the one that another member has long settled. The text of a token
//! tells (`crates/server/src/groups/tokens.rs`): runs of the server begin with
//! the time, and a group numbers its deliveries.

/// Ordered as the server gave them, within one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    run: u64,
    group: u64,
    serial: u64,
}

impl Token {
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.split('-').map(|part| u64::from_str_radix(part, 16).ok()).collect();
        match parts[..] {
            [Some(run), Some(group), Some(_member), Some(serial)] => Some(Self { run, group, serial }),
            _ => None,
        }
    }
}
