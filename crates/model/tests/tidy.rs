//! The arrows of ARCHITECTURE.md hold, and files stay readable.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Crate → what of ours it may depend on.
const ARROWS: [(&str, &[&str]); 9] = [
    ("crates/model", &[]),
    ("crates/log", &[]),
    ("crates/store", &["model", "log"]),
    ("crates/bus", &["model"]),
    ("crates/server", &["model", "store", "bus"]),
    ("crates/client", &["model"]),
    ("crates/superclient", &["model", "client"]),
    ("apps/bank/web", &[]),
    ("crates/cli", &["model", "store", "bus", "server", "client", "superclient", "bank-web"]),
];

const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The crate's sources, without its tests.
fn sources(krate: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join(krate).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// The names under `[dependencies]`.
fn dependencies(krate: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let names = section.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    for (krate, allowed) in ARROWS {
        for dependency in dependencies(krate) {
            if let Some(ours) = dependency.strip_prefix("daybook-") {
                assert!(allowed.contains(&ours), "{krate} must not depend on {ours}");
            }
        }
    }
}

#[test]
fn the_cores_know_no_runtime_and_no_clock() {
    for krate in ["crates/model", "crates/log", "crates/bus"] {
        assert!(!dependencies(krate).contains(&"tokio".to_owned()), "{krate} must not know tokio");
    }
    for krate in ["crates/model", "crates/bus"] {
        for (path, text) in sources(krate) {
            for clock in ["Instant::now", "SystemTime::now", "thread_rng", "rand::"] {
                assert!(!text.contains(clock), "{} reads {clock}", path.display());
            }
        }
    }
}

#[test]
fn only_the_server_maps_codes_to_http_statuses() {
    for krate in ["crates/model", "crates/log", "crates/store", "crates/bus", "crates/client"] {
        for (path, text) in sources(krate) {
            assert!(!text.contains("StatusCode"), "{} knows HTTP status codes", path.display());
        }
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for (krate, _) in ARROWS {
        for (path, text) in sources(krate) {
            let lines = text.lines().count();
            assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
        }
    }
}
