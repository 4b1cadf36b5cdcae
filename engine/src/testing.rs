//! What authors of topologies, and the engine's own tests, test with: feed tuples, move the clock, read what
//! was acked, failed and seen.
//!
//! ```
//! use galerna_engine::testing::Harness;
//! use galerna_topology::prelude::*;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let harness = Harness::new();
//! let feed = harness.feed::<i64>();
//! let seen = harness.seen::<i64>();
//!
//! let mut topology = TopologyBuilder::new("doubling");
//! let numbers = topology.spout("feed", feed.spout()).outputs();
//! let doubled = topology.map("double", |n: i64| n * 2).shuffle(numbers).outputs();
//! topology.bolt("seen", seen.bolt()).shuffle(doubled);
//!
//! let run = harness.start(topology.build()?).await?;
//! feed.emit(1, 21);
//! run.settle().await;
//! assert_eq!(seen.values(), [42]);
//! assert_eq!(feed.acked(), [1]);
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use galerna_lock::Mutex;
use galerna_topology::prelude::*;
use tokio::sync::Notify;

use crate::{DrainReport, Engine, EngineError, EngineOptions, ManualClock, Metrics, Running, SpoutState};

/// How long a test waits for something before it gives up, in real time.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How many looks in a row, a millisecond apart, must find nothing going on.
const QUIET_CHECKS: usize = 5;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// How many roots feeds hold back. A feed counts one down while its spout is in `next`, which counts as
/// in flight itself, so there is no moment at which a root is nowhere.
type Queued = Arc<AtomicUsize>;

/// Lets a millisecond of real time go by, also where tokio's is paused. What happens in other threads meanwhile
/// cannot be awaited from outside of the engine.
#[expect(
    clippy::disallowed_methods,
    reason = "tokio's time may be paused; the thread is of the blocking pool"
)]
async fn real_millisecond() {
    let _ = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await;
}

/// Makes feeds and runs topologies on a clock that only the test moves.
#[derive(Debug, Default)]
pub struct Harness {
    clock: ManualClock,
    queued: Queued,
    options: Option<EngineOptions>,
}

impl Harness {
    /// A harness with its clock at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs with other options than the default; the clock stays the harness's.
    #[must_use]
    pub fn with_options(mut self, options: EngineOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// A spout that emits what the test says. One harness runs one topology.
    pub fn feed<T: Clone + Send + 'static>(&self) -> Feed<T> {
        Feed { shared: Arc::default(), queued: self.queued.clone() }
    }

    /// A bolt that remembers what it sees, and acks it.
    pub fn seen<T: Clone + Send + 'static>(&self) -> Seen<T> {
        Seen { tuples: Arc::default() }
    }

    /// The clock, to move it.
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Submits a topology.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn start(self, topology: Topology) -> Result<Run, EngineError> {
        let clock: Arc<dyn galerna_topology::Clock> = Arc::new(self.clock.clone());
        let options = EngineOptions { clock: Some(clock), ..self.options.unwrap_or_default() };
        let running = Engine::submit(topology, options).await?;
        Ok(Run { running, clock: self.clock, queued: self.queued })
    }
}

/// A topology under test.
#[derive(Debug)]
pub struct Run {
    running: Running,
    clock: ManualClock,
    queued: Queued,
}

impl Run {
    /// Resolves when nothing goes on any more: all that can be emitted has been, and nothing is between tasks.
    ///
    /// # Panics
    /// If that does not happen within 30 s of real time.
    pub async fn settle(&self) {
        let mut quiet = 0;
        let start = std::time::Instant::now();
        while quiet < QUIET_CHECKS {
            assert!(start.elapsed() < WAIT_TIMEOUT, "the topology did not settle: {:#?}", self.metrics());
            tokio::task::yield_now().await;
            real_millisecond().await;
            let fed = self.queued.load(Ordering::SeqCst) == 0 || !self.can_emit();
            quiet = if fed && self.running.is_idle() { quiet + 1 } else { 0 };
        }
    }

    fn can_emit(&self) -> bool {
        let metrics = self.metrics();
        let mut states = metrics.components.iter().flat_map(|component| &component.states);
        states.any(|state| {
            matches!(state, SpoutState::Emitting | SpoutState::NoData | SpoutState::DownstreamFull(_))
        })
    }

    /// Resolves when the condition holds.
    ///
    /// # Panics
    /// If that does not happen within 30 s of real time.
    pub async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let start = std::time::Instant::now();
        while !condition() {
            assert!(start.elapsed() < WAIT_TIMEOUT, "waited in vain until {what}: {:#?}", self.metrics());
            real_millisecond().await;
        }
    }

    /// Moves the clock and waits for what that leads to.
    ///
    /// # Panics
    /// As [`settle`](Self::settle).
    pub async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.settle().await;
    }

    /// All counts and latencies now.
    pub fn metrics(&self) -> Metrics {
        self.running.metrics()
    }

    /// The running topology.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The clock, to move it while something is awaited.
    pub fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    /// Ends the topology; see [`Running::drain`]. The deadline is of the test's clock.
    pub async fn drain(self, deadline: Duration) -> DrainReport {
        self.running.drain(deadline).await
    }

    /// Ends the topology as [`Running::kill`](crate::Running::kill) does.
    pub async fn kill(self) -> DrainReport {
        self.running.kill().await
    }
}

/// A spout in the hands of a test. Clones are the same feed.
#[derive(Debug)]
pub struct Feed<T> {
    shared: Arc<FeedShared<T>>,
    queued: Queued,
}

#[derive(Debug)]
struct FeedShared<T> {
    state: Mutex<FeedState<T>>,
    more: Notify,
}

