//! What one connection has asked for and not been answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use daybook_model::{Limits, Problem};
use tokio::sync::Notify;

use crate::error::overloaded;

/// Shared by reader and answers; both run in one task, so nothing here waits.
pub(super) struct Inflight {
    events: AtomicUsize,
    bytes: AtomicUsize,
    events_max: usize,
    bytes_max: usize,
    /// Publishes under a delivery token that are not answered yet.
    by_token: Mutex<HashMap<String, usize>>,
    token_freed: Notify,
}

/// Gives the room back when the answer is there.
pub(super) struct Permit {
    inflight: Arc<Inflight>,
    events: usize,
    bytes: usize,
    token: Option<String>,
}

impl Inflight {
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            events: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            events_max: limits.inflight_events,
            bytes_max: limits.inflight_bytes,
            by_token: Mutex::default(),
            token_freed: Notify::new(),
        })
    }

    /// Room for one request. The first one always fits, however large.
    pub fn admit(
        self: &Arc<Self>,
        events: usize,
        bytes: usize,
        token: Option<&str>,
    ) -> Result<Permit, Problem> {
        let (has_events, has_bytes) = (self.events.load(Relaxed), self.bytes.load(Relaxed));
        if has_events > 0 && (has_events + events > self.events_max || has_bytes + bytes > self.bytes_max) {
            return Err(overloaded(format!(
                "{has_events} events with {has_bytes} bytes are unanswered on this connection"
            )));
        }
        self.events.fetch_add(events, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        if let Some(token) = token {
            *self.tokens().entry(token.to_owned()).or_default() += 1;
        }
        Ok(Permit { inflight: self.clone(), events, bytes, token: token.map(str::to_owned) })
    }

    /// Returns once no publish under any of `tokens` is unanswered.
    pub async fn settled(&self, tokens: &[String]) {
        loop {
            let freed = self.token_freed.notified();
            if !self.is_publishing(tokens) {
                return;
            }
            freed.await;
        }
    }

    pub fn is_publishing(&self, tokens: &[String]) -> bool {
        let busy = self.tokens();
        !busy.is_empty() && tokens.iter().any(|token| busy.contains_key(token))
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, HashMap<String, usize>> {
        self.by_token.lock().expect("no code panics while it holds this lock")
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inflight.events.fetch_sub(self.events, Relaxed);
        self.inflight.bytes.fetch_sub(self.bytes, Relaxed);
        if let Some(token) = self.token.take() {
            let mut busy = self.inflight.tokens();
            if let Some(count) = busy.get_mut(&token) {
                *count -= 1;
                if *count == 0 {
                    busy.remove(&token);
                    drop(busy);
                    self.inflight.token_freed.notify_waiters();
                }
            }
        }
    }
}
