//! `daybook backup` and `restore`: while it serves, after a kill, into nothing else.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::small_disk::SmallDisk;
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

/// A follower whose tellings are read as they come; killed when dropped.
struct Follower {
    child: Child,
    told: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Follower {
    fn start(data: &Path, copy: &Path, bus: &str) -> Self {
        let mut child = Command::new(DAYBOOK)
            .args([
                "backup",
                copy.to_str().unwrap(),
                "--follow",
                "--output",
                "ndjson",
                "--bus",
                bus,
                "--data",
            ])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, told }
    }

    /// The first telling that is as wanted; it tells at least every second.
    #[track_caller]
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        for line in self.told.by_ref() {
            let told = serde_json::from_str(&line.unwrap()).unwrap();
            if wanted(&told) {
                return told;
            }
        }
        panic!("it ended before it told that");
    }

    fn ends(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(self.child.stderr.as_mut().unwrap(), &mut said).unwrap();
        (code, said)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn status(copy: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(copy.join("backup.json")).unwrap()).unwrap()
}

#[test]
fn a_follower_tells_its_lag_to_machines_and_survives_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    let mut serve = Serve::start(&data);
    let address = serve.bus.strip_prefix("http://").unwrap().to_owned();
    assert_eq!(serve.run(&["publish"], &lines(0, 100)).code, 0);
    let mut follower = Follower::start(&data, &copy, &serve.bus);
    let told = follower.until(|told| told["copied"] == "100" && told["state"] == "following");
    assert_eq!((told["head"].as_str(), told["lag_events"].as_str()), (Some("100"), Some("0")));
    assert_eq!((told["lag_bytes"].as_u64(), told["lag_seconds"].as_f64()), (Some(0), Some(0.0)));
    assert_eq!(status(&copy)["copied"], "100");
    serve.signal(Signal::KILL);
    serve.wait();
    let told = follower.until(|told| told["state"] == "retrying");
    assert!(told["reason"].as_str().unwrap().contains("server"), "{told}");
    let serve = Serve::try_start(&data, &address).unwrap();
    assert_eq!(serve.run(&["publish"], &lines(100, 50)).code, 0);
    follower.until(|told| told["copied"] == "150" && told["state"] == "following");
    rustix::process::kill_process(rustix::process::Pid::from_child(&follower.child), Signal::INT).unwrap();
    let (code, said) = follower.ends();
    assert!(code == 0 && said.contains("150 events are in"), "{said}");
    assert_eq!(status(&copy)["state"], "stopped");
    assert_eq!(run(&["verify", "--data", copy.to_str().unwrap()], "").lines()[0]["events"], "150");
}

#[test]
fn a_copy_that_is_taken_away_is_waited_for_and_never_begun_anew_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy, away) = (dir.path().join("data"), dir.path().join("copy"), dir.path().join("away"));
    let serve = Serve::start(&data);
    assert_eq!(serve.run(&["publish"], &lines(0, 100)).code, 0);
    let mut follower = Follower::start(&data, &copy, &serve.bus);
    follower.until(|told| told["copied"] == "100");
    std::fs::rename(&copy, &away).unwrap();
    assert_eq!(serve.run(&["publish"], &lines(100, 30)).code, 0);
    let told = follower.until(|told| told["state"] == "retrying" && told["lag_events"] == "30");
    assert!(told["lag_bytes"].as_u64() > Some(0) && told["lag_seconds"].as_f64() > Some(0.0), "{told}");
    // An empty mount point is no copy either.
    std::fs::create_dir(&copy).unwrap();
    let told = follower.until(|told| told["state"] == "retrying" && told["lag_seconds"].as_f64() > Some(1.5));
    assert!(told["reason"].as_str().unwrap().contains("is gone"), "{told}");
    assert_eq!(std::fs::read_dir(&copy).unwrap().count(), 0);
    std::fs::remove_dir(&copy).unwrap();
    std::fs::rename(&away, &copy).unwrap();
    follower.until(|told| told["copied"] == "130" && told["state"] == "following");
}

