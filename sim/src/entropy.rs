//! Random numbers and the time of day, from the seed.
//!
//! # Promises
//! 1. After [`seed`], everything in this process that asks the system for random
//!    bytes (hash maps, uuids, tokio's `select!`) gets them from the seed, and
//!    everything that asks for the time of day (the time in a uuid) gets virtual time.
//! 2. Each host has a wall clock of its own ([`of_host`]), which [`move_clock`] sets
//!    wrong; a host that was never named has the right time.
//! 3. Without a seed, the kernel answers as always.
//!
//! # Not here
//! The monotonic clock: tokio's is paused on simulated hosts and moves with them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Id};

static SEEDED: AtomicBool = AtomicBool::new(false);
static STATE: AtomicU64 = AtomicU64::new(0);
/// Microseconds since 1970.
static NOW: AtomicU64 = AtomicU64::new(EPOCH_SECONDS * 1_000_000);

/// When every simulation begins: 2026-01-01.
pub const EPOCH_SECONDS: u64 = 1_767_225_600;

/// From now on the seed answers. One process runs one seed: some libraries count
/// in statics, and a second run would go on where the first one stopped.
pub fn seed(seed: u64) {
    STATE.store(seed, Ordering::SeqCst);
    SEEDED.store(true, Ordering::SeqCst);
}

/// The virtual time of day is at least this far from the epoch. Each question
/// moves it on a little: time never stands still between two uuids.
pub fn set_time(since_epoch: Duration) {
    NOW.fetch_max(EPOCH_SECONDS * 1_000_000 + since_epoch.as_micros() as u64, Ordering::SeqCst);
}

/// The wall clocks of all hosts: how far each is ahead of the time of day.
static CLOCKS: Mutex<Clocks> = Mutex::new(Clocks { runtimes: Vec::new(), ahead: Vec::new() });

struct Clocks {
    /// A host has a runtime of its own, and another one each time it starts.
    runtimes: Vec<(Id, &'static str)>,
    /// Microseconds.
    ahead: Vec<(&'static str, i64)>,
}

fn clocks() -> MutexGuard<'static, Clocks> {
    CLOCKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever asks for the time in this runtime asks the clock of this host.
pub fn of_host(host: &'static str) {
    clocks().runtimes.push((Handle::current().id(), host));
}

/// From now on the clock of this host is so far ahead of the time of day, or behind.
pub fn move_clock(host: &'static str, ahead_us: i64) {
    let mut clocks = clocks();
    clocks.ahead.retain(|(other, _)| *other != host);
    clocks.ahead.push((host, ahead_us));
}

fn ahead_here() -> i64 {
    let Ok(runtime) = Handle::try_current().map(|handle| handle.id()) else { return 0 };
    let clocks = clocks();
    let host = clocks.runtimes.iter().rev().find(|(id, _)| *id == runtime).map(|(_, host)| *host);
    clocks.ahead.iter().find(|(other, _)| Some(*other) == host).map_or(0, |(_, ahead)| *ahead)
}

/// Takes the place of the C library's function of this name.
///
/// # Safety
/// As for `clock_gettime(2)`: `time` must be writable.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    if clock != libc::CLOCK_REALTIME || !SEEDED.load(Ordering::SeqCst) {
        // SAFETY: the caller's promise is handed on as it is.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    }
    let micros = NOW.fetch_add(1, Ordering::SeqCst).saturating_add_signed(ahead_here());
    let now = libc::timespec {
        tv_sec: (micros / 1_000_000) as libc::time_t,
        tv_nsec: (micros % 1_000_000 * 1_000) as libc::c_long,
    };
    // SAFETY: the caller promised that this is writable.
    unsafe { time.write(now) };
    0
}

/// Takes the place of the C library's function of this name.
///
/// # Safety
/// As for `getrandom(2)`: `buffer` must be writable for `length` bytes.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if !SEEDED.load(Ordering::SeqCst) {
        // SAFETY: the caller's promise is handed on as it is.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as isize;
    }
    for at in 0..length {
        let state = STATE.fetch_add(GOLDEN, Ordering::SeqCst);
        // SAFETY: `at` is below `length`, and the caller promised that much.
        unsafe { buffer.add(at).write(mix(state) as u8) };
    }
    length as isize
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The choices of one actor: SplitMix64, the same for the same seed and name.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64, name: &str) -> Self {
        Self(mix(seed.wrapping_mul(GOLDEN) ^ digest(name.as_bytes())))
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Evenly from 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// FNV-1a: for traces and contents, where only equality counts.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
