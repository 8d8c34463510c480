//! Other services in a test: what they answer, and what they were asked.
//!
//! # Promises
//! No request of a test leaves it. One without an answer given fails the test by
//! name, and what was asked can be looked at. A request that a repeat makes again
//! under its own key counts once, as it would for a service that keeps the key.
//!
//! # Not here
//! What `svc:http` makes of an answer: `http/outgoing.rs`.

use std::cell::RefCell;

use serde_json::{Value as Json, json};

use crate::http::Answer;
use crate::http::outgoing::Asked;

#[derive(Default)]
pub(crate) struct StandIn {
    given: RefCell<Vec<Given>>,
    asked: RefCell<Vec<Asked>>,
}

/// An answer of the test; the last one given for a path counts.
pub(crate) struct Given {
    pub method: String,
    pub service: String,
    /// `:name` stands for any segment.
    pub path: String,
    /// `None`: the service cannot be reached.
    pub answer: Option<(u16, Json)>,
}

impl StandIn {
    pub fn give(&self, given: Given) {
        self.given.borrow_mut().push(given);
    }

    /// The answer, or why there is none.
    pub fn ask(&self, asked: Asked) -> Result<Answer, String> {
        let Asked { method, service, path, .. } = &asked;
        let (plain, what) = (path.split('?').next().unwrap_or(path), format!("{method} {service} {path}"));
        let answer = {
            let given = self.given.borrow();
            let fits = |given: &&Given| {
                given.method == *method
                    && given.service == *service
                    && (given.path == *path || fits(&given.path, plain))
            };
            given.iter().rev().find(fits).map(|given| given.answer.clone())
        };
        let known = asked.key.is_some() && self.asked.borrow().iter().any(|known| known.key == asked.key);
        if !known {
            self.asked.borrow_mut().push(asked);
        }
        match answer {
            Some(Some((status, body))) => {
                Ok(Answer { status, body: Some(body), is_problem: false, headers: Vec::new() })
            }
            Some(None) => Err(format!("svc:http: {what}: the test says that it cannot be reached")),
            None => Err(format!(
                "svc:http: no other service runs in a test, and none answers {what}: give it one with t:given_http"
            )),
        }
    }

    pub fn count(&self) -> usize {
        self.asked.borrow().len()
    }

    /// What was asked after the first `from`.
    pub fn since(&self, from: usize) -> Vec<Json> {
        let shown = |asked: &Asked| json!({ "method": asked.method, "service": asked.service, "path": asked.path, "body": asked.body });
        self.asked.borrow().iter().skip(from).map(shown).collect()
    }
}

fn fits(given: &str, path: &str) -> bool {
    let (given, path): (Vec<_>, Vec<_>) = (given.split('/').collect(), path.split('/').collect());
    let same = |(given, asked): (&&str, &&str)| given == asked || given.starts_with(':');
    given.len() == path.len() && given.iter().zip(&path).all(same)
}
