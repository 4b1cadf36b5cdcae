//! A load on a dispatcher, measured.
//!
//! Each caller does what a consumer of short backlogs does: it asks for a lease and, with the next call, gives it back
//! and asks for another. A call is timed from before it is made until its answer is there: a lease, durable, and the
//! release of the one before, durable too.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_model::{AccountId, Clock, QueueName, SystemClock};
use galerna_storage::{QueueRecord, ReadyCount, StorageError, Store};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use galerna_lease::{GrantedLease, GroupedLeases, LeaseError, Leases, NextRequest, Release};

/// A load to run.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Callers at once.
    pub callers: usize,
    /// How long calls are measured.
    pub time: Duration,
    /// How long calls are made before that.
    pub warm_up: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { callers: 12, time: Duration::from_secs(5), warm_up: Duration::from_secs(1) }
    }
}

/// What a load did. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadReport {
    /// Callers at once.
    pub callers: usize,
    /// Leases given.
    pub leases: u64,
    /// Calls that found no queue.
    pub empty_handed: u64,
    /// Calls that failed.
    pub errors: u64,
    /// The last error, if any.
    pub last_error: Option<String>,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// Leases a second, all callers together.
    pub leases_per_second: f64,
    /// Mean time of a call that got a lease.
    pub mean_ms: f64,
    /// Half of them were faster.
    pub p50_ms: f64,
    /// 99 % of them were faster.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// Creates `queues` idle queues `L000000…` with messages, one per account, where they are not there yet.
///
/// # Errors
/// What the store says.
pub async fn prepare(store: &Store, queues: usize) -> Result<(), StorageError> {
    let now = SystemClock.now();
    let invalid = |e: galerna_model::NameError| StorageError::Invalid(e.to_string());
    for first in (0..queues).step_by(5_000) {
        let mut records = Vec::new();
        let mut counts = Vec::new();
        for n in first..queues.min(first + 5_000) {
            let queue = QueueName::new(format!("L{n:06}")).map_err(invalid)?;
            let account = AccountId::new(format!("{n:06}")).map_err(invalid)?;
            records.push(QueueRecord::new(queue.clone(), account, now));
            counts.push(ReadyCount { queue, ready: 1_000, unacked: 0 });
        }
        store.queues.create(&records).await?;
        store.queues.set_ready(&counts, now).await?;
    }
    Ok(())
}

/// One of many that call at once.
#[async_trait]
pub trait Caller: Send + 'static {
    /// Makes one call; says whether it got a lease.
    ///
    /// # Errors
    /// What the other side says, for the report.
    async fn call(&mut self) -> Result<bool, LeaseError>;
}

struct Consumer {
    leases: Arc<dyn Leases>,
    name: String,
    held: Option<GrantedLease>,
}

#[async_trait]
impl Caller for Consumer {
    async fn call(&mut self) -> Result<bool, LeaseError> {
        let held = self.held.take();
        let release = held.map(|l| Release { queue: l.queue, epoch: l.epoch, empty: false });
        let request = NextRequest {
            consumer: self.name.clone(),
            count: 1,
            release: release.into_iter().collect(),
            ..NextRequest::default()
        };
        self.held = self.leases.next(request).await?.pop();
        Ok(self.held.is_some())
    }
}

/// Runs a load on a dispatcher in this process or, through its client, elsewhere.
pub async fn run(leases: Arc<dyn Leases>, options: &LoadOptions) -> LoadReport {
    let caller = |n| {
        let name = format!("load-{n}");
        Box::new(Consumer { leases: Arc::clone(&leases), name, held: None }) as Box<dyn Caller>
    };
    run_callers((0..options.callers).map(caller).collect(), options).await
}

/// As [`run`], with callers that are the tasks of one worker: what they ask for at the same moment travels together.
pub async fn run_worker(leases: Arc<dyn Leases>, options: &LoadOptions) -> LoadReport {
    let leases: Arc<dyn Leases> = Arc::new(GroupedLeases::new(leases));
    let caller = |_| {
        let name = "load".to_owned();
        Box::new(Consumer { leases: Arc::clone(&leases), name, held: None }) as Box<dyn Caller>
    };
    run_callers((0..options.callers).map(caller).collect(), options).await
}

/// Runs a load by these callers; so that another design can be measured in the same way.
pub async fn run_callers(callers: Vec<Box<dyn Caller>>, options: &LoadOptions) -> LoadReport {
    let measured_from = Instant::now() + options.warm_up;
    let end = measured_from + options.time;
    let count = callers.len();
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        tasks.spawn(async move {
            let mut t = Tally::default();
            loop {
                let began = Instant::now();
                if began >= end {
                    return t;
                }
                let outcome = caller.call().await;
                let took = began.elapsed();
                let measured = began >= measured_from;
                match outcome {
                    Ok(true) if measured => t.times.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)),
                    Ok(true) => {}
                    Ok(false) => {
                        t.empty_handed += u64::from(measured);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Err(cause) => {
                        t.errors += 1;
                        t.last_error = Some(cause.to_string());
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        let Ok(tally) = tally else { continue };
        all.times.extend(tally.times);
        all.empty_handed += tally.empty_handed;
        all.errors += tally.errors;
        all.last_error = tally.last_error.or(all.last_error);
    }
    all.report(count, options.time.as_secs_f64())
}

#[derive(Default)]
struct Tally {
    /// Times of calls that got a lease, in microseconds.
    times: Vec<u32>,
    empty_handed: u64,
    errors: u64,
    last_error: Option<String>,
}

impl Tally {
    fn report(mut self, callers: usize, seconds: f64) -> LoadReport {
        self.times.sort_unstable();
        let n = self.times.len();
        let at = |share: f64| {
            let index = ((n as f64 * share) as usize).min(n.saturating_sub(1));
            self.times.get(index).map_or(0.0, |us| f64::from(*us) / 1_000.0)
        };
        let sum: f64 = self.times.iter().map(|us| f64::from(*us)).sum();
        LoadReport {
            callers,
            leases: n as u64,
            empty_handed: self.empty_handed,
            errors: self.errors,
            seconds,
            leases_per_second: n as f64 / seconds,
            mean_ms: if n == 0 { 0.0 } else { sum / n as f64 / 1_000.0 },
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            last_error: self.last_error,
        }
    }
}
