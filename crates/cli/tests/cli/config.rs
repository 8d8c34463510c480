//! `daybook.toml` and `daybook config explain`: which value holds, and why.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{DAYBOOK, Ran, Serve, line};

fn daybook(dir: &Path, args: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(DAYBOOK);
    command.args(args).current_dir(dir).envs(environment.iter().copied());
    command.env_remove("DAYBOOK_CONFIG").env_remove("DAYBOOK_LISTEN").env_remove("DAYBOOK_DATA");
    command.envs(environment.iter().copied()).output().unwrap().into()
}

/// Value and source of one setting.
fn explained(ran: &Ran, setting: &str) -> (String, String) {
    let rows: Vec<Value> = ran.lines();
    let row = rows.iter().find(|row| row["setting"] == setting).unwrap();
    let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
    (text("value"), text("source"))
}

#[test]
fn a_flag_wins_over_the_environment_that_over_the_file_and_that_over_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let is = |args: &[&str], environment: &[(&str, &str)], setting: &str, value: &str, source: &str| {
        let ran = daybook(dir.path(), &[&["config", "explain"], args].concat(), environment);
        assert_eq!(explained(&ran, setting), (value.to_owned(), source.to_owned()), "{args:?}");
    };
    is(&["serve"], &[], "--listen", "127.0.0.1:7400", "default");
    is(&["serve"], &[], "--reserve-mib", "-", "not set");
    std::fs::write(dir.path().join("daybook.toml"), "data = \"d\"\n[serve]\nlisten = \"127.0.0.1:1\"\n")
        .unwrap();
    is(&["serve"], &[], "--listen", "127.0.0.1:1", "daybook.toml");
    is(&["demo"], &[], "--listen", "127.0.0.1:7400", "default");
    is(&["demo"], &[], "--data", "d", "daybook.toml");
    let environment = [("DAYBOOK_LISTEN", "127.0.0.1:2")];
    is(&["serve"], &environment, "--listen", "127.0.0.1:2", "environment DAYBOOK_LISTEN");
    is(&["serve", "--listen", "127.0.0.1:3"], &environment, "--listen", "127.0.0.1:3", "flag");
    let secret = daybook(dir.path(), &["config", "explain", "read"], &[("DAYBOOK_TOKEN", "hunter2")]);
    assert_eq!(explained(&secret, "--token").0, "(secret)");
    let table = daybook(dir.path(), &["config", "explain", "--output", "table"], &[]);
    assert!(table.stdout.contains("SETTING") && table.stderr.contains("daybook.toml"), "{}", table.stdout);
}

#[test]
fn the_file_is_used_and_a_mistake_in_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daybook.toml");
    std::fs::write(&file, "data = \"nowhere\"\n").unwrap();
    let verify = daybook(dir.path(), &["verify"], &[]);
    assert!(verify.code == 1 && verify.stderr.contains("nowhere"), "{}", verify.stderr);
    for (text, named) in
        [("listne = 1", "`listne`"), ("[srve]\na = 1", "`srve`"), ("data = ", "daybook.toml")]
    {
        std::fs::write(&file, text).unwrap();
        let ran = daybook(dir.path(), &["verify"], &[]);
        assert!(ran.code == 2 && ran.stderr.contains(named), "{text}: {}", ran.stderr);
    }
    std::fs::write(&file, "[serve]\nlisten = \"everywhere\"\n").unwrap();
    let ran = daybook(dir.path(), &["serve"], &[]);
    assert!(ran.code == 2 && ran.stderr.contains("everywhere"), "{}", ran.stderr);
    let ran = daybook(dir.path(), &["verify"], &[("DAYBOOK_CONFIG", "absent.toml")]);
    assert!(ran.code == 2 && ran.stderr.contains("absent.toml"), "{}", ran.stderr);
    let ran = daybook(dir.path(), &["config", "explain", "nonsense"], &[("DAYBOOK_CONFIG", "/dev/null")]);
    assert!(ran.code == 2 && ran.stderr.contains("`nonsense`"), "{}", ran.stderr);
}

