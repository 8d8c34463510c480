//! One script and the files it requires.
//!
//! # Promises
//! 1. A file is read once: every machine made of the same bundle runs the same text.
//! 2. Only files beside the script or below are read, and only while it loads.
//!
//! # Not here
//! When a changed file makes a new bundle: `reload.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sha2::{Digest, Sha256};

use crate::StartError;

#[derive(Debug)]
pub(crate) struct Bundle {
    /// The script's, as errors name it.
    pub name: String,
    pub text: String,
    /// Where it requires from; `None`: it has no file and requires nothing.
    dir: Option<PathBuf>,
    modules: Mutex<BTreeMap<String, String>>,
}

impl Bundle {
    pub fn of_text(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), dir: None, modules: Mutex::default() }
    }

    pub fn read(path: &Path) -> Result<Self, StartError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| StartError::Read { path: path.to_owned(), source })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dir = path.parent().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
        Ok(Self { name, text, dir: dir.map(Path::to_owned), modules: Mutex::default() })
    }

    /// Name and text of what `require(asked)` means; the error says why it means nothing.
    pub fn module(&self, asked: &str) -> Result<(String, String), String> {
        let plain = asked.strip_prefix("./").unwrap_or(asked);
        let plain = plain.strip_suffix(".lua").unwrap_or(plain);
        let is_name = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
        };
        if !plain.split('/').all(is_name) {
            return Err(format!(
                "require(\"{asked}\"): only files beside the script can be required, like require(\"./prices\")"
            ));
        }
        let name = format!("{plain}.lua");
        let mut modules = self.modules.lock().expect("no code panics while it holds this lock");
        if let Some(text) = modules.get(&name) {
            return Ok((name, text.clone()));
        }
        let Some(dir) = &self.dir else {
            return Err(format!("require(\"{asked}\"): a script without a file of its own requires nothing"));
        };
        let path = dir.join(&name);
        // A link must not lead out of the bundle.
        let inside = path.canonicalize().ok().zip(dir.canonicalize().ok());
        let text = match inside {
            Some((path, dir)) if path.starts_with(&dir) => {
                std::fs::read_to_string(&path).map_err(|error| error.to_string())
            }
            Some(_) => Err("it lies outside of the script's directory".into()),
            None => Err("there is no such file".into()),
        };
        let text =
            text.map_err(|why| format!("require(\"{asked}\"): cannot read {}: {why}", path.display()))?;
        modules.insert(name.clone(), text.clone());
        Ok((name, text))
    }

    /// The text of one of its files, by the name that errors give.
    pub fn source(&self, name: &str) -> Option<String> {
        if name == self.name {
            return Some(self.text.clone());
        }
        self.modules.lock().expect("no code panics while it holds this lock").get(name).cloned()
    }

    /// The files behind it, as far as it was loaded.
    pub fn files(&self) -> Vec<PathBuf> {
        let Some(dir) = &self.dir else { return Vec::new() };
        let modules = self.modules.lock().expect("no code panics while it holds this lock");
        std::iter::once(&self.name).chain(modules.keys()).map(|name| dir.join(name)).collect()
    }

    /// Whether one of these occurs in any of the texts; whole once it was loaded.
    pub fn mentions(&self, words: &[&str]) -> bool {
        let modules = self.modules.lock().expect("no code panics while it holds this lock");
        let mut texts = modules.values().chain(std::iter::once(&self.text));
        texts.any(|text| words.iter().any(|word| text.contains(word)))
    }

    /// Changes when any of the texts does; whole once it was loaded.
    pub fn hash(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(self.text.as_bytes());
        for (name, text) in self.modules.lock().expect("no code panics while it holds this lock").iter() {
            digest.update(name.as_bytes());
            digest.update(text.as_bytes());
        }
        digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
