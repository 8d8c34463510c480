//! Scripts that change while they run.
//!
//! # Promises
//! A script that changed is loaded beside the running one, and its tests are run.
//! If both go well, each instance ends what it is handling, then goes on with the
//! new one; if not, the old one runs on and whoever asked is told why.
//!
//! # Not here
//! What a shadow compares: `shadow.rs`. Running tests: the caller's, since they
//! need a bus (`Config::reload`).

mod probes;
mod shadow;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::bundle::Bundle;
use crate::host::Directory;
use crate::http::Table;
use crate::machine::Machine;
use crate::{Limits, StartError, config};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(300);

pub(crate) struct Source {
    pub bundle: Arc<Bundle>,
    /// `None`: it has no file and never changes.
    pub path: Option<PathBuf>,
    /// What ran before it: a watched file is taken before anybody can ask for a shadow.
    pub before: Option<Arc<Bundle>>,
}

impl Source {
    pub fn of_text(name: &str, text: &str) -> Self {
        Self { bundle: Arc::new(Bundle::of_text(name, text)), path: None, before: None }
    }

    pub fn read(path: &Path) -> Result<Self, StartError> {
        Ok(Self { bundle: Arc::new(Bundle::read(path)?), path: Some(path.to_owned()), before: None })
    }
}

/// Loads every script once; the services' names in their order, and all routes.
pub(crate) fn check(bundles: &[Arc<Bundle>], limits: Limits) -> Result<(Vec<String>, Table), StartError> {
    let mut names: Vec<String> = Vec::new();
    let mut table = Table::default();
    for bundle in bundles {
        let machine = Machine::load(bundle, limits)?;
        let definitions = machine.shared.definitions.borrow();
        if names.contains(&definitions.name) {
            return Err(StartError::Twice(definitions.name.clone()));
        }
        for route in &definitions.routes {
            table.add(&definitions.name, route)?;
        }
        names.push(definitions.name.clone());
    }
    Ok((names, table))
}

/// What a shadow leaves out, for whoever reads what it found.
pub const NOT_COMPARED: &str = "svc.kv (empty for both), streams, routes other than GET, timers not due yet";

/// Somebody wants a script to be taken now.
pub(crate) struct Request {
    pub service: String,
    /// Run both scripts over this many of the last events first.
    pub shadow: Option<u64>,
    /// Only say what would happen.
    pub dry: bool,
    pub reply: oneshot::Sender<Option<Outcome>>,
}

/// What became of a script that was to take over.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    pub service: String,
    pub script: String,
    /// Hash of the script that runs now; it is on every event it publishes.
    pub scripthash: String,
    pub swapped: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Events that the shadow saw, if there was one.
    pub shadowed: Option<u64>,
    /// What the two scripts did differently.
    pub differences: Vec<String>,
}

pub(crate) struct Reload {
    pub sources: Vec<Source>,
    pub texts: Vec<watch::Sender<Arc<Bundle>>>,
    pub directory: Arc<Directory>,
    pub limits: Limits,
    pub how: config::Reload,
}

type Stamps = HashMap<PathBuf, Option<SystemTime>>;