#[test]
fn a_full_disk_of_the_copy_is_told_and_the_copy_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let Some(disk) = SmallDisk::mount(dir.path().join("disk")) else { return };
    let copy = disk.path().join("copy");
    let serve = Serve::start(&data);
    let large =
        |from: usize| lines(from, 400).replace("\"n\":1", &format!("\"n\":\"{}\"", "x".repeat(4_000)));
    assert_eq!(serve.run(&["publish"], &large(0)).code, 0);
    let mut follower = Follower::start(&data, &copy, &serve.bus);
    let told = follower.until(|told| told["state"] == "retrying" && told["lag_events"] != "0");
    assert!(told["reason"].as_str().unwrap().contains("space"), "{told}");
    disk.enlarge();
    follower.until(|told| told["copied"] == "400" && told["state"] == "following");
    drop(follower);
    assert_eq!(run(&["verify", "--data", copy.to_str().unwrap()], "").lines()[0]["events"], "400");
    // From a disk that nobody may write to it is still verified and restored.
    disk.forbid_writing();
    assert_eq!(run(&["verify", "--data", copy.to_str().unwrap()], "").lines()[0]["events"], "400");
    let restored = dir.path().join("restored");
    assert_eq!(run(&["restore", copy.to_str().unwrap(), restored.to_str().unwrap()], "").code, 0);
    assert_eq!(run(&["verify", "--data", restored.to_str().unwrap()], "").lines()[0]["events"], "400");
    let refused = Serve::try_start(&copy, "127.0.0.1:0").err().unwrap();
    assert!(refused.contains("Read-only file system") && refused.contains("copy"), "{refused}");
    assert!(refused.contains("--read-only"), "{refused}");
}

#[test]
fn what_cannot_pass_ends_a_follower_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let [data, other, copy] = ["data", "other", "copy"].map(|name| dir.path().join(name));
    let serve = Serve::start(&data);
    assert_eq!(serve.run(&["publish"], &lines(0, 10)).code, 0);
    assert_eq!(serve.run(&["backup", copy.to_str().unwrap(), "--data", data.to_str().unwrap()], "").code, 0);
    // Somebody else's copy.
    let another = Serve::start(&other);
    let (code, said) = Follower::start(&other, &copy, &another.bus).ends();
    assert!(code == 1 && said.contains("copy of another log"), "{said}");
    assert_eq!(status(&copy)["state"], "failed");
    // A server that has another log open than the one that is read.
    drop(serve);
    let (code, said) = Follower::start(&data, &copy, &another.bus).ends();
    assert!(code == 1 && said.contains("serves another log"), "{said}");
    let (code, said) = Follower::start(&dir.path().join("none"), &copy, &another.bus).ends();
    assert!(code == 1 && said.contains("holds no log"), "{said}");
    // A target in use, or that holds something else.
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.tex"), "precious").unwrap();
    for (target, why) in [(&foreign, "thesis.tex"), (&other, "used by another process")] {
        let ran = run(&["backup", target.to_str().unwrap(), "--data", data.to_str().unwrap()], "");
        assert!(ran.code == 1 && ran.stderr.contains(why), "{}", ran.stderr);
    }
    let ran = run(&["restore", foreign.to_str().unwrap(), dir.path().join("new").to_str().unwrap()], "");
    assert!(ran.code == 1 && ran.stderr.contains("no copy of a log"), "{}", ran.stderr);
    assert!(!dir.path().join("new").exists());
}

#[test]
fn a_restore_that_did_not_come_to_its_end_is_never_taken_for_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let [data, copy, restored] = ["data", "copy", "restored"].map(|name| dir.path().join(name));
    let [data_text, copy_text, restored_text] = [&data, &copy, &restored].map(|path| path.to_str().unwrap());
    let serve = Serve::start(&data);
    // More than one segment, so that a part is restored.
    let large = lines(0, 600).replace("\"n\":1", &format!("\"n\":\"{}\"", "x".repeat(4_000)));
    assert_eq!(serve.run(&["publish"], &large).code, 0);
    assert_eq!(serve.run(&["backup", copy_text, "--data", data_text], "").code, 0);
    drop(serve);
    let damaged = copy.join("0000000001.segment");
    let good = std::fs::read(&damaged).unwrap();
    // In a record, where the log once seemed to end; and in the header.
    for at in [2_000, 9] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&damaged, bytes).unwrap();
        let _ = std::fs::remove_dir_all(&restored);
        let refused = run(&["restore", copy_text, restored_text], "");
        assert!(refused.code == 8 && refused.stderr.contains("0000000001.segment"), "{}", refused.stderr);
    }
    assert!(restored.join("0000000000.segment").is_file(), "nothing was restored, so nothing is proved");
    let why = "did not come to its end";
    for args in [&[][..], &["--read-only"]] {
        let told = Serve::try_start_with(&restored, "127.0.0.1:0", args).err().unwrap();
        assert!(told.contains(why), "{told}");
    }
    let again = dir.path().join("again");
    for args in [
        &["verify", "--data", restored_text][..],
        &["restore", restored_text, again.to_str().unwrap()],
        &["backup", again.to_str().unwrap(), "--data", restored_text],
    ] {
        let told = run(args, "");
        assert!(told.code != 0 && told.stderr.contains(why), "{args:?}: {}", told.stderr);
    }
    std::fs::write(&damaged, good).unwrap();
    std::fs::remove_dir_all(&restored).unwrap();
    assert_eq!(run(&["restore", copy_text, restored_text], "").code, 0);
    assert_eq!(run(&["verify", "--data", restored_text], "").lines()[0]["events"], "600");
}