#[derive(Debug)]
struct FeedState<T> {
    queue: VecDeque<(Option<u64>, Vec<T>)>,
    done: bool,
    calls: u64,
    acked: Vec<u64>,
    failed: Vec<Failed<u64>>,
    log: Vec<&'static str>,
}

impl<T> Default for FeedShared<T> {
    fn default() -> Self {
        let state = FeedState {
            queue: VecDeque::new(),
            done: false,
            calls: 0,
            acked: Vec::new(),
            failed: Vec::new(),
            log: Vec::new(),
        };
        Self { state: Mutex::new(state), more: Notify::new() }
    }
}

impl<T> Clone for Feed<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), queued: self.queued.clone() }
    }
}

impl<T: Clone + Send + 'static> Feed<T> {
    /// What to give to [`TopologyBuilder::spout`]. With several tasks, any of them emits what is fed.
    pub fn spout(&self) -> impl Fn() -> FeedSpout<T> + Send + Sync + 'static {
        let feed = self.clone();
        move || FeedSpout { feed: feed.clone() }
    }

    fn push(&self, id: Option<u64>, values: Vec<T>) {
        self.queued.fetch_add(1, Ordering::SeqCst);
        lock(&self.shared.state).queue.push_back((id, values));
        self.shared.more.notify_one();
    }

    /// Emits a root of one tuple.
    pub fn emit(&self, id: u64, value: T) {
        self.push(Some(id), vec![value]);
    }

    /// Emits a root of several tuples.
    pub fn emit_all(&self, id: u64, values: impl IntoIterator<Item = T>) {
        self.push(Some(id), values.into_iter().collect());
    }

    /// Emits a tuple that nobody waits for.
    pub fn emit_untracked(&self, value: T) {
        self.push(None, vec![value]);
    }

    /// The spout says that it is done when it has emitted all that was fed.
    pub fn done(&self) {
        lock(&self.shared.state).done = true;
        self.shared.more.notify_one();
    }

    /// The roots acked so far, in the order in which the spout heard of it.
    pub fn acked(&self) -> Vec<u64> {
        lock(&self.shared.state).acked.clone()
    }

    /// The roots failed so far.
    pub fn failed(&self) -> Vec<Failed<u64>> {
        lock(&self.shared.state).failed.clone()
    }

    /// How often `next` was called.
    pub fn calls(&self) -> u64 {
        lock(&self.shared.state).calls
    }

    /// The lifecycle hooks called so far: `open`, `activate`, `deactivate`, `close`.
    pub fn log(&self) -> Vec<&'static str> {
        lock(&self.shared.state).log.clone()
    }
}

/// The spout of a [`Feed`].
#[derive(Debug)]
pub struct FeedSpout<T> {
    feed: Feed<T>,
}

impl<T: Clone + Send + 'static> FeedSpout<T> {
    fn note(&self, hook: &'static str) {
        lock(&self.feed.shared.state).log.push(hook);
    }
}

impl<T: Clone + Send + 'static> Spout for FeedSpout<T> {
    type MessageId = u64;
    type Outputs = Output<T>;

    async fn open(&mut self, _context: &TaskContext) -> Result<(), Fault> {
        self.note("open");
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let mut state = lock(&self.feed.shared.state);
        state.calls += 1;
        let Some((id, values)) = state.queue.pop_front() else {
            if state.done {
                self.feed.shared.more.notify_one();
                return Ok(Next::Done);
            }
            return Ok(Next::Idle);
        };
        if !state.queue.is_empty() {
            // Another task of the same feed may wait, and this one may be held up.
            self.feed.shared.more.notify_one();
        }
        drop(state);
        let port = match id {
            Some(id) => out.root(id),
            None => out.untracked(),
        };
        values.into_iter().for_each(|value| port.emit(value));
        self.feed.queued.fetch_sub(1, Ordering::SeqCst);
        Ok(Next::Ready)
    }

    async fn ready(&mut self) {
        self.feed.shared.more.notified().await;
    }

    async fn acked(&mut self, ids: &mut Vec<u64>) {
        lock(&self.feed.shared.state).acked.append(ids);
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        lock(&self.feed.shared.state).failed.append(failed);
    }

    async fn activate(&mut self) {
        self.note("activate");
    }

    async fn deactivate(&mut self) {
        self.note("deactivate");
    }

    async fn close(&mut self) {
        self.note("close");
    }
}

/// What a remembering bolt saw. Clones are the same memory.
#[derive(Debug)]
pub struct Seen<T> {
    tuples: Arc<Mutex<Vec<(usize, T)>>>,
}

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self { tuples: self.tuples.clone() }
    }
}

impl<T: Clone + Send + 'static> Seen<T> {
    /// What to give to [`TopologyBuilder::bolt`].
    pub fn bolt(&self) -> impl Fn() -> SeenBolt<T> + Send + Sync + 'static {
        let seen = self.clone();
        move || SeenBolt { seen: seen.clone() }
    }

    /// The values seen so far by all tasks, in the order of arrival.
    pub fn values(&self) -> Vec<T> {
        lock(&self.tuples).iter().map(|(_, value)| value.clone()).collect()
    }

    /// The values, each with the index of the task that saw it.
    pub fn by_task(&self) -> Vec<(usize, T)> {
        lock(&self.tuples).clone()
    }

    /// How many values were seen.
    pub fn count(&self) -> usize {
        lock(&self.tuples).len()
    }
}

/// The bolt of a [`Seen`].
#[derive(Debug)]
pub struct SeenBolt<T> {
    seen: Seen<T>,
}

impl<T: Clone + Send + 'static> Bolt for SeenBolt<T> {
    type Input = T;
    type Outputs = ();

    fn execute(&mut self, input: T, out: &mut Emitter<()>) -> Result<(), Fault> {
        lock(&self.seen.tuples).push((out.context().task(), input));
        Ok(())
    }
}
