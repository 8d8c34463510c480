//! Scripts that change while they run.
//!
//! # Promises
//! A file that changed is loaded beside the running script. If it loads, each
//! instance ends what it is handling, then goes on with the new one; if not, the
//! old one runs on and the log says why.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::host::Directory;
use crate::http::Table;
use crate::machine::Machine;
use crate::{Limits, StartError};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(300);

pub(crate) struct Source {
    pub name: String,
    pub text: String,
    /// `None`: it has no file and never changes.
    pub path: Option<PathBuf>,
}

pub(crate) fn read(path: &Path) -> Result<String, StartError> {
    std::fs::read_to_string(path).map_err(|source| StartError::Read { path: path.to_owned(), source })
}

/// Loads every script once; the services' names in their order, and all routes.
pub(crate) fn check(sources: &[Source], limits: Limits) -> Result<(Vec<String>, Table), StartError> {
    let mut names: Vec<String> = Vec::new();
    let mut table = Table::default();
    for source in sources {
        let machine = Machine::load(&source.name, &source.text, limits)?;
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

pub(crate) struct Reload {
    pub sources: Vec<Source>,
    pub texts: Vec<watch::Sender<Arc<str>>>,
    pub directory: Arc<Directory>,
    pub limits: Limits,
}

impl Reload {
    /// Looks at the files for ever.
    pub async fn run(mut self) {
        if self.sources.iter().all(|source| source.path.is_none()) {
            return;
        }
        let stamp = |source: &Source| -> Option<SystemTime> {
            std::fs::metadata(source.path.as_ref()?).ok()?.modified().ok()
        };
        // Nothing yet: one may have changed since it was read at the start.
        let mut seen: Vec<Option<SystemTime>> = vec![None; self.sources.len()];
        loop {
            tokio::time::sleep(LOOK).await;
            for (i, seen) in seen.iter_mut().enumerate() {
                let now = stamp(&self.sources[i]);
                // Absent for a moment: editors write beside and rename.
                if now.is_some() && now != *seen {
                    *seen = now;
                    self.changed(i).await;
                }
            }
        }
    }

    async fn changed(&mut self, i: usize) {
        let Some(path) = self.sources[i].path.clone() else { return };
        let text = match read(&path) {
            Ok(text) if text == self.sources[i].text => return,
            Ok(text) => text,
            Err(error) => return tracing::error!(%error, "the old script runs on"),
        };
        let old = std::mem::replace(&mut self.sources[i].text, text);
        // Compiling takes its time; nobody else shall wait for it.
        let (sources, limits) = (std::mem::take(&mut self.sources), self.limits);
        let checked = tokio::task::spawn_blocking(move || {
            let checked = check(&sources, limits);
            (sources, checked)
        });
        let Ok((sources, checked)) = checked.await else { return };
        self.sources = sources;
        let same_service = |names: &[String]| self.directory.services.contains_key(&names[i]);
        match checked {
            Ok((names, table)) if same_service(&names) => {
                self.directory.replace_table(table);
                self.texts[i].send_replace(self.sources[i].text.as_str().into());
            }
            Ok((names, _)) => {
                tracing::error!(
                    script = self.sources[i].name,
                    "it is service `{}` now: start it anew; the old script runs on",
                    names[i]
                );
                self.sources[i].text = old;
            }
            Err(error) => {
                tracing::error!("{error}; the old script runs on");
                self.sources[i].text = old;
            }
        }
    }
}
