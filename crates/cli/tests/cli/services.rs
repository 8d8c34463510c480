//! A service whose host is killed, and one that goes down in good order.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{DAYBOOK, Serve, run};

/// Counts in its own table and in an entity, and emits batches: whatever is
/// handled twice, or not at all, shows.
const SCRIPT: &str = r#"
local svc = service("tally", {})
local total = svc:entity("total", function() return { n = 0 } end)
total:decide("add", {}, function(state) return event("Added", { n = state.n + 1 }) end)
total:evolve("Added", function(state, e) state.n = e.data.n end)
local pair = svc:entity("pair", function() return { n = 0 } end)
pair:evolve("Moved", function(state, e) state.n = state.n + 1 end)
svc:on("Happened", function(e)
  total:send("all", "add", {})
  atomically(function(tx)
    tx:load(pair, "a")
    tx:emit(pair, "a", "Moved", {})
    tx:emit(pair, "b", "Moved", {})
  end)
  svc.kv:put("n", (svc.kv:get("n") or 0) + 1)
  svc:publish("Answered", nil, { to = e.id })
end)
svc:view("answers", { "Answered" }, function(kv, e) kv:put("n", (kv:get("n") or 0) + 1) end)
svc:get("/total", function() return json(total:state("all")) end)
"#;

struct Host {
    child: Child,
    url: String,
}

impl Host {
    #[allow(clippy::zombie_processes)] // `Drop` waits for it.
    fn start(bus: &str, dir: &Path) -> Self {
        let file = dir.join("tally.lua");
        std::fs::write(&file, SCRIPT).unwrap();
        let mut child = Command::new(DAYBOOK)
            .arg("run")
            .arg(&file)
            .args(["--bus", bus, "--listen", "127.0.0.1:0", "--instances", "2", "--state"])
            .arg(dir.join("state"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        for line in stderr.by_ref() {
            let line = line.unwrap();
            if let Some(url) = line.strip_prefix("listening on ") {
                let url = url.to_owned();
                std::thread::spawn(move || for _ in stderr {});
                return Self { child, url };
            }
            said.push(line);
        }
        panic!("no host: {said:?}");
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// `n` of one of the service's tables.
    fn row(&self, table: &str) -> Option<u64> {
        let rows = run(&["state", "tally", table, "--host", &self.url], "").lines();
        rows.iter().find(|row| row["key"] == "n").and_then(|row| row["value"].as_u64())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn publish(serve: &Serve, first: usize, count: usize) {
    let lines: String = (first..first + count)
        .map(|i| crate::line(&format!("e{i}"), &format!("k/{}", i % 5), None))
        .collect();
    assert_eq!(serve.run(&["publish"], &lines).lines().len(), count);
}

fn count(serve: &Serve, kind: &str) -> usize {
    serve.run(&["read", "--type", kind], "").lines().len()
}

fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..1_500 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never: {what}");
}

#[test]
fn a_host_that_is_killed_in_the_middle_of_handlers_doubles_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let mut published = 0;
    for round in 0..16u64 {
        let host = Host::start(&serve.bus, dir.path());
        publish(&serve, published, 20);
        published += 20;
        // Another moment in every round.
        std::thread::sleep(Duration::from_millis(round * 7 % 60));
        host.signal(rustix::process::Signal::KILL);
    }
    let host = Host::start(&serve.bus, dir.path());
    until("everything is answered", || count(&serve, "Answered") >= published);
    until("the rows are there", || {
        host.row("kv") >= Some(published as u64) && host.row("answers") >= Some(published as u64)
    });
    assert_eq!(count(&serve, "Answered"), published);
    assert_eq!(count(&serve, "Added"), published);
    assert_eq!(count(&serve, "Moved"), 2 * published);
    assert_eq!((host.row("kv"), host.row("answers")), (Some(published as u64), Some(published as u64)));
}

#[test]
fn a_host_that_is_told_to_stop_ends_what_it_handles_and_costs_no_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    publish(&serve, 0, 200);
    let mut host = Host::start(&serve.bus, dir.path());
    until("some are answered", || count(&serve, "Answered") > 20);
    host.signal(rustix::process::Signal::TERM);
    assert_eq!(host.child.wait().unwrap().code(), Some(0));
    let answered = count(&serve, "Answered");
    // What it ended it acked: nothing is delivered again.
    let host = Host::start(&serve.bus, dir.path());
    until("everything is answered", || count(&serve, "Answered") >= 200);
    until("the rows are there", || host.row("kv") >= Some(200));
    assert_eq!((count(&serve, "Answered"), count(&serve, "Added")), (200, 200));
    assert_eq!(host.row("kv"), Some(200));
    assert!(answered <= 200);
}

#[test]
fn a_rebuild_from_the_command_line_tells_how_far_it_is_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    publish(&serve, 0, 50);
    let host = Host::start(&serve.bus, dir.path());
    until("the rows are there", || host.row("kv") >= Some(50) && host.row("answers") >= Some(50));
    let before = run(&["state", "tally", "--host", &host.url], "").stdout;
    let rebuilt = run(&["rebuild", "tally", "--host", &host.url], "");
    assert_eq!(rebuilt.lines()[0]["phase"], "done");
    assert!(rebuilt.stderr.contains("tally: views"), "{}", rebuilt.stderr);
    assert_eq!(run(&["state", "tally", "--host", &host.url], "").stdout, before);
    let nobody = run(&["rebuild", "nobody", "--host", &host.url], "");
    assert!(nobody.code == 3 && nobody.stderr.contains("tally"), "{} {}", nobody.code, nobody.stderr);
    let away = run(&["state", "tally", "--host", "http://127.0.0.1:9"], "");
    assert!(away.code == 6 && away.stderr.contains("daybook run"), "{} {}", away.code, away.stderr);
}
