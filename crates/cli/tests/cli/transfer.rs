//! `daybook export` and `import`: a log goes through a file and is the same
//! again; whatever interrupts it, nothing is lost and nothing is there twice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::small_disk::SmallDisk;
use crate::{DAYBOOK, Ran, Serve, line};

/// Posts JSON that does not fit into a line.
fn post(serve: &Serve, body: &str) {
    let host = serve.bus.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/cloudevents+json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

/// One of everything: batches, binary data, data with line breaks, no subject.
fn fill(serve: &Serve) {
    post(
        serve,
        "{\"specversion\":\"1.0\",\"id\":\"broken\",\"type\":\"T\",\"subject\":\"k/1\",\"data\":{\r\n  \"a\" : 1.00,\n\"b\":\"x\\ny\" } }",
    );
    let batch = r#"[{"specversion":"1.0","id":"b1","type":"B","subject":"k/2","data":[ 1,2 ]},{"specversion":"1.0","id":"b2","type":"B","subject":"k/2","causationid":"b1"},{"specversion":"1.0","id":"b3","type":"B","source":"/else","data_base64":"AP8B"}]"#;
    let odd = r#"{"specversion":"1.0","id":"odd","type":"T","source":"urn:x","subject":"k/ü","time":"2020-02-29T23:59:59.5+01:00","correlationid":"c","dataschema":"urn:y","flag":true,"level":-7,"zone":"ü","data":null}"#;
    let many: String = (0..2_500).map(|i| line(&format!("e{i}"), &format!("k/{}", i % 11), None)).collect();
    assert_eq!(
        serve.run(&["publish"], &format!("{batch}\n{odd}\n{many}{}\n", batch.replace("\"b", "\"c"))).code,
        0
    );
}

/// What an import must keep of each line.
fn kept(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let strip = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        for set_anew in ["sessionid", "recordedtime"] {
            assert!(event.as_object_mut().unwrap().remove(set_anew).is_some());
        }
        event
    };
    text.lines().map(strip).collect()
}

/// The raw `data` members: serde_json would hide a space.
fn data(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| line.split_once("\"data").map_or("", |(_, data)| data).to_owned()).collect()
}

fn summary(ran: &Ran) -> (String, String, String) {
    let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
    let text = |name: &str| summary[name].as_str().unwrap().to_owned();
    (text("stored"), text("known"), text("refused"))
}

fn counts(stored: u64, known: u64, refused: u64) -> (String, String, String) {
    (stored.to_string(), known.to_string(), refused.to_string())
}

#[test]
fn an_exported_log_imported_into_an_empty_one_is_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    let (first_text, second_text) = (first.to_str().unwrap(), second.to_str().unwrap());
    let old = Serve::start(&dir.path().join("old"));
    fill(&old);
    let exported = old.run(&["export", first_text], "");
    assert_eq!((exported.code, exported.stdout.as_str()), (0, ""), "{}", exported.stderr);
    assert!(exported.stderr.contains("2508 events"), "{}", exported.stderr);
    // To stdout it is the same, and no file is overwritten.
    assert_eq!(old.run(&["export"], "").stdout, std::fs::read_to_string(&first).unwrap());
    let again = old.run(&["export", first_text], "");
    assert!(again.code == 1 && again.stderr.contains("--resume"), "{}", again.stderr);
    let new = Serve::start(&dir.path().join("new"));
    let imported = new.run(&["import", first_text], "");
    assert_eq!((imported.code, summary(&imported)), (0, counts(2_508, 0, 0)), "{}", imported.stderr);
    let moved: Value = serde_json::from_str(&imported.stdout).unwrap();
    assert_eq!((moved["moved"].as_str(), moved["disordered"].as_str()), (Some("0"), Some("0")));
    assert_eq!(new.run(&["export", second_text], "").code, 0);
    assert_eq!(kept(&second), kept(&first));
    assert_eq!(data(&second), data(&first));
    // Again: nothing twice.
    let imported = new.run(&["import", first_text], "");
    assert_eq!((imported.code, summary(&imported)), (0, counts(0, 2_508, 0)), "{}", imported.stderr);
}

#[test]
fn an_interrupted_export_goes_on_behind_its_last_whole_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let text = file.to_str().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    fill(&serve);
    let whole = serve.run(&["export"], "").stdout;
    for cut in [0, 1, 100, whole.len() / 2, whole.len() - 1, whole.len()] {
        std::fs::write(&file, &whole.as_bytes()[..cut]).unwrap();
        let ran = serve.run(&["export", text, "--resume"], "");
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), whole, "cut at {cut}");
    }
    // Of another log: one that ends sooner, and one that has something else there.
    let other = Serve::start(&dir.path().join("other"));
    for events in ["", &line("another", "k", None)] {
        assert_eq!(other.run(&["publish"], events).code, 0);
        std::fs::write(&file, whole.lines().next().unwrap().to_owned() + "\n").unwrap();
        let refused = other.run(&["export", text, "--resume"], "");
        assert!(refused.code == 1 && refused.stderr.contains("another log"), "{}", refused.stderr);
    }
    let some = serve.run(&["export", "--from", "10", "--until", "12"], "").stdout;
    assert_eq!(some, whole.lines().skip(10).take(2).map(|line| format!("{line}\n")).collect::<String>());
}

