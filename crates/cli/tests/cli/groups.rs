//! `daybook group`, beside a service that fails.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::{DAYBOOK, Serve, line};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A service whose handler parks every event of `k/bad`.
fn service(serve: &Serve, dir: &std::path::Path) -> Running {
    let script = dir.join("picky.lua");
    let text = r#"
local svc = service("picky", { version = 1 })
svc:on("Happened", function(e)
  if e.subject == "k/bad" then return park("it is bad") end
end)
"#;
    std::fs::write(&script, text).unwrap();
    let child = Command::new(DAYBOOK)
        .args(["run", script.to_str().unwrap(), "--listen", "127.0.0.1:0", "--bus", &serve.bus, "--state"])
        .arg(dir.join("state"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Running(child)
}

#[test]
fn a_parked_key_is_found_explained_and_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let lines: String = ["k/bad", "k/good", "k/bad"]
        .iter()
        .enumerate()
        .map(|(i, key)| line(&format!("e{i}"), key, None))
        .collect();
    assert_eq!(serve.run(&["publish"], &lines).code, 0);
    let running = service(&serve, dir.path());
    let mut parked = Vec::new();
    for _ in 0..1_000 {
        let ran = serve.run(&["group", "parked", "ls", "picky"], "");
        if ran.code == 0 && !ran.stdout.is_empty() {
            parked = ran.lines();
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0]["subject"], "k/bad");
    assert!(parked[0]["reason"].as_str().unwrap().contains("it is bad"));
    let why = serve.run(&["group", "explain", "picky", "k/bad", "--output", "table"], "");
    assert!(why.stdout.starts_with("k/bad: parked at position 0 after 1 attempt: "), "{}", why.stdout);
    let dry = serve.run(&["group", "parked", "skip", "picky", "k/bad", "--dry-run"], "");
    assert_eq!((dry.code, dry.stderr.as_str()), (0, "2 events of k/bad wait in picky from position 0 on\n"));
    let list = serve.run(&["group", "ls", "--output", "table"], "");
    assert!(list.stdout.lines().any(|line| line.trim_start().starts_with("picky")), "{}", list.stdout);
    assert_eq!(serve.run(&["group", "members", "picky"], "").lines().len(), 1);
    assert_eq!(serve.run(&["group", "parked", "skip", "picky", "k/bad"], "").code, 0);
    let refused = serve.run(&["group", "reset", "picky", "--to", "start"], "");
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("members"), "{}", refused.stderr);
    drop(running);
}

/// What `parked ls` lists once it is so much.
fn parked(serve: &Serve, args: &[&str], many: usize) -> Vec<serde_json::Value> {
    for _ in 0..1_000 {
        let ran = serve.run(&[&["group", "parked", "ls", "picky"], args].concat(), "");
        if ran.code == 0 && ran.stdout.lines().count() >= many {
            return ran.lines();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("there are never {many} parked");
}

#[test]
fn what_the_views_of_a_service_go_on_without_is_listed_with_its_parked_keys() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    // Before the service begins: a view that is filled gives an event up soon.
    let lines = line("e0", "k/good", None) + &line("e1", "k/bad", None);
    assert_eq!(serve.run(&["publish"], &lines).code, 0);
    let script = dir.path().join("picky.lua");
    let text = r#"
local svc = service("picky", { version = 1 })
svc:on("Happened", function(e)
  if e.subject == "k/bad" then return park("it is bad") end
end)
svc:view("names", { "Happened" }, function(kv, e)
  if e.subject == "k/good" then error("no name for " .. e.id) end
end)
"#;
    std::fs::write(&script, text).unwrap();
    let mut child = Command::new(DAYBOOK)
        .args(["run", script.to_str().unwrap(), "--listen", "127.0.0.1:0", "--bus", &serve.bus, "--state"])
        .arg(dir.path().join("state"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let _running = Running(child);
    let listening =
        |line: std::io::Result<String>| Some(line.unwrap().strip_prefix("listening on ")?.to_owned());
    let host = said.by_ref().find_map(listening);
    std::thread::spawn(move || for _ in said {});
    let host = host.expect("it says where it listens");

    let all = parked(&serve, &["--host", &host], 2);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!((all[0]["subject"].as_str(), all[0]["view"].as_str()), (Some("k/bad"), None));
    assert_eq!((all[1]["subject"].as_str(), all[1]["view"].as_str()), (Some("k/good"), Some("names")));
    assert_eq!(all[1]["position"], "0");
    let reason = all[1]["reason"].as_str().unwrap();
    assert!(reason.contains("picky.lua:7") && reason.contains("no name for e0"), "{reason}");
    assert_eq!(parked(&serve, &[], 1).len(), 1, "the bus knows nothing of views");
    let gone = serve.run(&["group", "parked", "ls", "picky", "--host", "http://127.0.0.1:1"], "");
    assert_eq!(gone.code, 6, "{}", gone.stderr);
}

#[test]
fn what_does_not_exist_is_code_3_and_bad_places_are_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    for args in [
        &["group", "show", "none"][..],
        &["group", "explain", "none", "k/1"],
        &["group", "parked", "retry", "none", "k/1"],
        &["group", "reset", "none", "--to", "start"],
    ] {
        let ran = serve.run(args, "");
        assert_eq!(ran.code, 3, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("none"), "{}", ran.stderr);
    }
    assert_eq!(serve.run(&["group", "reset", "none", "--to", "yesterday"], "").code, 2);
}
