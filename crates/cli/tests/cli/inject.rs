//! The whole binary while the kernel refuses: `strace` makes the K-th call fail.
//! Nothing is acknowledged after the error, the process ends, and what was
//! acknowledged before is there. Says so where `strace` cannot run.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{DAYBOOK, Serve, line, run};

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
fn no_acknowledgement_follows_an_error_of_the_kernel() {
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
            let mut last = false;
            for i in 0..40 {
                let Some(address) = &address else { break };
                let id = format!("e{i}");
                let stored = publish(address, &id);
                // Once refused by a log that failed, refused for good.
                if stored {
                    assert!(acknowledged.len() == i, "{context}: {id} was acknowledged after a failure");
                    acknowledged.push(id);
                }
                last = stored;
            }
            acknowledged_before += usize::from(!acknowledged.is_empty() && !last);
            if last {
                // The call was of a thread whose failures cost nobody an event.
                let _ = child.kill();
                let _ = child.wait();
            } else {
                let status = child.wait().unwrap();
                assert!(!status.success(), "{context}: the process ended as if all were well");
                ended += 1;
            }
            if data.join("LOG").is_file() {
                let serve = Serve::start(&data);
                let found = serve.run(&["read"], "").lines();
                let ids: Vec<_> =
                    found.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
                assert!(ids.starts_with(&acknowledged), "{context}: {acknowledged:?} of {ids:?}");
                drop(serve);
                let verified = run(&["verify", "--data", &data.display().to_string()], "");
                assert_eq!(verified.code, 0, "{context}: {}", verified.stderr);
            }
        }
    }
    eprintln!("errors of the kernel: 0 of {cases}, ended {ended}, acknowledged before {acknowledged_before}");
    assert!(ended > 0 && acknowledged_before > 0, "the errors never mattered");
}
