//! One suite for every backend: what `mod.rs` promises.

#[path = "../../tests/host/redis_server.rs"]
mod redis_server;

use redis_server::RedisServer;

use super::{Error, State, Tables, Write};
use crate::StateLocation;

/// Each on tables of its own, in every kind of store.
fn in_every_store(test: impl Fn(&dyn Fn() -> State)) {
    let dir = tempfile::tempdir().unwrap();
    let location = StateLocation::Dir(dir.path().to_owned());
    let state = State::open(&location, "suite").unwrap();
    test(&|| state.clone());
    let server = RedisServer::start();
    let location = StateLocation::Redis(server.url());
    // Each call is another host there.
    test(&|| State::open(&location, "suite").unwrap());
}

fn put(key: &str, value: &str) -> Write {
    (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()))
}

fn get(tables: &Tables, key: &str) -> Option<String> {
    tables.get(key.as_bytes()).unwrap().map(|value| String::from_utf8(value).unwrap())
}

fn keys(tables: &Tables, prefix: &str) -> Vec<String> {
    let rows = tables.scan(prefix.as_bytes()).unwrap();
    rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

#[test]
fn what_was_committed_is_read_in_order_and_within_its_prefix() {
    in_every_store(|open| {
        let tables = open().tables().unwrap();
        assert_eq!(get(&tables, "a/1"), None);
        let writes: Vec<Write> = (0..2_500).rev().map(|i| put(&format!("a/{i:05}"), "x")).collect();
        tables.commit(&writes).unwrap();
        tables.commit(&[put("a0", "after the prefix"), put("a", "before it"), put("b/1", "")]).unwrap();
        let found = keys(&tables, "a/");
        assert_eq!(found.len(), 2_500);
        assert!(found.is_sorted());
        assert_eq!(get(&tables, "b/1"), Some(String::new()));
        tables.commit(&[(b"b/1".to_vec(), None)]).unwrap();
        assert_eq!((get(&tables, "b/1"), keys(&tables, "b/")), (None, vec![]));
        let bytes: Vec<u8> = (0..=255).collect();
        tables.commit(&[(bytes.clone(), Some(bytes.clone()))]).unwrap();
        assert_eq!(tables.get(&bytes).unwrap(), Some(bytes));
    });
}

#[test]
fn a_handler_whose_rows_changed_under_it_writes_nothing() {
    in_every_store(|open| {
        let tables = open().tables().unwrap();
        tables.commit(&[put("n", "1")]).unwrap();
        let stale = [(b"n".to_vec(), Some(b"0".to_vec()))];
        let absent = [(b"n".to_vec(), None)];
        for reads in [&stale, &absent] {
            let refused = tables.commit_handler(reads, &[put("n", "2"), put("m", "2")]);
            assert!(matches!(refused, Err(Error::Conflict)), "{refused:?}");
        }
        assert_eq!((get(&tables, "n").as_deref(), get(&tables, "m")), (Some("1"), None));
        let right = [(b"n".to_vec(), Some(b"1".to_vec())), (b"m".to_vec(), None)];
        tables.commit_handler(&right, &[put("n", "2")]).unwrap();
        assert_eq!(get(&tables, "n").as_deref(), Some("2"));
    });
}

#[test]
fn a_rebuild_is_seen_as_a_whole_and_what_writes_for_the_old_tables_is_refused() {
    in_every_store(|open| {
        let state = open();
        let old = state.tables().unwrap();
        old.commit(&[put("a", "old"), put("b", "old")]).unwrap();
        state.lead(true).unwrap();
        let held = old.commit_handler(&[], &[put("a", "handler")]);
        assert!(matches!(held, Err(Error::Filling)), "{held:?}");
        let fresh = state.beside();
        fresh.commit_leader(&[put("a", "new")]).unwrap();
        assert_eq!((get(&old, "a").as_deref(), get(&fresh, "b")), (Some("old"), None));
        let new = state.advance(&old, &fresh).unwrap();
        state.lead(false).unwrap();
        assert_eq!((get(&new, "a").as_deref(), get(&new, "b")), (Some("new"), None));
        assert!(matches!(old.get(b"b"), Err(Error::Moved)));
        assert!(matches!(old.commit(&[put("a", "late")]), Err(Error::Moved)));
        let other = open().tables().unwrap();
        assert_eq!((other.generation(), keys(&other, "")), (new.generation(), vec!["a".to_owned()]));
        // A rebuild that failed leaves nothing.
        let abandoned = state.beside();
        abandoned.commit_leader(&[put("a", "half")]).unwrap();
        state.discard(&abandoned).unwrap();
        assert_eq!(keys(&abandoned, ""), Vec::<String>::new());
        assert_eq!(get(&new, "a").as_deref(), Some("new"));
        state.release();
    });
}

#[test]
fn one_host_leads_and_another_one_is_refused_until_it_lets_go() {
    let server = RedisServer::start();
    let location = StateLocation::Redis(server.url());
    let [one, two] = [(); 2].map(|()| State::open(&location, "suite").unwrap());
    assert!(one.lead(false).unwrap());
    assert!(!two.lead(false).unwrap());
    let (first, second) = (one.tables().unwrap(), two.tables().unwrap());
    first.commit_leader(&[put("a", "1")]).unwrap();
    assert!(matches!(second.commit_leader(&[put("a", "2")]), Err(Error::NotLeader)));
    second.commit_handler(&[], &[put("b", "2")]).unwrap();
    one.release();
    assert!(two.lead(true).unwrap());
    assert!(matches!(first.commit_leader(&[put("a", "3")]), Err(Error::NotLeader)));
    assert!(matches!(first.commit_handler(&[], &[put("a", "3")]), Err(Error::Filling)));
    assert_eq!(get(&second, "a").as_deref(), Some("1"));
}

#[test]
fn a_redis_that_was_restarted_is_not_trusted_whether_empty_or_not() {
    for keeps in [false, true] {
        let mut server = RedisServer::start();
        let state = State::open(&StateLocation::Redis(server.url()), "suite").unwrap();
        let tables = state.tables().unwrap();
        tables.commit(&[put("a", "1")]).unwrap();
        server.restart(keeps);
        let lost = tables.get(b"a");
        assert!(matches!(lost, Err(Error::Lost)), "{lost:?}");
        assert!(matches!(tables.commit(&[put("a", "2")]), Err(Error::Lost)));
        let new = state.look_again().unwrap();
        assert!(new.generation() > tables.generation());
        assert_eq!(keys(&new, ""), Vec::<String>::new());
    }
}

#[test]
fn a_redis_that_is_away_is_an_error_and_then_is_not() {
    let mut server = RedisServer::start();
    let state = State::open(&StateLocation::Redis(server.url()), "suite").unwrap();
    let tables = state.tables().unwrap();
    server.stop();
    let away = tables.get(b"a");
    assert!(matches!(away, Err(Error::Unavailable { .. })), "{away:?}");
    server.restart(false);
    state.look_again().unwrap().commit(&[put("a", "1")]).unwrap();
}

#[test]
fn a_killed_process_loses_no_commit() {
    // The same binary, run again as the process that is killed.
    if let Ok(dir) = std::env::var("STATE_OF_THE_KILLED") {
        let state = State::open(&StateLocation::Dir(dir.into()), "suite").unwrap();
        let tables = state.tables().unwrap();
        for i in 0.. {
            tables.commit(&[put("n", &i.to_string()), put(&format!("row/{i:06}"), "x")]).unwrap();
            println!("committed {i}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    for wanted in [1, 50, 400] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "state::suite::a_killed_process_loses_no_commit", "--nocapture"])
            .env("STATE_OF_THE_KILLED", dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        let said = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("committed ")?.parse::<u64>().ok());
        let last = said.take(wanted).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let state = State::open(&StateLocation::Dir(dir.path().to_owned()), "suite").unwrap();
        let tables = state.tables().unwrap();
        let n: u64 = get(&tables, "n").unwrap().parse().unwrap();
        assert!(n >= last, "{last} was committed, {n} is there");
        assert!(get(&tables, &format!("row/{n:06}")).is_some(), "half a commit");
    }
}

#[test]
fn a_second_process_is_told_to_use_a_directory_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let location = StateLocation::Dir(dir.path().to_owned());
    let _state = State::open(&location, "suite").unwrap();
    let refused = State::open(&location, "suite").err().unwrap().to_string();
    assert!(refused.contains("another process") && refused.contains("redis://"), "{refused}");
}

#[test]
fn a_damaged_file_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("suite.redb"), vec![7u8; 5_000]).unwrap();
    let state = State::open(&StateLocation::Dir(dir.path().to_owned()), "suite").unwrap();
    assert_eq!(keys(&state.tables().unwrap(), ""), Vec::<String>::new());
}
