//! GET routes, as a shadow asks them: what the two scripts would answer.
//!
//! # Promises
//! Each route without a name in its path is asked once, each with one name for the
//! ids of the last subjects. Views hold what the shadow's events made; nothing a
//! route does leaves its machine.
//!
//! # Not here
//! Routes with several names, queries and bodies: nobody knows what to ask. Streams.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use daybook_model::{Event, Timestamp};

use crate::http::{Incoming, routes};
use crate::machine::{CALL, Call, Kind, Machine, Overlay, RouteKey, describe};
use crate::report;

/// Ids that a route with a name is asked for.
const IDS_MAX: usize = 5;

/// Request → answer, both as a person would read them.
pub(super) async fn ask(
    machine: &Machine,
    events: &[Arc<Event>],
    tables: &Overlay,
) -> BTreeMap<String, String> {
    let now = events.last().map_or(Timestamp(0), |event| event.recordedtime);
    let ids = ids(events);
    let mut answers = BTreeMap::new();
    for (key, path) in gets(machine) {
        for request in requests(&path, &ids) {
            let shown = format!("GET {}", request.path);
            let call = Rc::new(Call {
                correlation: Some("shadow".into()),
                overlay: tables.clone().into(),
                scratch: true,
                ..Call::new(Kind::Route, shown.clone(), now)
            });
            let run = routes::run(machine, &call, &key, &request, None);
            let answer = match CALL.scope(call.clone(), run).await {
                Ok(answer) => format!("{} {}", answer.status, answer.body.unwrap_or_default()),
                Err(error) => format!("an error: {}", report::headline(&describe(&error))),
            };
            machine.shared.outlet.take_recorded();
            answers.insert(shown, answer);
        }
    }
    answers
}

fn gets(machine: &Machine) -> Vec<(RouteKey, String)> {
    let definitions = machine.shared.definitions.borrow();
    let gets = definitions.routes.iter().filter(|route| route.method == "GET" && route.stream.is_none());
    gets.map(|route| (route.key(), route.path.clone())).collect()
}

/// Ids of the last subjects, the newest first.
fn ids(events: &[Arc<Event>]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for subject in events.iter().rev().filter_map(|event| event.subject.as_deref()) {
        let id = subject.split_once('/').map_or(subject, |(_, id)| id);
        if ids.len() < IDS_MAX && !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    ids
}

fn requests(path: &str, ids: &[String]) -> Vec<Incoming> {
    let names: Vec<&str> = path.split('/').filter_map(|segment| segment.strip_prefix(':')).collect();
    let request = |path: String, params: Vec<(String, String)>| Incoming {
        method: "GET".into(),
        path,
        params,
        ..Incoming::default()
    };
    match names[..] {
        [] => vec![request(path.to_owned(), Vec::new())],
        [name] => ids
            .iter()
            .map(|id| request(path.replace(&format!(":{name}"), id), vec![(name.to_owned(), id.clone())]))
            .collect(),
        _ => Vec::new(),
    }
}
