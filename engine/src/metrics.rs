//! Exact counts and latencies of a running topology.
//!
//! Tasks add to atomic counters once per batch; nothing is sampled. A [`Metrics`] is a reading of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use galerna_lock::Mutex;
use galerna_topology::{Clock, Failure, FailureKind, FaultKind, HotKey, TaskFactory, TaskMetrics, Timestamp};
use serde::Serialize;

use crate::checkpoints::CheckpointMetrics;
use crate::clock::nanos;
use crate::executors::Executors;
use crate::histogram::{Histogram, Latency};
use crate::unsettled::UnsettledTuples;

/// The counters of one task.
#[derive(Debug, Default)]
pub(crate) struct TaskStats {
    pub(crate) emitted: AtomicU64,
    pub(crate) transferred: AtomicU64,
    pub(crate) executed: AtomicU64,
    pub(crate) acked: AtomicU64,
    failed: [AtomicU64; FailureKind::ALL.len()],
    faults: [AtomicU64; FaultKind::ALL.len()],
    /// Nanoseconds in `execute` of a bolt that computes; for one that waits, see `unsettled`.
    pub(crate) busy: AtomicU64,
    pub(crate) unsettled: UnsettledTuples,
    pub(crate) pending: AtomicU64,
    pub(crate) batch: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) execute: Histogram,
    pub(crate) process: Histogram,
    pub(crate) complete: Histogram,
    state: AtomicU32,
    last_error: Mutex<Option<LastError>>,
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    if by > 0 {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

impl TaskStats {
    pub(crate) fn count_failed(&self, failure: &Failure, tuples: u64, at: Duration) {
        self.add_failed(failure, tuples);
        if !matches!(failure.kind, FailureKind::Stopped | FailureKind::Timeout) {
            self.report(failure.reason(), at);
        }
    }

    /// So many tuples or roots failed, which were reported where it happened.
    pub(crate) fn add_failed(&self, failure: &Failure, count: u64) {
        add(&self.failed[failure.kind.index()], count);
        add(&self.faults[failure.fault.kind().index()], count);
    }

    pub(crate) fn report(&self, reason: &str, at: Duration) {
        let mut last = self.last_error.lock();
        *last = Some(LastError { reason: reason.to_owned(), at_ms: at.as_millis() as u64 });
    }

    /// All tuples or roots that failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// A batch of `rows` tuples took `nanos` to execute.
    pub(crate) fn count_executed(&self, rows: u64, nanos: u64) {
        add(&self.executed, rows);
        if let Some(each) = nanos.checked_div(rows) {
            self.execute.record(each, rows);
        }
    }

    /// A batch took `nanos` until it was executed, and so many of its tuples were acked by that. What a bolt
    /// keeps is counted when it acks it.
    pub(crate) fn count_returned(&self, tuples: u64, nanos: u64) {
        if tuples > 0 {
            self.process.record(nanos, tuples);
        }
    }

    /// Where a spout or bolt stands; `component` is whom it waits for.
    pub(crate) fn set_state(&self, state: State, component: usize) {
        self.state.store((state as u32) | ((component as u32) << 8), Ordering::Relaxed);
    }

    fn state(&self, ids: &[Arc<str>]) -> SpoutState {
        let word = self.state.load(Ordering::Relaxed);
        match word & 0xff {
            1 => SpoutState::Emitting,
            2 => SpoutState::NoData,
            3 => SpoutState::PendingFull,
            4 => {
                let component = ids.get((word >> 8) as usize);
                SpoutState::DownstreamFull(component.map_or_else(String::new, ToString::to_string))
            }
            5 => SpoutState::Done,
            6 => SpoutState::Draining,
            _ => SpoutState::Paused,
        }
    }
}

/// The words that [`TaskStats::set_state`] stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Paused = 0,
    Emitting = 1,
    NoData = 2,
    PendingFull = 3,
    DownstreamFull = 4,
    Done = 5,
    Draining = 6,
}

/// Why a spout task is, or is not, emitting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SpoutState {
    /// It emits.
    Emitting,
    /// It said that it has nothing, and not that it is full.
    NoData,
    /// As many roots are pending as may be: by its limit, or as the spout itself says
    /// ([`Spout::is_full`](galerna_topology::Spout::is_full)).
    PendingFull,
    /// The queue of this component is full.
    DownstreamFull(String),
    /// The topology is not active.
    Paused,
    /// It said that it will never have anything again.
    Done,
    /// The topology drains.
    Draining,
}

impl std::fmt::Display for SpoutState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Emitting => f.write_str("emitting"),
            Self::NoData => f.write_str("no data"),
            Self::PendingFull => f.write_str("pending full"),
            Self::DownstreamFull(component) => write!(f, "downstream full: {component}"),
            Self::Paused => f.write_str("paused"),
            Self::Done => f.write_str("done"),
            Self::Draining => f.write_str("draining"),
        }
    }
}

