//! The live deliveries of a group and their fences, for whoever publishes
//! under one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use daybook_bus::Token;
use daybook_store::Fence;

#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<Token, Fence>>);

impl Claims {
    pub fn open(&self, token: Token) {
        self.lock().insert(token, Fence::new());
    }

    /// The fence of a delivery that is not settled and not lost.
    pub fn fence(&self, token: Token) -> Option<Fence> {
        self.lock().get(&token).cloned()
    }

    /// Nothing more can begin under this claim; what has begun is in order.
    pub fn close(&self, token: Token) -> Option<Fence> {
        self.lock().remove(&token)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Token, Fence>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}
