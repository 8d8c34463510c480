//! What goes wrong, when, and for how long.
//!
//! One fault per link and host at a time, so that each ends as it began.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use turmoil::Sim;

use super::{FOLLOWERS, MEMBERS, PUBLISHERS, REBUILDERS, Shared, clients, net, note_fault, only_clocks};
use crate::entropy::{Dice, move_clock};

/// Everything that can be done to the system. A run of many seeds must have done each.
pub const KINDS: [&str; 18] = [
    "server killed",
    "server restarted",
    "disk failed",
    "disk slow",
    "unsynced events lost",
    "unsynced events kept",
    "member killed",
    "member left",
    "publisher killed",
    "follower killed",
    "link cut",
    "link cut one way",
    "link held",
    "link slow",
    "rebuilder killed",
    "server's clock back",
    "server's clock ahead",
    "client's clock moved",
];

/// How far a clock is wrong at most, either way.
const WRONG_MS: u64 = 3_600_000;

pub struct Faults {
    dice: Dice,
    shared: Arc<Shared>,
    next: Duration,
    /// Until when a host is down.
    down: BTreeMap<&'static str, Duration>,
    /// What is wrong with the link between a host and the server, and until when.
    links: BTreeMap<&'static str, (Link, Duration)>,
    disk_slow_until: Option<Duration>,
    /// How far the server's clock is ahead, in milliseconds.
    server_ahead: i64,
    only_clocks: bool,
    done: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Cut,
    CutToServer,
    CutFromServer,
    Held,
    Slow,
}

impl Faults {
    pub fn new(seed: u64, shared: Arc<Shared>) -> Self {
        Self {
            dice: Dice::new(seed, "faults"),
            shared,
            // Time for everybody to connect once.
            next: Duration::from_secs(2),
            down: BTreeMap::new(),
            links: BTreeMap::new(),
            disk_slow_until: None,
            server_ahead: 0,
            only_clocks: only_clocks(seed),
            done: KINDS.iter().map(|kind| ((*kind).to_owned(), 0)).collect(),
        }
    }