impl Reload {
    /// Looks at the files for ever, and does what is asked for.
    pub async fn run(mut self, mut asked: mpsc::Receiver<Request>) {
        // Nothing yet: one may have changed since it was read at the start.
        let mut seen: Vec<Stamps> = vec![Stamps::new(); self.sources.len()];
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick(), if self.how.watch => {
                    for (i, seen) in seen.iter_mut().enumerate() {
                        let now = stamps(&self.sources[i]);
                        if now == *seen {
                            continue;
                        }
                        // Absent for a moment: editors write beside and rename.
                        if now.values().all(Option::is_some) {
                            *seen = now;
                            let shadow = (self.how.shadow > 0).then_some(self.how.shadow);
                            self.take(i, shadow, false, true).await;
                        }
                    }
                }
                request = asked.recv() => {
                    let Some(Request { service, shadow, dry, reply }) = request else { return };
                    let position = self.position_of(&service);
                    let outcome = match position {
                        Some(i) => Some(self.take(i, shadow, dry, false).await),
                        None => None,
                    };
                    let _ = reply.send(outcome);
                }
            }
        }
    }

    fn position_of(&self, service: &str) -> Option<usize> {
        self.directory.order.iter().position(|known| known == service)
    }

    /// Checks, tests, compares, swaps. `quiet` says nothing if nothing has changed.
    async fn take(&mut self, i: usize, shadow: Option<u64>, dry: bool, quiet: bool) -> Outcome {
        let old = self.sources[i].bundle.clone();
        let mut outcome = Outcome {
            service: self.directory.order[i].clone(),
            script: old.name.clone(),
            scripthash: old.hash(),
            ..Outcome::default()
        };
        let taken = match self.try_take(i, shadow, dry, &mut outcome).await {
            Ok(taken) => taken,
            Err(reason) => {
                tracing::error!(target: "script", "{reason}\n  the old script runs on");
                outcome.reason = Some(reason);
                return outcome;
            }
        };
        if let Some(events) = outcome.shadowed {
            let (script, found) = (&outcome.script, outcome.differences.len());
            tracing::info!(target: "script", "{script}: shadow: {events} events, {found} differences; not compared: {NOT_COMPARED}");
        }
        for difference in &outcome.differences {
            tracing::info!(target: "script", "{}: {difference}", outcome.script);
        }
        match taken {
            Some(hash) if dry => {
                let would = if hash == outcome.scripthash { "was" } else { "would be" };
                outcome.reason = Some(format!("it {would} taken as {hash}; this was a dry run"));
            }
            Some(hash) => {
                outcome.swapped = true;
                outcome.scripthash = hash;
                let (script, hash) = (&outcome.script, &outcome.scripthash);
                tracing::info!(target: "script", "{script}: the new script ({hash}) takes over from the next event on");
            }
            None => {
                outcome.reason = Some("nothing has changed".into());
                if !quiet {
                    tracing::info!(target: "script", "{}: nothing has changed", outcome.script);
                }
            }
        }
        outcome
    }

    /// `Ok(None)`: it is the script that runs already.
    async fn try_take(
        &mut self,
        i: usize,
        shadow: Option<u64>,
        dry: bool,
        outcome: &mut Outcome,
    ) -> Result<Option<String>, String> {
        let Some(path) = self.sources[i].path.clone() else { return Ok(None) };
        let mut old = self.sources[i].bundle.clone();
        let new = Arc::new(Bundle::read(&path).map_err(|error| error.to_string())?);
        let mut bundles: Vec<_> = self.sources.iter().map(|source| source.bundle.clone()).collect();
        bundles[i] = new.clone();
        // Compiling takes its time; nobody else shall wait for it.
        let limits = self.limits;
        let checked = tokio::task::spawn_blocking(move || check(&bundles, limits)).await;
        let (names, table) =
            checked.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if new.hash() == old.hash() {
            match (dry && shadow.is_some(), &self.sources[i].before) {
                (true, Some(before)) => old = before.clone(),
                _ => return Ok(None),
            }
        }
        if names[i] != outcome.service {
            return Err(format!(
                "{} was the service `{}` and is `{}` now: another service is started anew",
                new.name, outcome.service, names[i]
            ));
        }
        if let Some(tests) = &self.how.tests {
            tests(path).await?;
        }
        if let Some(events) = shadow {
            let client = self.directory.services[&outcome.service].client.clone();
            let compared = shadow::compare(client, &self.directory, old, new.clone(), limits, events).await?;
            outcome.shadowed = Some(compared.events);
            outcome.differences = compared.differences;
        }
        let hash = new.hash();
        if !dry {
            self.sources[i].before = Some(std::mem::replace(&mut self.sources[i].bundle, new.clone()));
            // In this order: an instance that does not know a route knows that it must change.
            self.texts[i].send_replace(new);
            self.directory.replace_table(table);
        }
        Ok(Some(hash))
    }
}

fn stamps(source: &Source) -> Stamps {
    if source.path.is_none() {
        return Stamps::new();
    }
    let stamp = |path: PathBuf| {
        let modified = std::fs::metadata(&path).ok().and_then(|data| data.modified().ok());
        (path, modified)
    };
    source.bundle.files().into_iter().map(stamp).collect()
}
