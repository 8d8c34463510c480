//! Going down: in good order, and not.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::{DAYBOOK, Serve, line};

/// Publishes without end until the server is gone; returns the ids that got a receipt.
fn publish_until(serve: &mut Serve, signal: Signal, after: usize) -> Vec<String> {
    let mut publish = Command::new(DAYBOOK)
        .args(["publish", "--bus", &serve.bus, "--inflight", "50"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = publish.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        for i in 0.. {
            if input.write_all(line(&format!("e{i}"), &format!("k/{}", i % 7), None).as_bytes()).is_err() {
                return;
            }
        }
    });
    let mut receipts = BufReader::new(publish.stdout.take().unwrap()).lines();
    let mut ids = Vec::new();
    let mut take = |receipts: &mut dyn Iterator<Item = std::io::Result<String>>| {
        let Some(Ok(line)) = receipts.next() else { return false };
        let Ok(receipt) = serde_json::from_str::<serde_json::Value>(&line) else { return false };
        ids.push(receipt["id"].as_str().unwrap().to_owned());
        true
    };
    for _ in 0..after {
        assert!(take(&mut receipts));
    }
    serve.signal(signal);
    let status = serve.wait();
    if signal == Signal::TERM {
        assert_eq!(status.code(), Some(0), "it did not go down in good order");
    }
    // The publisher waits for the bus to come back: it is not needed any more.
    publish.kill().unwrap();
    publish.wait().unwrap();
    while take(&mut receipts) {}
    feeder.join().unwrap();
    ids
}

fn all_there(serve: &Serve, ids: &[String]) {
    let stored: std::collections::HashSet<String> = serve
        .run(&["read"], "")
        .lines()
        .into_iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    for id in ids {
        assert!(stored.contains(id), "{id} was acknowledged and is gone");
    }
}

#[test]
fn sigterm_under_load_ends_with_0_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for round in 1..=3 {
        let ids = publish_until(&mut Serve::start(&data), Signal::TERM, 300 * round);
        all_there(&Serve::start(&data), &ids);
    }
}

#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for round in 1..=4 {
        let ids = publish_until(&mut Serve::start(&data), Signal::KILL, 250 * round);
        all_there(&Serve::start(&data), &ids);
    }
}

#[test]
fn sigint_is_as_good_as_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = Serve::start(&dir.path().join("data"));
    serve.signal(Signal::INT);
    assert_eq!(serve.wait().code(), Some(0));
}

#[test]
fn an_interrupted_publish_ends_beside_a_bus_that_does_not_answer_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let mut publish = Command::new(DAYBOOK)
        .args(["publish", "--bus", &serve.bus])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = publish.stdin.take().unwrap();
    input.write_all(line("a", "k/1", None).as_bytes()).unwrap();
    let mut receipts = BufReader::new(publish.stdout.take().unwrap()).lines();
    assert!(receipts.next().unwrap().unwrap().contains("\"a\""));
    serve.signal(Signal::STOP);
    input.write_all((line("b", "k/1", None) + &line("c", "k/1", None)).as_bytes()).unwrap();
    // The first waits for answers, which do not come; another one ends it.
    let pid = rustix::process::Pid::from_child(&publish);
    while publish.try_wait().unwrap().is_none() {
        rustix::process::kill_process(pid, Signal::INT).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    serve.signal(Signal::CONT);
    let ended = publish.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(7), "{told}");
    assert!(told.contains("interrupted at line 2: 1 stored"), "{told}");
}