#[test]
fn an_export_to_a_full_disk_names_the_file_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path().join("disk")) else { return };
    let file = disk.path().join("file");
    let text = file.to_str().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let events: String = (0..400).map(|i| line(&format!("e{i}"), "k", None)).collect();
    let events = events.replace("\"n\":1", &format!("\"n\":\"{}\"", "x".repeat(4_000)));
    assert_eq!(serve.run(&["publish"], &events).code, 0);
    // Again is no cure, and changes nothing.
    for args in [&["export", text][..], &["export", text, "--resume"]] {
        let full = serve.run(args, "");
        assert_eq!(full.code, 1, "{}", full.stderr);
        for told in ["No space left", text, &format!("go on with: daybook export {text} --resume")] {
            assert!(full.stderr.contains(told), "{told} is not in: {}", full.stderr);
        }
    }
    disk.enlarge();
    let resumed = serve.run(&["export", text, "--resume"], "");
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    assert!(!resumed.stderr.contains("400 events"), "it began anew: {}", resumed.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), serve.run(&["export"], "").stdout);
}

#[test]
fn refused_lines_are_named_by_number_and_half_a_batch_stays_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let serve = Serve::start(&dir.path().join("old"));
    fill(&serve);
    let whole = serve.run(&["export"], "").stdout;
    let mut lines: Vec<&str> = whole.lines().collect();
    // The batch b1 b2 b3 stands in lines 2 to 4.
    lines.remove(2);
    lines.insert(0, "rubbish");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let new = Serve::start(&dir.path().join("new"));
    let ran = new.run(&["import", file.to_str().unwrap()], "");
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    assert!(ran.stderr.contains("line 1: no CloudEvent"), "{}", ran.stderr);
    assert!(ran.stderr.contains("line 3: the batch at position 1 has 3 events"), "{}", ran.stderr);
    // `k/2` has lost its first two: its later events do not fit any more.
    assert!(ran.stderr.contains("k/2"), "{}", ran.stderr);
    let events = new.run(&["read"], "").lines();
    assert!(events.iter().all(|event| event["subject"] != "k/2"));
    // Nothing of it: code of the first refusal.
    let none = new.run(&["import", "-"], "rubbish\n");
    assert_eq!(none.code, 2, "{}", none.stderr);
    for (args, code) in
        [(&["import", "/no/such/file"][..], 1), (&["import"], 2), (&["export", "--resume"], 2)]
    {
        let ran = new.run(args, "");
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn an_import_stopped_by_ctrl_c_says_where_to_go_on_and_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let lines: Vec<String> =
        (0..4_000).map(|i| line(&format!("e{i}"), &format!("k/{}", i % 7), None)).collect();
    std::fs::write(&file, lines.concat()).unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let mut import = Command::new(DAYBOOK)
        .args(["import", "-", "--inflight", "10", "--bus", &serve.bus])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = import.stdin.take().unwrap();
    input.write_all(lines[..1_500].concat().as_bytes()).unwrap();
    while serve.run(&["read", "--from", "700"], "").lines().is_empty() {}
    rustix::process::kill_process(rustix::process::Pid::from_child(&import), Signal::INT).unwrap();
    let output: Ran = import.wait_with_output().unwrap().into();
    drop(input);
    assert_eq!(output.code, 7, "{}", output.stderr);
    let (_, rest) = output.stderr.split_once("--from-line ").unwrap();
    let next: u64 = rest.trim().parse().unwrap();
    assert_eq!(serve.run(&["read"], "").lines().len() as u64, next - 1);
    let ran = serve.run(&["import", file.to_str().unwrap(), "--from-line", &next.to_string()], "");
    assert_eq!((ran.code, summary(&ran)), (0, counts(4_001 - next, 0, 0)), "{}", ran.stderr);
    let ids: Vec<_> = serve.run(&["read"], "").lines().iter().map(|e| e["id"].clone()).collect();
    assert!(ids.iter().enumerate().all(|(i, id)| *id == format!("e{i}")), "they stand in another order");
}

#[test]
fn a_server_killed_in_the_middle_of_an_import_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("file"));
    let lines: String = (0..6_000).map(|i| line(&format!("e{i}"), &format!("k/{}", i % 7), None)).collect();
    std::fs::write(&file, &lines).unwrap();
    let mut serve = Serve::start(&data);
    let address = serve.bus.strip_prefix("http://").unwrap().to_owned();
    let import = Command::new(DAYBOOK)
        .args(["import", file.to_str().unwrap(), "--bus", &serve.bus, "--inflight", "20"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for round in 1..=3 {
        let seen = (round * 500).to_string();
        while serve.run(&["read", "--from", &seen, "--limit", "1"], "").lines().is_empty() {}
        serve.signal(Signal::KILL);
        serve.wait();
        serve = Serve::try_start(&data, &address).unwrap();
    }
    let ran: Ran = import.wait_with_output().unwrap().into();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ids: Vec<_> = serve.run(&["read"], "").lines().iter().map(|e| e["id"].clone()).collect();
    assert_eq!(ids.len(), 6_000);
    assert!(ids.iter().enumerate().all(|(i, id)| *id == format!("e{i}")), "they stand in another order");
}
