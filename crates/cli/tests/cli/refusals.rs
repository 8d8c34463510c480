//! Bad input and bad surroundings: a clear error, the right code, nothing touched.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::{DAYBOOK, Serve, line, run};

#[test]
fn a_bad_line_is_named_by_its_number_and_the_rest_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let input = format!("{}no json\n\n{}", line("a", "k/1", None), line("b", "k/1", None));
    let ran = serve.run(&["publish"], &input);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    assert!(ran.stderr.contains("line 2: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("2 stored"), "{}", ran.stderr);
    assert_eq!(serve.run(&["read"], "").lines().len(), 2);
}

#[test]
fn a_line_that_is_no_event_says_what_is_missing_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    for (input, told) in [
        (r#"{"type":"Noted"}"#, "line 1: no CloudEvent: missing field `specversion`\n"),
        (r#"{"specversion":"1.0""#, "line 1: no CloudEvent: EOF while parsing an object\n"),
        ("hello", "line 1: no CloudEvent: expected value\n"),
    ] {
        let ran = serve.run(&["publish"], input);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains(told), "{}", ran.stderr);
    }
}

#[test]
fn the_directory_of_a_demo_is_not_taken_for_a_log_nor_a_log_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let demo = dir.path().join("demo");
    drop(Serve::start(&demo.join("log")));
    let (data, log) = (demo.to_str().unwrap(), demo.join("log"));
    let log = log.to_str().unwrap();
    let copy = dir.path().join("copy");
    for command in [
        &["serve", "--listen", "127.0.0.1:0", "--data", data][..],
        &["verify", "--data", data],
        &["backup", copy.to_str().unwrap(), "--data", data],
    ] {
        let ran = run(command, "");
        assert_eq!(ran.code, 1, "{command:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(&format!("--data {log}")), "{command:?}: {}", ran.stderr);
    }
    let ran = run(&["demo", "--data", log, "--listen", "127.0.0.1:0", "--bank-listen", "127.0.0.1:0"], "");
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("is a log of `daybook serve`"), "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(&demo).unwrap().count(), 1, "something was begun beside the log");
}

#[test]
fn where_nothing_listens_every_command_asks_whether_a_server_is_running() {
    let dir = tempfile::tempdir().unwrap();
    let (script, state) = (dir.path().join("s.lua"), dir.path().join("state"));
    std::fs::write(&script, "service('s', {})\n").unwrap();
    let (script, state) = (script.to_str().unwrap(), state.to_str().unwrap());
    for command in [
        &["run", script, "--state", state, "--listen", "127.0.0.1:0"][..],
        &["publish"],
        &["read"],
        &["group", "ls"],
    ] {
        // Nobody may listen there but root, and nobody does.
        let ran = run(&[command, &["--bus", "http://127.0.0.1:1"]].concat(), "");
        assert_eq!(ran.code, 6, "{command:?}: {}", ran.stderr);
        for told in [
            "cannot reach the bus at http://127.0.0.1:1: ",
            "Connection refused",
            "is `daybook serve` or `daybook demo` running there?",
        ] {
            assert!(ran.stderr.contains(told), "{command:?}: {}", ran.stderr);
        }
    }
}

#[test]
fn a_conflict_is_code_4_and_does_not_tell_the_value() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let first: String = (0..7).map(|i| line(&format!("a{i}"), "k/1", Some(i))).collect();
    assert_eq!(serve.run(&["publish"], &first).code, 0);
    let ran = serve.run(&["publish"], &line("b", "k/1", Some(3)));
    assert_eq!(ran.code, 4);
    assert!(ran.stderr.contains("k/1"), "{}", ran.stderr);
    assert!(!ran.stderr.contains('7'), "it reveals the value: {}", ran.stderr);
}

#[test]
fn invalid_events_are_code_2_and_name_the_member() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let too_long = "x".repeat(129);
    for (event, member) in [
        (line(&too_long, "k/1", None), "id"),
        (r#"{"specversion":"1.0","id":"a","source":"/t"}"#.to_owned(), "type"),
        (line("a", "k/1", None).replace("\"data\"", "\"sequence\":7,\"data\""), "sequence"),
    ] {
        let ran = serve.run(&["publish"], &event);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains(member), "`{member}` is not named: {}", ran.stderr);
    }
    assert_eq!(serve.run(&["read"], "").lines().len(), 0);
}

#[test]
fn nobody_there_is_code_6_and_says_what_to_start() {
    // A port that was just free, and is again.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ran = run(&["read", "--bus", &format!("http://127.0.0.1:{port}")], "");
    assert_eq!(ran.code, 6);
    assert!(ran.stderr.contains("daybook serve"), "{}", ran.stderr);
}

#[test]
fn wrong_usage_is_code_2() {
    for args in
        [&["read", "--from", "yesterday"][..], &["nonsense"], &["read", "--bus", "ftp://x"], &["trace"]]
    {
        let ran = run(args, "");
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty());
    }
}

#[test]
fn a_port_in_use_says_so_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = dir.path().join("data");
    let said = Serve::try_start(&data, &address).err().unwrap();
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
    assert!(!data.exists());
}

#[test]
fn a_directory_in_use_names_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Serve::start(&data);
    let said = Serve::try_start(&data, "127.0.0.1:0").err().unwrap();
    assert!(
        said.contains("used by another process") && said.contains(&first.child.id().to_string()),
        "{said}"
    );
    assert_eq!(first.run(&["publish"], &line("a", "k/1", None)).code, 0);
}

#[test]
fn a_log_of_another_version_is_refused_with_both_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(Serve::start(&data));
    let mut identity = std::fs::read(data.join("LOG")).unwrap();
    identity[8] = 9;
    std::fs::write(data.join("LOG"), &identity).unwrap();
    let said = Serve::try_start(&data, "127.0.0.1:0").err().unwrap();
    assert!(said.contains("format 9") && said.contains("reads format"), "{said}");
    assert_eq!(std::fs::read(data.join("LOG")).unwrap(), identity);
}

#[test]
fn a_directory_of_somebody_else_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "precious").unwrap();
    let said = Serve::try_start(dir.path(), "127.0.0.1:0").err().unwrap();
    assert!(said.contains("thesis.tex"), "{said}");
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name == "thesis.tex" || name == "LOCK"), "{names:?}");
}

#[test]
fn a_directory_without_permission_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o500)).unwrap();
    // Permissions do not bind root: then the server runs as nobody, from a copy that nobody may run.
    let binary = dir.path().join("daybook");
    // Copied by another process: whatever this one holds open for writing, a test beside
    // this one may just hand to a child, and then the kernel runs it for nobody.
    assert!(Command::new("cp").arg(DAYBOOK).arg(&binary).status().unwrap().success());
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(&binary);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data).stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(data.to_str().unwrap()) && said.contains("ermission"), "{said}");
}

#[test]
fn a_lua_file_with_a_syntax_error_names_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"));
    let script = dir.path().join("broken.lua");
    std::fs::write(&script, "local svc = service(\"broken\", {})\n\nsvc:on(\"X\" function() end)\n").unwrap();
    let state = dir.path().join("state");
    let ran = serve.run(
        &["run", script.to_str().unwrap(), "--listen", "127.0.0.1:0", "--state", state.to_str().unwrap()],
        "",
    );
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("broken.lua:3"), "{}", ran.stderr);
}
