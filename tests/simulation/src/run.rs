//! One run: its processes, what befalls them, and what must hold in the end.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use galerna_directory::{AccountsSource, DirectoryError, Listing};
use galerna_dispatcher::{Dispatcher, DispatcherOptions, MaintainerLink, Ping, PingError, StrategyName};
use galerna_lease::{Timing, invariants};
use galerna_lock::Mutex;
use galerna_maintainer::{Guard, Maintainer, Options as MaintainerOptions, Schedule};
use galerna_model::{Account, AccountId, QueueName};
use galerna_storage::Store;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::broker::SimulatedBroker;
use crate::network::{Network, Processes};
use crate::store::SimulatedStore;
use crate::worker::{Traces, Worker};
use crate::world::{World, WrongClock};

/// How long after the last fault everything must be stored. Queues of crashed workers are held back for up to
/// [`Timing::max_crash_delay`], five minutes.
const DRAINED_WITHIN: Duration = Duration::from_secs(1_800);

/// What a run is like; all else is decided by its seed.
#[derive(Debug, Clone)]
pub struct Options {
    /// What all chances of the run come from.
    pub seed: u64,
    /// How long things fail, in simulated time.
    pub faults_for: Duration,
    /// Whether workers go on when their lease is over. Such a run must be found wrong.
    pub careless: bool,
    /// Whether each step is printed.
    pub print: bool,
}

impl Options {
    /// Two minutes of faults.
    pub fn new(seed: u64) -> Self {
        Self { seed, faults_for: Duration::from_secs(120), careless: false, print: false }
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What went wrong first, if anything did.
    pub violation: Option<String>,
    /// How many things happened.
    pub steps: u64,
    /// A number for all that happened, in order: the same for the same seed.
    pub history: u64,
    /// Messages whose publication was confirmed, all of them stored in the end.
    pub messages: u64,
    /// Leases that were given to somebody.
    pub leases: u64,
}

/// The accounts that there are: some come and go.
struct Accounts {
    world: Arc<World>,
    gone: Mutex<BTreeSet<usize>>,
    all: usize,
}

fn queue(n: usize) -> QueueName {
    format!("Q{n}").parse().unwrap_or_else(|_| unreachable!("a Q with a number is a name"))
}

#[async_trait]
impl AccountsSource for Accounts {
    fn describe(&self) -> String {
        "the simulation".to_owned()
    }

    async fn accounts(&self) -> Result<Listing<Account>, DirectoryError> {
        sleep(self.world.latency()).await;
        if self.world.fails(0.1) {
            return Err(DirectoryError::Status { from: self.describe(), status: 503, body: String::new() });
        }
        let gone = self.gone.lock().clone();
        let mut listing = Listing::default();
        for n in 0..self.all {
            let Ok(id) = AccountId::new(format!("a{n}")) else { continue };
            let account =
                Account { id, name: format!("account {n}"), queue: queue(n), active: !gone.contains(&n) };
            listing.entries.push(account);
        }
        Ok(listing)
    }
}

/// Whether the maintainer that runs is on time.
#[derive(Clone, Default)]
struct MaintainerPing(Arc<Mutex<Option<Maintainer>>>);

#[async_trait]
impl Ping for MaintainerPing {
    async fn ping(&self) -> Result<(), PingError> {
        match &*self.0.lock() {
            Some(maintainer) => {
                maintainer.check_on_time().map_err(|late| PingError::NotWorking(late.to_string()))
            }
            None => Err(PingError::Unreachable("connection refused".to_owned())),
        }
    }
}

struct Run {
    world: Arc<World>,
    options: Options,
    timing: Timing,
    store: SimulatedStore,
    /// The store as the dispatcher opens it; only queue states and settings are used.
    handle: Store,
    broker: SimulatedBroker,
    accounts: Arc<Accounts>,
    processes: Processes,
    clocks: Vec<WrongClock>,
    maintainer: MaintainerPing,
    maintaining: Option<JoinHandle<()>>,
    networks: Vec<Network>,
    workers: Vec<JoinHandle<()>>,
    traces: Arc<Traces>,
    published: Arc<Mutex<BTreeSet<u64>>>,
}

/// The stores that a dispatcher is given and does not use.
fn other_stores() -> Result<Store, Box<dyn std::error::Error>> {
    static STORE: OnceLock<Store> = OnceLock::new();
    match STORE.get() {
        Some(store) => Ok(store.clone()),
        None => {
            let opened = galerna_storage::sqlite::in_memory()?;
            Ok(STORE.get_or_init(|| opened).clone())
        }
    }
}

/// Runs one seed.
///
/// # Errors
/// When the simulation itself cannot be set up.
pub fn run(options: &Options) -> Result<Outcome, Box<dyn std::error::Error>> {
    // Jitter is drawn from the thread's own generator.
    fastrand::seed(options.seed);
    let store = other_stores()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let mut run = Run::new(options.clone(), store);
        run.go().await;
        Ok(run.outcome())
    })
}

