//! Who is signed in, and whether a request comes from our own page.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use crate::Bank;
use crate::problem::Problem;

/// Browsers keep Secure cookies of loopback addresses, plain HTTP or not.
const COOKIE: &str = "__Host-daybook";
const IDLE: Duration = Duration::from_secs(15 * 60);
/// Failed sign-ins of one name before it has to wait.
const FAILURES_MAX: u32 = 5;
const FAILURES_WINDOW: Duration = Duration::from_secs(60);
/// Names remembered for throttling.
const NAMES_MAX: usize = 10_000;

#[derive(Clone, Debug)]
pub(crate) struct SignedIn {
    pub user: String,
    pub username: String,
    pub roles: Vec<String>,
}

impl SignedIn {
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|known| known == role)
    }
}

#[derive(Default)]
pub(crate) struct Sessions {
    /// By hash: whoever reads our memory cannot sign in with it.
    open: Mutex<HashMap<[u8; 32], (SignedIn, Instant)>>,
    failures: Mutex<HashMap<String, (u32, Instant)>>,
    /// Changes when somebody signs out: sockets look whether it was their session.
    ended: watch::Sender<()>,
}

/// Which session a request belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Key([u8; 32]);

impl Sessions {
    /// A fresh session; the cookie to set. An old one of this browser ends.
    pub fn begin(&self, who: SignedIn, headers: &HeaderMap) -> String {
        self.end(headers);
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut open = self.open.lock().expect("no code panics while it holds this lock");
        open.retain(|_, (_, seen)| seen.elapsed() < IDLE);
        open.insert(hash(&secret), (who, Instant::now()));
        format!("{COOKIE}={secret}; Path=/; HttpOnly; Secure; SameSite=Strict")
    }

    pub fn end(&self, headers: &HeaderMap) {
        if let Some(secret) = cookie(headers) {
            self.open.lock().expect("no code panics while it holds this lock").remove(&hash(&secret));
            self.ended.send_replace(());
        }
    }

    pub fn ended(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }

    /// Looking is no sign of life: a session that only listens falls idle.
    pub fn is_open(&self, key: Key) -> bool {
        let open = self.open.lock().expect("no code panics while it holds this lock");
        open.get(&key.0).is_some_and(|(_, seen)| seen.elapsed() < IDLE)
    }

    pub fn expired_cookie() -> String {
        format!("{COOKIE}=; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age=0")
    }

    fn find(&self, headers: &HeaderMap) -> Option<SignedIn> {
        let key = hash(&cookie(headers)?);
        let mut open = self.open.lock().expect("no code panics while it holds this lock");
        let (who, seen) = open.get_mut(&key)?;
        if seen.elapsed() >= IDLE {
            open.remove(&key);
            return None;
        }
        *seen = Instant::now();
        Some(who.clone())
    }

    /// Refuses a name that failed too often lately.
    pub fn throttle(&self, name: &str) -> Result<(), Problem> {
        let failures = self.failures.lock().expect("no code panics while it holds this lock");
        match failures.get(&name.to_lowercase()) {
            Some((count, since)) if *count >= FAILURES_MAX && since.elapsed() < FAILURES_WINDOW => {
                Err(Problem::new(429, "too_many_attempts", "too many failed sign-ins; wait a minute"))
            }
            _ => Ok(()),
        }
    }

    pub fn failed(&self, name: &str) {
        let mut failures = self.failures.lock().expect("no code panics while it holds this lock");
        failures.retain(|_, (_, since)| since.elapsed() < FAILURES_WINDOW);
        if failures.len() < NAMES_MAX {
            failures.entry(name.to_lowercase()).or_insert((0, Instant::now())).0 += 1;
        }
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, secret)| secret.to_owned())
}

impl FromRequestParts<Arc<Bank>> for Key {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Bank>) -> Result<Self, Infallible> {
        Ok(Self(hash(&cookie(&parts.headers).unwrap_or_default())))
    }
}

impl FromRequestParts<Arc<Bank>> for SignedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, bank: &Arc<Bank>) -> Result<Self, Problem> {
        let found = bank.sessions.find(&parts.headers);
        found.ok_or_else(|| Problem::new(401, "not_signed_in", "sign in first"))
    }
}

/// Writes and sockets must come from our own page, or from no browser at all.
pub(crate) async fn same_origin(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let guarded = !reads || headers.contains_key(header::UPGRADE);
    if guarded && is_foreign(headers) {
        return Problem::new(403, "foreign_origin", "the request comes from another site").into_response();
    }
    next.run(request).await
}

fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return true;
    }
    match text("origin") {
        Some(origin) => origin.split_once("://").map(|(_, host)| host) != text("host"),
        None => false,
    }
}
