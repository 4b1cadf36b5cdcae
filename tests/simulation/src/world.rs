//! What all of a run share: its chances, its clock and its record of what happened.

use std::fmt;
use std::hash::Hasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use galerna_lock::Mutex;
use galerna_model::{Clock, Timestamp};
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// The wall time at which every run begins.
const START_MS: i64 = 1_790_000_000_000;

pub(crate) struct World {
    pub(crate) began: Instant,
    random: Mutex<fastrand::Rng>,
    /// Whether anything may fail.
    faults: AtomicBool,
    steps: AtomicU64,
    history: Mutex<Xxh3>,
    violation: Mutex<Option<String>>,
    /// Whether each step is printed.
    print: bool,
}

impl World {
    pub(crate) fn new(seed: u64, print: bool) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            faults: AtomicBool::new(true),
            steps: AtomicU64::new(0),
            history: Mutex::new(Xxh3::new()),
            violation: Mutex::new(None),
            print,
        })
    }

    /// From now on nothing fails.
    pub(crate) fn end_faults(&self) {
        self.faults.store(false, Ordering::Relaxed);
        self.step(format_args!("faults end"));
    }

    /// Whether something fails that does with this probability while there are faults.
    pub(crate) fn fails(&self, probability: f64) -> bool {
        self.faults.load(Ordering::Relaxed) && self.chance(probability)
    }

    pub(crate) fn chance(&self, probability: f64) -> bool {
        self.random.lock().f64() < probability
    }

    pub(crate) fn below(&self, end: usize) -> usize {
        self.random.lock().usize(..end)
    }

    pub(crate) fn between(&self, least: Duration, most: Duration) -> Duration {
        least + (most - least).mul_f64(self.random.lock().f64())
    }

    /// How long a message or an operation takes: usually a millisecond or so, seldom seconds.
    pub(crate) fn latency(&self) -> Duration {
        if self.fails(0.01) {
            self.between(Duration::from_millis(20), Duration::from_secs(6))
        } else {
            self.between(Duration::from_micros(100), Duration::from_millis(3))
        }
    }

    /// Something happened: it becomes part of the run's history.
    pub(crate) fn step(&self, what: fmt::Arguments<'_>) {
        let step = self.count();
        let line = format!("{:>9.3} {what}", self.began.elapsed().as_secs_f64());
        if self.print {
            println!("{step:>7} {line}");
        }
        self.history.lock().write(line.as_bytes());
    }

    /// An operation of the store, of the broker or of the network is one step more.
    pub(crate) fn count(&self) -> u64 {
        self.steps.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// A number for all that has happened, in order.
    pub(crate) fn history(&self) -> u64 {
        self.history.lock().finish()
    }

    /// Something happened that must not.
    pub(crate) fn violated(&self, what: String) {
        self.step(format_args!("VIOLATION {what}"));
        self.violation.lock().get_or_insert(what);
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.violation.lock().clone()
    }

    /// True time, in microseconds since the beginning.
    pub(crate) fn micros(&self, at: Instant) -> u64 {
        u64::try_from((at - self.began).as_micros()).unwrap_or(u64::MAX)
    }
}

/// The wall clock of one process: wrong by some seconds or hours, and it jumps.
#[derive(Clone)]
pub(crate) struct WrongClock {
    began: Instant,
    offset_ms: Arc<AtomicI64>,
}

impl WrongClock {
    pub(crate) fn new(world: &World) -> Self {
        let clock = Self { began: world.began, offset_ms: Arc::default() };
        clock.jump(world);
        clock
    }

    pub(crate) fn jump(&self, world: &World) {
        let most = if world.chance(0.2) { 48 * 3_600_000 } else { 5_000 };
        let offset = world.below(2 * most + 1) as i64 - most as i64;
        self.offset_ms.store(offset, Ordering::Relaxed);
    }
}

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp(START_MS + elapsed + self.offset_ms.load(Ordering::Relaxed))
    }
}