impl Run {
    fn new(options: Options, other: Store) -> Self {
        let world = World::new(options.seed, options.print);
        let lease = Duration::from_secs([1, 3, 12, 30][world.below(4)]);
        let store = SimulatedStore::new(Arc::clone(&world));
        let mut handle = other;
        handle.queues = Arc::new(store.clone());
        handle.settings = Arc::new(store.clone());
        let accounts =
            Arc::new(Accounts { world: Arc::clone(&world), gone: Mutex::default(), all: 1 + world.below(8) });
        let processes: Processes = Arc::new((0..1 + world.below(3)).map(|_| Mutex::default()).collect());
        let timing = Timing::with_lease(lease);
        let network = |_| Network {
            world: Arc::clone(&world),
            processes: Arc::clone(&processes),
            timing: timing.clone(),
            cut_until: Arc::default(),
        };
        let networks: Vec<Network> = (0..1 + world.below(5)).map(network).collect();
        Self {
            broker: SimulatedBroker::new(Arc::clone(&world)),
            clocks: (0..=processes.len()).map(|_| WrongClock::new(&world)).collect(),
            workers: networks.iter().map(|_| tokio::spawn(async {})).collect(),
            store,
            handle,
            accounts,
            processes,
            maintainer: MaintainerPing::default(),
            maintaining: None,
            networks,
            traces: Arc::default(),
            published: Arc::default(),
            timing,
            options,
            world,
        }
    }

    async fn go(&mut self) {
        let end = Instant::now() + self.options.faults_for;
        for n in 0..self.processes.len() {
            self.start_dispatcher(n);
        }
        self.start_maintainer();
        for n in 0..self.networks.len() {
            self.start_worker(n);
        }
        let publisher = self.publish();
        while Instant::now() < end && self.world.violation().is_none() {
            sleep(self.world.between(Duration::from_millis(1), Duration::from_secs(2))).await;
            self.disturb().await;
        }
        publisher.abort();
        let _ended = publisher.await;
        self.recover();
        self.within(DRAINED_WITHIN, "stored", Self::is_stored).await;
        // Those who hold leases are killed: the leases expire.
        self.workers.iter().for_each(JoinHandle::abort);
        for worker in std::mem::take(&mut self.workers) {
            let _ended = worker.await;
        }
        let expired_within = self.timing.lease * 2 + self.timing.sweep + Duration::from_secs(30);
        self.within(expired_within, "given back", Self::is_given_back).await;
        for (queue, tenures) in &*self.traces.tenures.lock() {
            if let Err(violation) = invariants::history(tenures) {
                self.world.violated(format!("{queue}: {violation}: {tenures:?}"));
            }
        }
    }

