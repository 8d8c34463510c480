//! `daybook verify`: whole logs pass, damage is code 8 with its place, nothing is touched.

use std::path::Path;

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
}
