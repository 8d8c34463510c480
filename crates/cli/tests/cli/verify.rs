//! `daybook verify`: whole logs pass, damage is code 8 with its place, nothing is touched.

use std::path::Path;

use daybook_model::NewEvent;
use daybook_store::local::{LocalStore, Options};
use daybook_store::{Batch, EventStore};

use crate::{Serve, line, run};

fn verify(data: &Path) -> crate::Ran {
    run(&["verify", "--data", data.to_str().unwrap()], "")
}

#[test]
fn a_whole_log_passes_and_damage_is_code_8_with_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = Serve::start(&data);
    let lines = |from: u64| -> String {
        (from..from + 250).map(|i| line(&format!("e{i}"), &format!("k/{}", i % 7), None)).collect()
    };
    // Two writes at least: a later one proves that the earlier was durable.
    assert_eq!(serve.run(&["publish"], &lines(0)).code, 0);
    assert_eq!(serve.run(&["publish"], &lines(250)).code, 0);
    let refused = verify(&data);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("used by another process"), "{}", refused.stderr);
    drop(serve);
    let found = verify(&data).lines();
    assert_eq!((found[0]["events"].as_str(), found[0]["keys"].as_str()), (Some("500"), Some("7")));
    let segment = data.join("0000000000.segment");
    let good = std::fs::read(&segment).unwrap();
    let mut bad = good.clone();
    bad[2_000] ^= 4;
    std::fs::write(&segment, &bad).unwrap();
    let damaged = verify(&data);
    assert_eq!(damaged.code, 8, "{}", damaged.stderr);
    assert!(
        damaged.stderr.contains("0000000000.segment") && damaged.stderr.contains("offset"),
        "{}",
        damaged.stderr
    );
    let told: serde_json::Value = serde_json::from_str(&damaged.stdout).unwrap();
    assert_eq!((told["ok"].as_bool(), told["file"].as_str()), (Some(false), segment.to_str()));
    assert!(told["offset"].as_u64().is_some_and(|at| at <= 2_000), "{told}");
    assert_eq!(std::fs::read(&segment).unwrap(), bad, "it was written to");
    std::fs::write(&segment, &good).unwrap();
    assert_eq!(verify(&data).code, 0);
    assert_eq!(verify(&dir.path().join("none")).code, 1);
    // Of a newer program, and without its name: told with the file too.
    let mut newer = std::fs::read(data.join("LOG")).unwrap();
    newer[8] = 9;
    std::fs::write(data.join("LOG"), newer).unwrap();
    let told = verify(&data);
    let object: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((told.code, object["file"].as_str()), (8, data.join("LOG").to_str()), "{object}");
    std::fs::remove_file(data.join("LOG")).unwrap();
    let told = verify(&data);
    assert!(told.code == 8 && told.stderr.contains("`LOG` is missing"), "{}", told.stderr);
}

#[test]
fn a_damaged_log_is_refused_and_what_lies_before_the_damage_is_served_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut serve = Serve::start(&data);
    for part in ["a", "b"] {
        let lines: String = (0..50).map(|i| line(&format!("{part}{i}"), "k", None)).collect();
        assert_eq!(serve.run(&["publish"], &lines).code, 0);
    }
    serve.signal(rustix::process::Signal::TERM);
    // Killed before it had stopped, it could leave the last batch without its proof.
    assert!(serve.wait().success());
    drop(serve);
    let segment = data.join("0000000000.segment");
    let mut bytes = std::fs::read(&segment).unwrap();
    // In the last event, before the mark that proves it durable.
    let last = bytes.windows(3).rposition(|bytes| bytes == b"b49").unwrap();
    bytes[last] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let refused = Serve::try_start(&data, "127.0.0.1:0").err().unwrap();
    assert!(refused.contains("0000000000.segment") && refused.contains("--read-only"), "{refused}");
    let serve = Serve::try_start_with(&data, "127.0.0.1:0", &["--read-only"]).unwrap();
    let served = serve.run(&["read"], "").lines();
    let ids: Vec<_> = served.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    assert!((50..100).contains(&ids.len()) && ids[49] == "a49", "{ids:?}");
    let published = serve.run(&["publish"], &line("new", "k", None));
    assert_ne!(published.code, 0);
    assert!(published.stderr.contains("reading only"), "{}", published.stderr);
    drop(serve);
    assert!(std::fs::read(&segment).unwrap() == bytes, "it was written to");
}

/// Events `ids` at the end of the log in `dir`, and the files of the index that are due.
async fn filled(dir: &Path, ids: impl IntoIterator<Item = String>) {
    let options = || Options { run_events: 64, ..Options::default() };
    let store = LocalStore::open(dir, options()).unwrap();
    let events: Vec<_> = ids.into_iter().map(|id| NewEvent::new(id, "Noted").subject("k")).collect();
    let batch = Batch {
        events: events.into(),
        session: "test".into(),
        principal: None,
        default_source: "/test".into(),
        fallback_correlation: "c".into(),
        fence: None,
    };
    store.append(batch).await.unwrap();
    store.close().await;
    drop(store);
    std::fs::remove_dir_all(dir.join("index")).unwrap();
    LocalStore::open(dir, options()).unwrap().close().await;
}

#[tokio::test]
async fn an_index_of_another_history_is_code_8_and_its_advice_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    let named = |what: &'static str| (100..200).map(move |i| format!("{what}{i}"));
    filled(&data, named("a")).await;
    // A copy is the same log, until both go on.
    std::fs::create_dir(&other).unwrap();
    for file in std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap()) {
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), other.join(file.file_name())).unwrap();
        }
    }
    filled(&data, named("b")).await;
    filled(&other, named("x")).await;
    let whole = verify(&data);
    assert_eq!(whole.lines()[0]["runs"].as_u64(), Some(3), "{}", whole.stdout);
    std::fs::remove_dir_all(data.join("index")).unwrap();
    std::fs::rename(other.join("index"), data.join("index")).unwrap();
    let told = verify(&data);
    let wrong = data.join("index/00000000000000000064-00000000000000000128.run");
    let object: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(
        (told.code, object["ok"].as_bool(), object["file"].as_str()),
        (8, Some(false), wrong.to_str())
    );
    assert!(object["offset"].is_u64(), "{object}");
    assert!(object["reason"].as_str().unwrap().contains("position 1"), "{object}");
    for said in [wrong.to_str().unwrap(), "offset", "delete", "`daybook serve`"] {
        assert!(told.stderr.contains(said), "{said}: {}", told.stderr);
    }
    std::fs::remove_file(&wrong).unwrap();
    // What lies behind it would be removed by the server, which makes all of it again.
    let mut serve = Serve::start(&data);
    let found = serve.run(&["read", "--from", "150", "--limit", "1"], "").lines();
    assert_eq!(found[0]["id"].as_str(), Some("b150"));
    serve.signal(rustix::process::Signal::TERM);
    assert!(serve.wait().success());
    drop(serve);
    let whole = verify(&data);
    assert_eq!(whole.code, 0, "{}", whole.stderr);
}