    /// Waits until something holds.
    async fn within(&self, limit: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + limit;
        while !holds(self) && self.world.violation().is_none() {
            if Instant::now() > end {
                let stored = self.traces.stored.lock();
                let missing: Vec<u64> = self.published.lock().difference(&stored).copied().take(5).collect();
                let records = self.store.records();
                self.world.violated(format!("not {what} after {limit:?}: {missing:?} missing, {records:?}"));
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    fn is_stored(&self) -> bool {
        self.published.lock().is_subset(&self.traces.stored.lock()) && self.broker.messages() == 0
    }

    fn is_given_back(&self) -> bool {
        self.store.records().iter().all(|record| record.lease.is_none())
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            violation: self.world.violation(),
            steps: self.world.steps(),
            history: self.world.history(),
            messages: self.published.lock().len() as u64,
            leases: self.traces.tenures.lock().values().map(Vec::len).sum::<usize>() as u64,
        }
    }

    fn start_dispatcher(&self, n: usize) {
        let options = DispatcherOptions {
            name: format!("dispatcher-{n}"),
            timing: self.timing.clone(),
            strategy: [StrategyName::Fifo, StrategyName::Lru, StrategyName::Fair][self.world.below(3)],
            maintainer: MaintainerLink::Local(Arc::new(self.maintainer.clone())),
            committers: 1 + self.world.below(3),
            clock: Arc::new(self.clocks[n].clone()),
            ..DispatcherOptions::default()
        };
        let (world, processes, handle) =
            (Arc::clone(&self.world), Arc::clone(&self.processes), self.handle.clone());
        world.step(format_args!("dispatcher {n}: starts"));
        tokio::spawn(async move {
            // A service manager starts it again until it comes up.
            loop {
                if processes[n].lock().dispatcher().is_some() {
                    return; // Another start was quicker.
                }
                let options = DispatcherOptions { registry: prometheus::Registry::new(), ..options.clone() };
                match Dispatcher::open(&handle, options).await {
                    Ok(dispatcher) => {
                        world.step(format_args!("dispatcher {n}: is up"));
                        return processes[n].lock().start(dispatcher);
                    }
                    Err(error) => {
                        world.step(format_args!("dispatcher {n}: does not start: {error}"));
                        sleep(Duration::from_millis(500)).await;
                    }
                }
            }
        });
    }

    fn start_maintainer(&mut self) {
        let every =
            |millis| Schedule { every: Duration::from_millis(millis), timeout: Duration::from_secs(5) };
        let options = MaintainerOptions {
            accounts: every(3_000),
            empties: every(1_000),
            timeouts: every(2_000),
            deletions: every(3_000),
            guard: Guard { may_lose: 100, keep_ratio: 0.0 },
            linger: Duration::from_secs(5),
            settle: Duration::from_secs(1),
            lease_timeout: self.timing.lease.max(Duration::from_secs(1)) * 3,
            timing: self.timing.clone(),
            ..MaintainerOptions::default()
        };
        let clock = self.clocks[self.processes.len()].clone();
        let (queues, broker) = (Arc::clone(&self.handle.queues), Arc::new(self.broker.clone()));
        let accounts: Arc<dyn AccountsSource> = self.accounts.clone();
        match Maintainer::new(queues, broker, accounts, options, Arc::new(clock)) {
            Ok(maintainer) => {
                self.maintaining = Some(maintainer.spawn(CancellationToken::new()));
                *self.maintainer.0.lock() = Some(maintainer);
            }
            Err(error) => self.world.violated(format!("the maintainer does not start: {error}")),
        }
    }

    fn kill_maintainer(&mut self) {
        if let Some(maintaining) = self.maintaining.take() {
            maintaining.abort();
        }
        *self.maintainer.0.lock() = None;
    }

    fn start_worker(&mut self, n: usize) {
        let worker = Worker {
            world: Arc::clone(&self.world),
            name: format!("worker-{n}"),
            network: self.networks[n].clone(),
            broker: self.broker.clone(),
            traces: Arc::clone(&self.traces),
            careless: self.options.careless,
        };
        self.workers[n] = tokio::spawn(worker.run());
    }

    /// Publishes messages to random queues until it is stopped, and notes those that were confirmed.
    fn publish(&self) -> JoinHandle<()> {
        let (world, broker, published) =
            (Arc::clone(&self.world), self.broker.clone(), Arc::clone(&self.published));
        let queues = self.accounts.all;
        let busy = world.between(Duration::from_millis(20), Duration::from_secs(2));
        tokio::spawn(async move {
            for id in 0.. {
                sleep(world.between(Duration::ZERO, busy)).await;
                let queue = queue(world.below(queues));
                if broker.publish_one(&queue, id).await.is_ok() {
                    published.lock().insert(id);
                }
            }
        })
    }

    /// One misfortune.
    async fn disturb(&mut self) {
        let world = Arc::clone(&self.world);
        match world.below(14) {
            0 | 1 => {
                let n = world.below(self.processes.len());
                world.step(format_args!("dispatcher {n}: killed"));
                self.processes[n].lock().kill();
                self.start_dispatcher(n);
            }
            2 => {
                world.step(format_args!("maintainer: killed"));
                self.kill_maintainer();
                self.start_maintainer();
            }
            3 | 4 => {
                let n = world.below(self.workers.len());
                world.step(format_args!("worker {n}: killed"));
                self.workers[n].abort();
                self.start_worker(n);
            }
            5 => self.store.disturb(),
            6 => self.broker.disturb(),
            7 => self.networks[world.below(self.networks.len())].cut(),
            8 => self.clocks[world.below(self.clocks.len())].jump(&world),
            9 => {
                let n = world.below(self.accounts.all);
                let mut gone = self.accounts.gone.lock();
                if !gone.remove(&n) {
                    gone.insert(n);
                }
                world.step(format_args!("account {n}: {}", if gone.contains(&n) { "gone" } else { "there" }));
            }
            10 | 11 => self.operate().await,
            _ => {}
        }
    }

    /// An operator pauses or unpauses a queue, or stops and starts the dispatchers.
    async fn operate(&self) {
        let n = self.world.below(self.processes.len());
        let Some(dispatcher) = self.processes[n].lock().dispatcher().cloned() else { return };
        let queue = queue(self.world.below(self.accounts.all));
        let asked = async {
            match self.world.below(5) {
                0 => drop(dispatcher.pause(&queue, Some("a look".to_owned()), "operator").await),
                1 | 2 => drop(dispatcher.unpause(&queue, "operator").await),
                3 => drop(dispatcher.set_strategy(StrategyName::Fair).await),
                _ => {
                    drop(dispatcher.stop().await);
                    drop(dispatcher.start().await);
                }
            }
        };
        let _answered = tokio::time::timeout(Duration::from_secs(3), asked).await;
    }

    /// Nothing fails any more: everything runs, all accounts are there, no queue is paused.
    fn recover(&mut self) {
        self.world.end_faults();
        self.store.mend();
        self.broker.mend();
        self.accounts.gone.lock().clear();
        for network in &self.networks {
            *network.cut_until.lock() = None;
        }
        let (world, processes, all) =
            (Arc::clone(&self.world), Arc::clone(&self.processes), self.accounts.all);
        tokio::spawn(async move {
            // What was asked for before and is still on its way, a stop of the dispatchers among it, comes to its end first.
            sleep(Duration::from_secs(20)).await;
            let mut to_do: BTreeSet<QueueName> = (0..all).map(queue).collect();
            let mut started = false;
            while !to_do.is_empty() || !started {
                let dispatcher = processes[0].lock().dispatcher().cloned();
                if let Some(dispatcher) = dispatcher {
                    started = started || dispatcher.start().await.is_ok();
                    for queue in to_do.clone() {
                        if dispatcher.unpause(&queue, "operator").await.is_ok() {
                            world.step(format_args!("{queue}: unpaused"));
                            to_do.remove(&queue);
                        }
                    }
                }
                sleep(Duration::from_millis(200)).await;
            }
        });
    }
}
