//! Publish, read, tail, trace, schema.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::{DAYBOOK, Serve, line, run};

#[test]
fn what_was_published_is_read_back_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let data = r#"{"z":1.50,"a":[1,  2],"big":123456789012345678901234567890}"#;
    let event = format!(
        r#"{{"specversion":"1.0","id":"odd","source":"/t","type":"Odd","subject":"k/ü","data":{data}}}"#
    );
    let receipts = serve.run(&["publish"], &event).lines();
    assert_eq!((receipts[0]["id"].as_str(), receipts[0]["position"].as_str()), (Some("odd"), Some("0")));
    let raw = serve.run(&["read", "--output", "raw"], "");
    assert_eq!(raw.stdout.trim_end(), data);
    let events = serve.run(&["read", "--subject", "k/ü"], "").lines();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["type"], "Odd");
}

#[test]
fn publishing_the_same_lines_again_stores_nothing_and_answers_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let lines: String = (0..50).map(|i| line(&format!("e{i}"), "k/1", Some(i))).collect();
    let first = serve.run(&["publish"], &lines).lines();
    let again = serve.run(&["publish"], &lines).lines();
    assert_eq!(first.len(), 50);
    for (first, again) in first.iter().zip(&again) {
        assert_eq!(first["position"], again["position"]);
        assert_eq!(again["duplicate"], true);
    }
    assert_eq!(serve.run(&["read"], "").lines().len(), 50);
}

#[test]
fn read_selects_by_position_type_and_limit_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let lines: String = (0..20).map(|i| line(&format!("e{i}"), &format!("k/{}", i % 2), None)).collect();
    assert_eq!(serve.run(&["publish"], &lines).code, 0);
    let ids = |args: &[&str]| -> Vec<String> {
        let events = serve.run(&[&["read"], args].concat(), "").lines();
        events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&["--from", "5", "--until", "8"]), ["e5", "e6", "e7"]);
    assert_eq!(ids(&["--subject", "k/1", "--limit", "2"]), ["e1", "e3"]);
    assert_eq!(ids(&["--reverse", "--limit", "2"]), ["e19", "e18"]);
    assert_eq!(ids(&["--type", "Other"]), [""; 0]);
}

#[test]
fn trace_shows_what_caused_what_and_says_when_there_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let cause = r#"{"specversion":"1.0","id":"a","source":"/t","type":"Asked","correlationid":"c1"}"#;
    let effect = r#"{"specversion":"1.0","id":"b","source":"/t","type":"Answered","causationid":"a"}"#;
    assert_eq!(serve.run(&["publish"], &format!("{cause}\n{effect}\n")).code, 0);
    let trace = serve.run(&["trace", "c1", "--output", "table"], "");
    let kinds: Vec<_> = trace.stdout.lines().map(|line| line.contains("└─")).collect();
    assert_eq!(kinds, [false, true], "{}", trace.stdout);
    let nothing = serve.run(&["trace", "c2"], "");
    assert_eq!(nothing.code, 3);
    assert!(nothing.stderr.contains("`c2`"), "{}", nothing.stderr);
}

#[test]
fn tail_prints_events_as_they_come_and_stops_at_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    assert_eq!(serve.run(&["publish"], &line("old", "k/1", None)).code, 0);
    let mut tail = Command::new(DAYBOOK)
        .args(["tail", "--from", "start", "--limit", "2", "--bus", &serve.bus])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains(r#""old""#));
    assert_eq!(serve.run(&["publish"], &line("new", "k/1", None)).code, 0);
    assert!(lines.next().unwrap().unwrap().contains(r#""new""#));
    assert_eq!(tail.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_whose_reader_went_away_ends_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let lines: String = (0..5_000).map(|i| line(&format!("e{i}"), "k/1", None)).collect();
    assert_eq!(serve.run(&["publish"], &lines).code, 0);
    let mut read = Command::new(DAYBOOK)
        .args(["read", "--bus", &serve.bus])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(read.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let output = read.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn schemas_are_json_documents_that_name_themselves() {
    for (what, member) in [("openapi", "openapi"), ("asyncapi", "asyncapi"), ("json-schema", "$schema")] {
        let schema = run(&["schema", what], "");
        assert_eq!(schema.code, 0, "{}", schema.stderr);
        let document: serde_json::Value = serde_json::from_str(&schema.stdout).unwrap();
        assert!(document[member].is_string(), "{what} has no `{member}`");
    }
}
