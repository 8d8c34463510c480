//! Delivery tokens as text: `run-group-member-serial`, hexadecimal.
//!
//! The run is another one with each start of the server, so that a token of an
//! earlier process is never taken for one of this one. It begins with the time,
//! so that of two tokens of a group one can see which was given later, as long as
//! the clock did not go back between. Nothing in a token is a secret: what it may
//! do is looked up, and bound to the session that got it.

use std::time::{SystemTime, UNIX_EPOCH};

use daybook_bus::{MemberId, Token};
use uuid::Uuid;

use crate::planted::{Bug, has};

/// The part that all tokens of one group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Issuer {
    pub run: u64,
    pub group: u64,
}

/// Chance decides below the millisecond: a machine whose clock was set back, or
/// begins at the same time with each boot, has been at this one before.
pub(super) fn new_run() -> u64 {
    if has(Bug::RunsRepeat) {
        return 1;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let chance = Uuid::new_v4().as_u64_pair().1;
    (since.as_millis() as u64) << CHANCE_BITS | chance & ((1 << CHANCE_BITS) - 1)
}

/// The other 44 are milliseconds until the year 2527.
const CHANCE_BITS: u32 = 20;

impl Issuer {
    pub fn write(self, token: Token) -> String {
        format!("{:x}-{:x}-{:x}-{:x}", self.run, self.group, token.member.0, token.serial)
    }

    /// The token, if this issuer wrote exactly this text.
    pub fn read(self, text: &str) -> Option<Token> {
        let (issuer, token) = parse(text)?;
        (issuer == self && self.write(token) == text).then_some(token)
    }
}

pub(super) fn parse(text: &str) -> Option<(Issuer, Token)> {
    let mut parts = text.split('-').map(|part| u64::from_str_radix(part, 16).ok());
    let (run, group, member, serial) = (parts.next()??, parts.next()??, parts.next()??, parts.next()??);
    let token = Token { member: MemberId(member), serial };
    parts.next().is_none().then_some((Issuer { run, group }, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_text_of_this_run_and_group_is_a_token() {
        let issuer = Issuer { run: 0xfeed, group: 3 };
        let token = Token { member: MemberId(17), serial: u64::MAX };
        let text = issuer.write(token);
        assert_eq!(issuer.read(&text), Some(token));
        for other in [Issuer { run: 1, group: 3 }, Issuer { run: 0xfeed, group: 4 }] {
            assert_eq!(other.read(&text), None);
        }
        for wrong in
            ["", "-", "1", "feed-3-11", "feed-3-11-1-1", "FEED-3-11-1", "feed-03-11-1", "feed-3-+11-1", "x"]
        {
            assert_eq!(issuer.read(wrong), None, "{wrong}");
        }
    }
}
