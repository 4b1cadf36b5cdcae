//! Runs a function for each firing.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::Clock;
use galerna_topology::Fault;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, Order, Report};
use crate::{Firing, FiringId, ScheduleStore, Scheduler, SchedulerOptions};

/// How a [`Runner`] runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerOptions {
    /// How this process takes part.
    pub scheduler: SchedulerOptions,
    /// Firings that run at once.
    pub concurrency: usize,
    /// A firing that runs longer is stopped, and has failed by a transient fault. None by default.
    pub timeout: Option<Duration>,
    /// When the runner is to end, what runs has so long; then it is stopped, to be run again by another.
    pub drain: Duration,
}

impl Default for RunnerOptions {
    /// 16 at once, without a limit to their time but 30 s at the end.
    fn default() -> Self {
        Self {
            scheduler: SchedulerOptions::default(),
            concurrency: 16,
            timeout: None,
            drain: Duration::from_secs(30),
        }
    }
}

/// Runs a function for each firing that this process claims: publishes it to a queue, calls a service, does the work.
///
/// The function gets the firing, and a token that is cancelled when it is to stop (for a later firing under `cancel_other`), or when the
/// claim is lost. A function that returns an error, panics or takes too long has failed by the kind of its fault. What it does may be
/// done twice if this process is lost in the middle: give [`FiringId`] to whoever receives it, or set `retry.attempts` to 1.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn galerna_schedules::ScheduleStore>) {
/// use galerna_schedules::{Runner, RunnerOptions};
/// use tokio_util::sync::CancellationToken;
///
/// let stop = CancellationToken::new();
/// let runner = Runner::new(store, std::sync::Arc::new(galerna_model::SystemClock), RunnerOptions::default());
/// runner.run(stop, |firing, _cancelled| async move {
///     println!("{} with {}", firing.id, firing.payload);
///     Ok(())
/// })
/// .await;
/// # }
/// ```
#[derive(Debug)]
pub struct Runner {
    scheduler: Scheduler,
    options: RunnerOptions,
}

/// A firing that runs.
struct Running {
    firing: Firing,
    cancel: CancellationToken,
    lost: bool,
}

impl Runner {
    /// Takes part in the schedules of a store.
    pub fn new(store: Arc<dyn ScheduleStore>, clock: Arc<dyn Clock>, options: RunnerOptions) -> Self {
        let scheduler = Scheduler::new(store, clock, options.scheduler.clone());
        Self { scheduler, options }
    }

    /// Runs until `stop`, and then until what runs has ended, or the time for that.
    pub async fn run<F, Fut>(self, stop: CancellationToken, run: F)
    where
        F: Fn(Firing, CancellationToken) -> Fut,
        Fut: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let Self { scheduler, options } = self;
        let most = options.concurrency.max(1);
        let mut driver = Driver::start(scheduler, most);
        driver.set_room(most);
        let mut tasks: JoinSet<Result<(), Fault>> = JoinSet::new();
        let mut running: HashMap<Id, Running> = HashMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => settle(&driver, &mut running, ended).await,
                order = driver.orders.recv() => match order {
                    Some(Order::Run(firing)) => {
                        let cancel = CancellationToken::new();
                        let task = run(firing.clone(), cancel.clone());
                        let timeout = options.timeout;
                        let handle = tasks.spawn(async move {
                            match timeout {
                                None => task.await,
                                Some(limit) => tokio::time::timeout(limit, task)
                                    .await
                                    .unwrap_or_else(|_| Err(Fault::transient(format!("took longer than {limit:?}")))),
                            }
                        });
                        running.insert(handle.id(), Running { firing, cancel, lost: false });
                    }
                    Some(other) => tell(&mut running, &other),
                    None => break,
                },
            }
        }
        driver.set_room(0);
        let deadline = tokio::time::Instant::now() + options.drain;
        while !tasks.is_empty() {
            tokio::select! {
                Some(ended) = tasks.join_next_with_id() => settle(&driver, &mut running, ended).await,
                order = driver.orders.recv() => match order {
                    Some(Order::Run(firing)) => driver.report(Report::Returned(firing)).await,
                    Some(other) => tell(&mut running, &other),
                    None => break,
                },
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        tasks.shutdown().await;
        for (_, left) in running {
            let fault = Fault::unavailable("the process that ran it was stopped");
            driver.report(Report::Finished(left.firing, Err(fault))).await;
        }
        driver.end(Duration::from_secs(10)).await;
    }
}

/// Tells a firing to stop.
fn tell(running: &mut HashMap<Id, Running>, order: &Order) {
    let (id, epoch, lost): (&FiringId, u64, bool) = match order {
        Order::Stop(id, epoch) => (id, *epoch, false),
        Order::Lost(id, epoch) => (id, *epoch, true),
        Order::Run(_) => return,
    };
    for task in running.values_mut() {
        if task.firing.id == *id && task.firing.epoch == epoch {
            task.cancel.cancel();
            task.lost |= lost;
        }
    }
}

async fn settle(
    driver: &Driver,
    running: &mut HashMap<Id, Running>,
    ended: Result<(Id, Result<(), Fault>), JoinError>,
) {
    let (id, result) = match ended {
        Ok(ended) => ended,
        Err(error) => (
            error.id(),
            Err(match error.try_into_panic() {
                Ok(panic) => Fault::panicked(&*panic),
                Err(_) => Fault::unavailable("it was stopped"),
            }),
        ),
    };
    let Some(task) = running.remove(&id) else { return };
    if task.lost {
        tracing::warn!(firing = %task.firing.id, "it ended after its claim was lost");
    }
    driver.report(Report::Finished(task.firing, result)).await;
}