/// The last error of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// What it said.
    pub reason: String,
    /// When, in milliseconds of the topology's clock.
    pub at_ms: u64,
}

/// What one component has done since the topology was submitted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComponentMetrics {
    /// Its id.
    pub id: String,
    /// `spout`, `bolt` or `async bolt`.
    pub kind: &'static str,
    /// Executors; a bolt that waits has one for each task.
    pub executors: usize,
    /// Tasks.
    pub tasks: usize,
    /// The component whose task it shares, if it was fused.
    pub fused_with: Option<String>,
    /// Tuples emitted.
    pub emitted: u64,
    /// Copies of tuples sent to tasks of subscribers.
    pub transferred: u64,
    /// Tuples executed (bolts).
    pub executed: u64,
    /// Tuples acked (bolts), or roots done (spouts).
    pub acked: u64,
    /// Tuples failed (bolts), or roots failed (spouts), by [`FailureKind::name`]. All kinds are present.
    /// Tuples that a bolt emitted and that its grouping or their `Clone` lost by a panic are among its own.
    pub failed: BTreeMap<&'static str, u64>,
    /// The same tuples or roots, by [`FaultKind::name`]: whether trying again can help. All kinds are present.
    pub faults: BTreeMap<&'static str, u64>,
    /// Time a tuple takes in `execute`; the mean of its batch counts for each tuple of the batch.
    pub execute: Latency,
    /// Time from when a tuple reaches a bolt until it is acked.
    pub process: Latency,
    /// Time from when a root is emitted until it is done (spouts).
    pub complete: Latency,
    /// Tuples executed by each task, by index (bolts), or emitted by each (spouts).
    pub by_task: Vec<u64>,
    /// Batches that wait for its tasks (bolts).
    pub queued: usize,
    /// Pending roots (spouts).
    pub pending: u64,
    /// How long its executors were busy since the topology was submitted, in milliseconds, all of them together (bolts).
    /// One of a bolt that computes is busy in `execute`; one of a bolt that waits is busy while it has at least one
    /// tuple that is not settled, in `execute` or kept, until now.
    pub busy_ms: f64,
    /// The share of its executors' time since the topology was submitted in which they were busy, 0 to 1.
    pub busy: f64,
    /// The size of batches it emits at present (spouts).
    pub batch: u64,
    /// Why each task of a spout is or is not emitting.
    pub states: Vec<SpoutState>,
    /// Errors of hooks, and panics, also those of groupings and of tuples being copied or converted.
    pub errors: u64,
    /// Instances replaced after a panic.
    pub restarts: u64,
    /// The last error, of a hook or of a failed tuple.
    pub last_error: Option<LastError>,
    /// Counters of the component's own, summed over its tasks; see
    /// [`TaskContext::counter`](galerna_topology::TaskContext::counter).
    pub counters: BTreeMap<String, u64>,
    /// The key that most tuples have which are sent to it by key, by sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot_key: Option<HotKeyMetrics>,
    /// How far it is in event time, if it is told that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<WatermarkMetrics>,
    /// Gauges of the component's own, by name and task; see [`TaskContext::gauge`](galerna_topology::TaskContext::gauge).
    pub gauges: BTreeMap<String, BTreeMap<usize, f64>>,
}

/// A frequent key.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HotKeyMetrics {
    /// The key as text, as far as how it is hashed tells it.
    pub key: String,
    /// Its share of the tuples lately, 0 to 1, at least.
    pub share: f64,
}

impl ComponentMetrics {
    /// All tuples or roots failed, whatever the kind.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// How far a component is in event time: that of its tasks that is least far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WatermarkMetrics {
    /// The watermark, in milliseconds since 1970; nothing as long as somebody who is waited for has said nothing.
    pub at_ms: Option<i64>,
    /// By how many milliseconds it is behind the greatest watermark that any task has sent.
    pub behind_ms: u64,
    /// Who holds it back: the component and the index of its task, as `readings/0`. Nobody if all that send are idle or have ended.
    pub held_by: Option<String>,
    /// Tasks that are idle, so that nobody waits for them, as `readings/1`.
    pub idle: Vec<String>,
}

fn read_watermark(tasks: &[Arc<TaskMetrics>]) -> Option<WatermarkMetrics> {
    let name = |(component, task): (Arc<str>, usize)| format!("{component}/{task}");
    let states: Vec<_> = tasks.iter().filter_map(|task| task.watermark()).collect();
    let latest = states.iter().filter_map(|state| state.latest).max();
    let least = states.into_iter().min_by_key(|state| state.at)?;
    let behind = latest.zip(least.at).map(|(latest, at)| latest.saturating_since(at));
    Some(WatermarkMetrics {
        at_ms: least.at.map(Timestamp::millis),
        behind_ms: behind.map_or(0, |behind| u64::try_from(behind.as_millis()).unwrap_or(u64::MAX)),
        held_by: least.held_by.map(name),
        idle: least.idle.into_iter().map(name).collect(),
    })
}

