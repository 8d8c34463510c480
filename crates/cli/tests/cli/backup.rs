//! `daybook backup` and `restore`: while it serves, after a kill, into nothing else.

use std::io::Write;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::{DAYBOOK, Serve, line, run};

fn lines(from: usize, count: usize) -> String {
    (from..from + count).map(|i| line(&format!("e{i}"), &format!("k/{}", i % 11), None)).collect()
}

#[test]
fn a_copy_taken_while_it_serves_opens_as_the_log_and_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy, restored) = (dir.path().join("data"), dir.path().join("copy"), dir.path().join("new"));
    let [data_text, copy_text, restored_text] = [&data, &copy, &restored].map(|path| path.to_str().unwrap());
    let serve = Serve::start(&data);
    assert_eq!(serve.run(&["publish"], &lines(0, 3_000)).code, 0);
    let refused = run(&["backup", copy_text, "--data", data_text], "");
    assert!(refused.code == 1 && refused.stderr.contains("--bus"), "{}", refused.stderr);
    let backup = serve.run(&["backup", copy_text, "--data", data_text], "");
    assert_eq!((backup.code, backup.stderr.contains("3000 events")), (0, true), "{}", backup.stderr);
    // Again: only what is new.
    assert_eq!(serve.run(&["publish"], &lines(3_000, 500)).code, 0);
    assert_eq!(serve.run(&["backup", copy_text, "--data", data_text], "").code, 0);
    let events = serve.run(&["read"], "").stdout;
    drop(serve);
    assert_eq!(run(&["verify", "--data", copy_text], "").lines()[0]["events"], "3500");
    assert_eq!(run(&["restore", copy_text, restored_text], "").code, 0);
    let serve = Serve::start(&restored);
    assert_eq!(serve.run(&["read"], "").stdout, events);
    assert_eq!(serve.run(&["publish"], &lines(3_500, 1)).code, 0);
    drop(serve);
    assert_eq!(run(&["backup", copy_text, "--data", restored_text], "").code, 0);
    // The old one goes on too: from here it is another history.
    let serve = Serve::start(&data);
    assert_eq!(serve.run(&["publish"], &lines(9_000, 3)).code, 0);
    drop(serve);
    let diverged = run(&["backup", copy_text, "--data", data_text], "");
    assert_eq!(diverged.code, 8, "{}", diverged.stderr);
    assert!(diverged.stderr.contains("history"), "{}", diverged.stderr);
    assert_eq!(run(&["restore", copy_text, restored_text], "").code, 1);
    let other = dir.path().join("other");
    drop(Serve::start(&other));
    assert_eq!(run(&["backup", copy_text, "--data", other.to_str().unwrap()], "").code, 1);
}

#[test]
fn a_follower_keeps_up_through_kills_of_both() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    for round in 0..3 {
        let mut serve = Serve::start(&data);
        let mut follow = Command::new(DAYBOOK)
            .args(["backup", copy.to_str().unwrap(), "--follow", "--bus", &serve.bus, "--data"])
            .arg(&data)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut publish = Command::new(DAYBOOK)
            .args(["publish", "--bus", &serve.bus])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = publish.stdin.take().unwrap();
        for part in 0..20 {
            input.write_all(lines(round * 10_000 + part * 100, 100).as_bytes()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        follow.kill().unwrap();
        follow.wait().unwrap();
        serve.signal(Signal::KILL);
        serve.wait();
        publish.kill().unwrap();
        publish.wait().unwrap();
    }
    let verified = run(&["verify", "--data", copy.to_str().unwrap()], "").lines();
    let copied: u64 = verified[0]["events"].as_str().unwrap().parse().unwrap();
    assert!(copied > 1_000, "only {copied} events were copied");
    // A prefix of the log, byte for byte what is read.
    let serve = Serve::start(&data);
    let log = serve.run(&["read", "--until", &copied.to_string()], "").stdout;
    drop(serve);
    let serve = Serve::start(&copy);
    assert_eq!(serve.run(&["read"], "").stdout, log);
}
