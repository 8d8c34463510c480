//! `kill -9` at a random moment under load: everything acknowledged is there.

use std::time::Duration;

use daybook_log::sim::Random;
use daybook_log::suite::Suite;

use crate::child::{Told, Writer, check};

/// Kills on one log before a new one is begun: checking reads all of it.
const ROUNDS_PER_LOG: u64 = 10;

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let phases = ["before the first receipt", "under load", "on an older log"];
    let mut suite = Suite::begin("kill -9 under load", &phases);
    let mut dir = tempfile::tempdir().unwrap();
    let mut all = Told::default();
    for (round, seed) in (0u64..).zip(suite.seeds(6, 100)) {
        suite.case();
        if round % ROUNDS_PER_LOG == 0 {
            dir = tempfile::tempdir().unwrap();
            all = Told::default();
        } else {
            suite.hit("on an older log");
        }
        let writer = Writer::start(dir.path(), &[]);
        // Any moment will do; some are before it is open, most over segments and runs.
        let pause = if round % ROUNDS_PER_LOG == 1 { 3 } else { 60 + Random::new(seed).below(300) as u64 };
        std::thread::sleep(Duration::from_millis(pause));
        let told = writer.kill();
        suite.hit(if told.acknowledged.is_empty() { "before the first receipt" } else { "under load" });
        all.acknowledged.extend(told.acknowledged);
        all.saved.extend(told.saved);
        check(dir.path(), &all, &format!("kill {round}, {pause} ms after the start")).await;
    }
    suite.end();
}
