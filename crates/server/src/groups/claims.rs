//! The live deliveries of a group and their fences, for whoever publishes
//! under one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use daybook_bus::{LaneKey, MemberId, Token};
use daybook_store::Fence;

#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<Token, Claim>>);

#[derive(Debug)]
struct Claim {
    fence: Fence,
    /// Only where a session has more than one event of a key.
    key: Option<LaneKey>,
}

impl Claims {
    pub fn open(&self, token: Token, key: Option<LaneKey>) {
        self.lock().insert(token, Claim { fence: Fence::new(), key });
    }

    /// The fence of a delivery that is not settled and not lost.
    pub fn fence(&self, token: Token) -> Option<Fence> {
        self.lock().get(&token).map(|claim| claim.fence.clone())
    }

    /// Nothing more can begin under this claim; what has begun is in order.
    pub fn close(&self, token: Token) -> Option<Fence> {
        self.lock().remove(&token).map(|claim| claim.fence)
    }

    /// The session gives this event back: nothing more can begin under what it
    /// was given of the key after it, also before the group has heard of it.
    pub fn close_behind(&self, token: Token) {
        let mut claims = self.lock();
        let Some(key) = claims.get(&token).and_then(|claim| claim.key.clone()) else { return };
        claims.retain(|other, claim| {
            other.member != token.member || other.serial <= token.serial || claim.key.as_ref() != Some(&key)
        });
    }

    /// The session holds something that is neither settled nor taken back.
    pub fn any_of(&self, member: MemberId) -> bool {
        self.lock().keys().any(|token| token.member == member)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Token, Claim>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}