    pub fn done(&self) -> BTreeMap<String, u64> {
        self.done.clone()
    }

    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        self.mend(sim, now);
        self.keep_server_up(sim);
        if now >= self.next {
            self.next = now + self.millis(100, 1_500);
            self.strike(sim, now);
        }
    }

    /// A server that ended by itself is started again.
    pub fn keep_server_up(&mut self, sim: &mut Sim<'_>) {
        if !self.down.contains_key(net::SERVER) && !sim.is_host_running(net::SERVER) {
            self.crash_disk();
            sim.bounce(net::SERVER);
        }
    }

    pub fn heal_all(&mut self, sim: &mut Sim<'_>) {
        self.mend(sim, Duration::MAX);
    }

    fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.dice.between(low, high))
    }

    fn did(&mut self, kind: &str, target: &str) {
        *self.done.entry(kind.to_owned()).or_default() += 1;
        note_fault(&self.shared, kind, target);
    }

    /// Ends what has lasted long enough.
    fn mend(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let over: Vec<_> =
            self.down.iter().filter(|(_, until)| **until <= now).map(|(name, _)| *name).collect();
        for name in over {
            self.down.remove(name);
            sim.bounce(name);
        }
        let over: Vec<_> =
            self.links.iter().filter(|(_, (_, until))| *until <= now).map(|(n, _)| *n).collect();
        for name in over {
            match self.links.remove(name) {
                Some((Link::Cut, _)) => sim.repair(name, net::SERVER),
                Some((Link::CutToServer, _)) => sim.repair_oneway(name, net::SERVER),
                Some((Link::CutFromServer, _)) => sim.repair_oneway(net::SERVER, name),
                Some((Link::Held, _)) => sim.release(name, net::SERVER),
                Some((Link::Slow, _)) => sim.set_link_latency(name, net::SERVER, Duration::from_millis(1)),
                None => {}
            }
        }
        if self.disk_slow_until.is_some_and(|until| until <= now) {
            self.disk_slow_until = None;
            self.shared.disk.set_sync_ms(4);
        }
    }

    fn crash_disk(&mut self) {
        let (lost, kept) = self.shared.disk.crash();
        if lost > 0 {
            self.did("unsynced events lost", net::SERVER);
        }
        if kept > 0 {
            self.did("unsynced events kept", net::SERVER);
        }
    }

    fn strike(&mut self, sim: &mut Sim<'_>, now: Duration) {
        if self.only_clocks {
            return self.move_a_clock();
        }
        match self.dice.below(108) {
            0..8 => self.kill_server(sim, now),
            8..12 => {
                self.did("server restarted", net::SERVER);
                self.shared.restart_server.notify_one();
            }
            12..15 => {
                self.did("disk failed", net::SERVER);
                self.shared.disk.fail_next_sync();
            }
            15..20 => {
                self.did("disk slow", net::SERVER);
                let slowest = self.dice.between(50, 1_500);
                self.shared.disk.set_sync_ms(slowest);
                self.disk_slow_until = Some(now + self.millis(500, 6_000));
            }
            20..42 => {
                let (name, ..) = *self.dice.pick(&MEMBERS);
                // Sometimes within the grace of its keys, sometimes beyond.
                let length = self.millis(50, 9_000);
                self.kill(sim, name, now + length, "member killed");
            }
            42..50 => {
                let (name, ..) = *self.dice.pick(&MEMBERS);
                self.did("member left", name);
                self.shared.leave[name].store(true, Ordering::SeqCst);
            }
            50..54 => {
                let name = *self.dice.pick(&PUBLISHERS);
                let length = self.millis(50, 3_000);
                self.kill(sim, name, now + length, "publisher killed");
            }
            54..57 => {
                let name = *self.dice.pick(&FOLLOWERS);
                let length = self.millis(50, 3_000);
                self.kill(sim, name, now + length, "follower killed");
            }
            100..102 => {
                let name = *self.dice.pick(&REBUILDERS);
                let length = self.millis(50, 3_000);
                self.kill(sim, name, now + length, "rebuilder killed");
            }
            102.. => self.move_a_clock(),
            roll => self.break_link(sim, now, roll),
        }
    }

    /// Sets a clock wrong, or another way wrong; it stays so.
    fn move_a_clock(&mut self) {
        let ahead = self.dice.between(0, 2 * WRONG_MS) as i64 - WRONG_MS as i64;
        if self.dice.chance(500) {
            let kind = if ahead < self.server_ahead { "server's clock back" } else { "server's clock ahead" };
            self.server_ahead = ahead;
            self.did(kind, net::SERVER);
            move_clock(net::SERVER, ahead * 1_000);
        } else {
            let all: Vec<_> = clients().collect();
            let name = *self.dice.pick(&all);
            self.did("client's clock moved", name);
            move_clock(name, ahead * 1_000);
        }
    }

    fn kill_server(&mut self, sim: &mut Sim<'_>, now: Duration) {
        if self.down.contains_key(net::SERVER) {
            return;
        }
        self.did("server killed", net::SERVER);
        sim.crash(net::SERVER);
        self.crash_disk();
        let length = self.millis(20, 3_000);
        self.down.insert(net::SERVER, now + length);
    }

    fn kill(&mut self, sim: &mut Sim<'_>, name: &'static str, until: Duration, kind: &str) {
        if self.down.contains_key(name) {
            return;
        }
        self.did(kind, name);
        sim.crash(name);
        self.down.insert(name, until);
    }

    fn break_link(&mut self, sim: &mut Sim<'_>, now: Duration, roll: u64) {
        let all: Vec<_> = clients().collect();
        let name = *self.dice.pick(&all);
        if self.links.contains_key(name) {
            return;
        }
        let (link, length) = match roll {
            57..68 => (Link::Cut, self.millis(100, 15_000)),
            68..73 => (Link::CutToServer, self.millis(100, 12_000)),
            73..78 => (Link::CutFromServer, self.millis(100, 12_000)),
            // As a stopped process: everything arrives, much too late.
            78..92 => (Link::Held, self.millis(100, 14_000)),
            _ => (Link::Slow, self.millis(500, 8_000)),
        };
        match link {
            Link::Cut => sim.partition(name, net::SERVER),
            Link::CutToServer => sim.partition_oneway(name, net::SERVER),
            Link::CutFromServer => sim.partition_oneway(net::SERVER, name),
            Link::Held => sim.hold(name, net::SERVER),
            Link::Slow => {
                let latency = self.millis(100, 800);
                sim.set_link_latency(name, net::SERVER, latency);
            }
        }
        let kind = match link {
            Link::Cut => "link cut",
            Link::CutToServer | Link::CutFromServer => "link cut one way",
            Link::Held => "link held",
            Link::Slow => "link slow",
        };
        self.did(kind, name);
        self.links.insert(name, (link, now + length));
    }
}
