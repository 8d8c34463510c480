//! The whole binary while the kernel refuses: `strace` makes the K-th call fail.
//! Either the process ends, or the call was one that only refuses for a while and
//! publishing resumes; what was acknowledged is there. Says so where `strace` cannot run.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{DAYBOOK, Serve, line, run};

/// For a process to end, or to take events again.
const PATIENCE: Duration = Duration::from_secs(20);

/// The release binary in `./test`, else the one of these tests.
fn binary() -> String {
    std::env::var("DAYBOOK_BIN").unwrap_or_else(|_| DAYBOOK.to_owned())
}

fn traceable() -> bool {
    let traced =
        Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    traced.is_ok_and(|status| status.success())
}

/// `daybook serve` under strace, and its address; `None` if it failed while opening.
fn serve(data: &Path, call: &str, error: &str, when: u32) -> (Child, Option<String>) {
    let mut child = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:error={error}:when={when}"), "--"])
        .arg(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let listening = |line: String| line.strip_prefix("listening on http://").map(str::to_owned);
    let address = lines.find_map(listening);
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

fn kill_children_of(pid: u32) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    for child in children.split_whitespace() {
        let pid = rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

/// Publishes one event; whether it was acknowledged.
fn publish(address: &str, id: &str) -> bool {
    let body = line(id, "k", None);
    let request = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/cloudevents+json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer))
    });
    asked.is_ok() && answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2'))
}

#[test]
fn an_error_of_the_kernel_costs_nothing_acknowledged() {
    if !traceable() {
        eprintln!("errors of the kernel: not run: it needs strace and the right to trace");
        return;
    }
    let (mut cases, mut ended, mut acknowledged_before) = (0, 0, 0);
    let full = std::env::var("DAYBOOK_SUITE").is_ok_and(|size| size == "full");
    for (call, error) in
        [("fdatasync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC"), ("fdatasync", "ENOSPC")]
    {
        for when in if full { (1..=24).collect() } else { vec![2, 9] } {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("data");
            let context = format!("{error} at {call} number {when} of a thread");
            cases += 1;
            let (mut child, address) = serve(&data, call, error, when);
            let mut acknowledged = Vec::new();
            // Enough that a committer reaches the call, even after a refusal for a while.
            for i in 0..400 {
                let Some(address) = address.as_ref().filter(|_| acknowledged.len() < 40) else { break };
                let id = format!("e{i}");
                if publish(address, &id) {
                    acknowledged.push(id);
                } else if child.try_wait().unwrap().is_some() {
                    break;
                } else {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            // Either the log failed, and the process ends; or it was a call whose
            // failure only refuses for a while, and publishing resumes.
            let deadline = Instant::now() + PATIENCE;
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if address.as_ref().is_some_and(|address| publish(address, "resumed")) {
                    break None;
                }
                assert!(Instant::now() < deadline, "{context}: it neither ends nor goes on");
                std::thread::sleep(Duration::from_millis(20));
            };
            match status {
                Some(status) => {
                    assert!(!status.success(), "{context}: the process ended as if all were well");
                    ended += 1;
                    acknowledged_before += usize::from(!acknowledged.is_empty());
                }
                None => {
                    acknowledged.push("resumed".to_owned());
                    // strace's death would not be the server's.
                    kill_children_of(child.id());
                    let _ = child.wait();
                }
            }
            if data.join("LOG").is_file() {
                let serve = Serve::start(&data);
                let found = serve.run(&["read"], "").lines();
                let ids: Vec<_> =
                    found.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
                let mut rest = ids.iter();
                let all = acknowledged.iter().all(|id| rest.any(|found| found == id));
                assert!(all, "{context}: {acknowledged:?} of {ids:?}");
                drop(serve);
                let verified = run(&["verify", "--data", &data.display().to_string()], "");
                assert_eq!(verified.code, 0, "{context}: {}", verified.stderr);
            }
        }
    }
    eprintln!("errors of the kernel: 0 of {cases}, ended {ended}, acknowledged before {acknowledged_before}");
    assert!(ended > 0 && acknowledged_before > 0, "the errors never mattered");
}