/// A reading of a running topology.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    /// The topology's name.
    pub topology: String,
    /// Milliseconds since it was submitted.
    pub uptime_ms: u64,
    /// Bytes queued between tasks, by what tuples weigh.
    pub queued_bytes: u64,
    /// What became of its checkpoints, if it takes any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<CheckpointMetrics>,
    /// Its components, in the order of declaration.
    pub components: Vec<ComponentMetrics>,
}

impl Metrics {
    /// The component with this id.
    pub fn component(&self, id: &str) -> Option<&ComponentMetrics> {
        self.components.iter().find(|component| component.id == id)
    }
}

/// What [`read`] needs to know of a component beside its counters.
pub(crate) struct Described<'a> {
    pub(crate) component: &'a galerna_topology::Component,
    pub(crate) fused_with: Option<String>,
    pub(crate) queued: usize,
    pub(crate) hot_key: Option<HotKey>,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) ids: &'a [Arc<str>],
    pub(crate) executors: &'a Executors,
    pub(crate) task_metrics: &'a [Arc<TaskMetrics>],
}

pub(crate) fn read(described: &Described<'_>, tasks: &[Arc<TaskStats>]) -> ComponentMetrics {
    let component = described.component;
    let sum = |of: fn(&TaskStats) -> &AtomicU64| -> u64 {
        tasks.iter().map(|task| of(task).load(Ordering::Relaxed)).sum()
    };
    let latency = |of: fn(&TaskStats) -> &Histogram| -> Latency {
        let all = Histogram::new();
        tasks.iter().for_each(|task| all.merge(of(task)));
        all.latency()
    };
    let is_spout = component.factory.is_spout();
    let waits = matches!(component.factory, TaskFactory::AsyncBolt(_));
    let executors = described.executors.count();
    let busy: u64 = match waits {
        true => tasks.iter().map(|task| nanos(task.unsettled.busy_time(described.clock))).sum(),
        false => sum(|task| &task.busy),
    };
    let available = described.executors.available(described.clock.now()) as f64;
    let last_error =
        tasks.iter().filter_map(|task| task.last_error.lock().clone()).max_by_key(|error| error.at_ms);
    let mut counters = BTreeMap::new();
    let mut gauges: BTreeMap<String, BTreeMap<usize, f64>> = BTreeMap::new();
    for (task, metrics) in described.task_metrics.iter().enumerate() {
        for (name, count) in metrics.counts() {
            *counters.entry(name).or_default() += count;
        }
        for (name, value) in metrics.values() {
            gauges.entry(name).or_default().insert(task, value);
        }
    }
    ComponentMetrics {
        id: component.id.to_string(),
        kind: component.factory.name(),
        executors,
        tasks: tasks.len(),
        fused_with: described.fused_with.clone(),
        emitted: sum(|task| &task.emitted),
        transferred: sum(|task| &task.transferred),
        executed: sum(|task| &task.executed),
        acked: sum(|task| &task.acked),
        failed: FailureKind::ALL
            .into_iter()
            .map(|kind| {
                let count = tasks.iter().map(|task| task.failed[kind.index()].load(Ordering::Relaxed)).sum();
                (kind.name(), count)
            })
            .collect(),
        faults: FaultKind::ALL
            .into_iter()
            .map(|kind| {
                let count = tasks.iter().map(|task| task.faults[kind.index()].load(Ordering::Relaxed)).sum();
                (kind.name(), count)
            })
            .collect(),
        execute: latency(|task| &task.execute),
        process: latency(|task| &task.process),
        complete: latency(|task| &task.complete),
        by_task: tasks
            .iter()
            .map(|task| if is_spout { &task.emitted } else { &task.executed }.load(Ordering::Relaxed))
            .collect(),
        queued: described.queued,
        pending: sum(|task| &task.pending),
        busy_ms: busy as f64 / 1e6,
        busy: if available > 0.0 { (busy as f64 / available).min(1.0) } else { 0.0 },
        batch: tasks.iter().map(|task| task.batch.load(Ordering::Relaxed)).max().unwrap_or(0),
        states: if is_spout {
            tasks.iter().map(|task| task.state(described.ids)).collect()
        } else {
            Vec::new()
        },
        errors: sum(|task| &task.errors),
        restarts: sum(|task| &task.restarts),
        last_error,
        counters,
        hot_key: described.hot_key.clone().map(|HotKey { key, share }| HotKeyMetrics { key, share }),
        watermark: read_watermark(described.task_metrics),
        gauges,
    }
}