#[test]
fn serve_takes_a_number_of_workers_and_refuses_what_is_none() {
    let dir = tempfile::tempdir().unwrap();
    for nonsense in ["0", "-1", "many", "1.5", ""] {
        let ran = daybook(dir.path(), &["serve", &format!("--workers={nonsense}")], &[]);
        assert!(ran.code == 2 && ran.stderr.contains("--workers"), "{nonsense}: {}", ran.stderr);
    }
    let explained_workers = |args: &[&str]| {
        explained(&daybook(dir.path(), &[&["config", "explain", "serve"], args].concat(), &[]), "--workers")
    };
    assert_eq!(explained_workers(&["--workers", "1"]), ("1".into(), "flag".into()));
    std::fs::write(dir.path().join("daybook.toml"), "[serve]\nworkers = 3\n").unwrap();
    assert_eq!(explained_workers(&[]), ("3".into(), "daybook.toml".into()));
    std::fs::write(dir.path().join("daybook.toml"), "[serve]\nworkers = 0\n").unwrap();
    let ran = daybook(dir.path(), &["serve"], &[]);
    assert!(ran.code == 2 && ran.stderr.contains("--workers"), "{}", ran.stderr);
}

#[test]
fn one_worker_serves_a_publisher_and_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = Serve::try_start_with(&data, "127.0.0.1:0", &["--workers", "1"]).ok().unwrap();
    assert_eq!(serve.run(&["publish"], &line("e1", "k/1", None)).code, 0);
    assert_eq!(serve.run(&["read"], "").lines()[0]["id"], "e1");
}

#[test]
fn a_value_that_does_not_fit_is_told_with_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |args: &[&str], environment: &[(&str, &str)], told: &[&str]| {
        let ran = daybook(dir.path(), args, environment);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(told.iter().all(|told| ran.stderr.contains(told)), "{told:?}: {}", ran.stderr);
    };
    let number = "expected a whole number, not negative";
    refused(&["serve", "--workers", "0"], &[], &["'0' for '--workers <THREADS>'", "0 is not in 1..=65535"]);
    refused(&["serve", "--workers", "many"], &[], &["'many' for '--workers <THREADS>'", number]);
    let reserve = [("DAYBOOK_RESERVE_MIB", "x")];
    refused(&["serve"], &reserve, &["'x' for 'DAYBOOK_RESERVE_MIB (--reserve-mib <MIB>)'", number]);
    refused(&["serve", "--reserve-mib=y"], &reserve, &["'y' for '--reserve-mib <MIB>'", number]);
    let listen = [("DAYBOOK_LISTEN", "localhost:7400")];
    let told = [
        "'localhost:7400' for 'DAYBOOK_LISTEN (--listen",
        "expected an address and a port, such as 127.0.0.1:7400",
    ];
    refused(&["serve"], &listen, &told);
    refused(&["group", "ls", "--bus", "nowhere"], &[], &["no address of a bus: expected http://HOST:PORT"]);
    refused(&["publish", "--inflight=-1"], &[], &["--inflight", "-1 is not in 1..=5000"]);
    std::fs::write(dir.path().join("daybook.toml"), "[serve]\nreserve-mib = \"much\"\n").unwrap();
    refused(&["serve"], &[], &["'much' for 'reserve-mib in daybook.toml (--reserve-mib <MIB>)'", number]);
}

#[test]
fn raw_output_is_offered_where_there_are_events() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["verify", "import", "config explain", "group ls", "group explain", "backup"] {
        let words: Vec<_> = command.split(' ').collect();
        let ran = daybook(dir.path(), &[&words[..], &["--output", "raw"]].concat(), &[]);
        assert!(
            ran.code == 2 && ran.stderr.contains("[possible values: table, json, ndjson]"),
            "{}",
            ran.stderr
        );
    }
    for command in ["read", "tail", "trace"] {
        let ran = daybook(dir.path(), &[command, "--help"], &[]);
        assert!(ran.stdout.contains("raw"), "{}", ran.stdout);
    }
}
