//! What is told of a topology: over REST, on pages, by the command. All of it can be read back, so that one process can show what
//! another tells.

use std::collections::BTreeMap;
use std::time::Duration;

use galerna_engine::{CheckpointMetrics, ComponentMetrics, Latency, SpoutState, WatermarkMetrics};
use galerna_html::graph::Graph;
use galerna_state::DeclaredState;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::autoscale::AutoscaleView;
use crate::recent::Recent;
use crate::topologies::{Entry, Status};
use crate::why_slow::{Situation, why_slow};

/// A topology in a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The name under which it was submitted.
    pub name: String,
    /// The name that it was declared with.
    pub topology: String,
    /// What it does.
    pub status: Status,
    /// Milliseconds since it was submitted; of what has ended, until then.
    pub uptime_ms: u64,
    /// How many components it has.
    pub components: usize,
    /// Executors of all its components.
    pub executors: usize,
    /// Tasks of all its components.
    pub tasks: usize,
    /// What its spouts emitted.
    pub emitted: u64,
    /// Roots that are done.
    pub acked: u64,
    /// Roots that failed.
    pub failed: u64,
    /// Roots that are pending.
    pub pending: u64,
    /// What its spouts emit a second, over the last seconds; nothing in the first second.
    pub rate: Option<f64>,
    /// What holds it up, or that nothing does.
    pub why_slow: String,
}

/// A topology with all that there is to know of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Details {
    /// What stands in a list, too.
    #[serde(flatten)]
    pub summary: Summary,
    /// The longest time that a root may take, unless that is off.
    pub message_timeout_ms: Option<u64>,
    /// Bytes queued between tasks, by what tuples weigh.
    pub queued_bytes: u64,
    /// What became of its checkpoints, if it takes any.
    pub checkpoints: Option<CheckpointView>,
    /// Its components, in the order of declaration.
    pub component_metrics: Vec<ComponentView>,
    /// Components whose executors follow their load.
    #[serde(default)]
    pub autoscaled: Vec<AutoscaleView>,
    /// The states that its components declare.
    #[serde(default)]
    pub states: Vec<DeclaredState>,
    /// As it was declared: components with what they subscribe to.
    pub declared: serde_json::Value,
    /// How it ended, when it has.
    pub ended: Option<EndView>,
}

/// What became of a topology's checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// How many were committed since it was submitted.
    pub committed: u64,
    /// How many came to nothing.
    pub failed: u64,
    /// The number of the last one that was committed, or restored.
    pub last: Option<u64>,
    /// How many milliseconds ago that was; without one, since it was submitted.
    pub age_ms: u64,
    /// How many milliseconds it took.
    pub took_ms: u64,
    /// Bytes of state in it.
    pub state_bytes: u64,
    /// Acks that wait for the next one.
    pub held_acks: u64,
    /// Why the last one came to nothing, if it did.
    pub last_error: Option<String>,
    /// Spouts that gave roots without a stable id: what they deliver again after the process ended counts again.
    #[serde(default)]
    pub at_least_once: Vec<String>,
}

impl From<&CheckpointMetrics> for CheckpointView {
    fn from(of: &CheckpointMetrics) -> Self {
        Self {
            committed: of.committed,
            failed: of.failed,
            last: of.last,
            age_ms: of.age_ms,
            took_ms: of.took_ms,
            state_bytes: of.state_bytes,
            held_acks: of.held_acks,
            last_error: of.last_error.clone(),
            at_least_once: of.at_least_once.clone(),
        }
    }
}

/// How a topology ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndView {
    /// Whether all that was pending ended in time.
    pub drained: bool,
    /// Roots that failed because it did not.
    pub unfinished: usize,
    /// Components of which a task had to be aborted.
    pub aborted: Vec<String>,
}

/// What a component has done and waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentView {
    /// Its id.
    pub id: String,
    /// `spout`, `bolt`, or what kind of bolt.
    pub kind: String,
    /// Its executors.
    pub executors: usize,
    /// Its tasks.
    pub tasks: usize,
    /// The component whose tasks it runs in.
    pub fused_with: Option<String>,
    /// Tuples emitted.
    pub emitted: u64,
    /// Tuples that reached another task: one for each subscriber.
    pub transferred: u64,
    /// Tuples executed (bolts).
    pub executed: u64,
    /// Tuples acked (bolts), roots done (spouts).
    pub acked: u64,
    /// Tuples or roots failed, by kind of reason.
    pub failed: BTreeMap<String, u64>,
    /// Executed (bolts) or emitted (spouts) a second lately; nothing in the first second.
    pub rate: Option<f64>,
    /// Failed a second lately.
    pub failed_rate: Option<f64>,
    /// The share of its executors' time in which they were busy lately, 0 to 1 (bolts).
    pub capacity: Option<f64>,
    /// The time of a tuple in `execute` (bolts).
    pub execute: LatencyView,
    /// The time from when a tuple comes until it is acked (bolts).
    pub process: LatencyView,
    /// The time from when a root is emitted until it is done (spouts).
    pub complete: LatencyView,
    /// Batches that wait for it (bolts).
    pub queued: usize,
    /// For how many milliseconds something has been waiting for it without a break.
    pub waits_ms: Option<u64>,
    /// Roots that are pending (spouts).
    pub pending: u64,
    /// What each of its tasks does or waits for (spouts).
    pub states: Vec<String>,
    /// Errors of hooks, and panics.
    pub errors: u64,
    /// Instances replaced after a panic.
    pub restarts: u64,
    /// The last error.
    pub last_error: Option<ErrorView>,
    /// Tuples by task.
    pub by_task: Vec<u64>,
    /// The key that most tuples have which are sent to it by key, and its share of them, 0 to 1, by sample.
    pub hot_key: Option<(String, f64)>,
    /// How far it is in event time, if it is told that.
    pub watermark: Option<WatermarkView>,
    /// Its own counters.
    pub counters: BTreeMap<String, u64>,
    /// Its own gauges, by name and task.
    pub gauges: BTreeMap<String, BTreeMap<usize, f64>>,
}

/// A latency, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyView {
    /// Of how many.
    pub count: u64,
    /// Half took no longer.
    pub p50_ms: f64,
    /// 99 in 100 took no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// What was wrong.
    pub reason: String,
    /// How many milliseconds ago.
    pub ago_ms: u64,
}

/// How far a component is in event time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkView {
    /// The watermark, in milliseconds since 1970.
    pub at_ms: Option<i64>,
    /// By how many milliseconds it is behind the latest that any task has sent.
    pub behind_ms: u64,
    /// Who holds it back, as `readings/0`.
    pub held_by: Option<String>,
    /// Who is idle, so that nobody waits for it.
    pub idle: Vec<String>,
}

impl From<&Latency> for LatencyView {
    fn from(latency: &Latency) -> Self {
        let Latency { count, p50_ms, p99_ms, max_ms, .. } = *latency;
        Self { count, p50_ms, p99_ms, max_ms }
    }
}

impl From<&WatermarkMetrics> for WatermarkView {
    fn from(watermark: &WatermarkMetrics) -> Self {
        let WatermarkMetrics { at_ms, behind_ms, held_by, idle } = watermark.clone();
        Self { at_ms, behind_ms, held_by, idle }
    }
}

/// What a task of a spout does, in words.
fn state(state: &SpoutState) -> String {
    match state {
        SpoutState::Emitting => "emitting".to_owned(),
        SpoutState::NoData => "no data".to_owned(),
        SpoutState::PendingFull => "pending full".to_owned(),
        SpoutState::DownstreamFull(component) => format!("downstream full: {component}"),
        SpoutState::Paused => "paused".to_owned(),
        SpoutState::Done => "done".to_owned(),
        SpoutState::Draining => "draining".to_owned(),
    }
}

impl ComponentView {
    fn of(metrics: &ComponentMetrics, uptime_ms: u64, recent: &Recent, now: Instant) -> Self {
        let rates = recent.rates(now, metrics);
        let waits = recent.waits_for(&metrics.id, now).filter(|_| metrics.queued > 0);
        let is_spout = metrics.kind == "spout";
        Self {
            id: metrics.id.clone(),
            kind: metrics.kind.to_owned(),
            executors: metrics.executors,
            tasks: metrics.tasks,
            fused_with: metrics.fused_with.clone(),
            emitted: metrics.emitted,
            transferred: metrics.transferred,
            executed: metrics.executed,
            acked: metrics.acked,
            failed: metrics.failed.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect(),
            rate: rates.map(|rates| rates.done),
            failed_rate: rates.map(|rates| rates.failed),
            capacity: rates.map(|rates| rates.busy).filter(|_| !is_spout),
            execute: (&metrics.execute).into(),
            process: (&metrics.process).into(),
            complete: (&metrics.complete).into(),
            queued: metrics.queued,
            waits_ms: waits.map(millis),
            pending: metrics.pending,
            states: metrics.states.iter().map(state).collect(),
            errors: metrics.errors,
            restarts: metrics.restarts,
            last_error: metrics.last_error.as_ref().map(|error| ErrorView {
                reason: error.reason.clone(),
                ago_ms: uptime_ms.saturating_sub(error.at_ms),
            }),
            by_task: metrics.by_task.clone(),
            hot_key: metrics.hot_key.as_ref().map(|hot| (hot.key.clone(), hot.share)),
            watermark: metrics.watermark.as_ref().map(WatermarkView::from),
            counters: metrics.counters.clone(),
            gauges: metrics.gauges.clone(),
        }
    }

    /// Whether it is a spout.
    pub fn is_spout(&self) -> bool {
        self.kind == "spout"
    }

    /// All tuples or roots that failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// The latency that says most of it: `complete` of a spout, else `process`, or `execute` where it acks nothing itself.
    pub fn latency(&self) -> &LatencyView {
        match () {
            () if self.is_spout() => &self.complete,
            () if self.process.count > 0 => &self.process,
            () => &self.execute,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Summary {
    pub(crate) fn of(entry: &Entry) -> Self {
        Details::of(entry).summary
    }
}

impl Details {
    pub(crate) fn of(entry: &Entry) -> Self {
        let (status, metrics) = (entry.status(), entry.metrics());
        let now = Instant::now();
        let recent = entry.recent.lock();
        let views = metrics.components.iter();
        let components: Vec<_> =
            views.map(|c| ComponentView::of(c, metrics.uptime_ms, &recent, now)).collect();
        drop(recent);
        let checkpoints = metrics.checkpoints.as_ref().map(CheckpointView::from);
        let spouts = || components.iter().filter(|component| component.is_spout());
        let summary = Summary {
            name: entry.name.to_string(),
            topology: metrics.topology.clone(),
            status,
            uptime_ms: metrics.uptime_ms,
            components: components.len(),
            executors: components.iter().map(|c| c.executors).sum(),
            tasks: components.iter().map(|c| c.tasks).sum(),
            emitted: spouts().map(|c| c.emitted).sum(),
            acked: spouts().map(|c| c.acked).sum(),
            failed: spouts().map(ComponentView::failures).sum(),
            pending: spouts().map(|c| c.pending).sum(),
            rate: spouts().map(|c| c.rate).sum(),
            why_slow: why_slow(&Situation {
                status,
                components: &components,
                checkpoints: checkpoints.as_ref(),
            }),
        };
        Self {
            summary,
            message_timeout_ms: entry.message_timeout.map(millis),
            queued_bytes: metrics.queued_bytes,
            checkpoints,
            component_metrics: components,
            autoscaled: entry.autoscaled(),
            states: entry.states(),
            declared: serde_json::from_str(&entry.declared).unwrap_or_default(),
            ended: entry.report().map(|report| EndView {
                drained: report.drained,
                unfinished: report.unfinished,
                aborted: report.aborted.iter().map(ToString::to_string).collect(),
            }),
        }
    }

    /// Components whose executors can be changed.
    pub fn rebalanced(&self) -> Vec<&ComponentView> {
        let components = self.component_metrics.iter();
        components.filter(|c| c.kind == "bolt" && c.tasks > 1 && c.fused_with.is_none()).collect()
    }

    /// The component with this id.
    pub fn component(&self, id: &str) -> Option<&ComponentView> {
        self.component_metrics.iter().find(|component| component.id == id)
    }

    /// Its graph, to be drawn.
    pub fn graph(&self) -> Graph {
        Graph::deserialize(&self.declared).unwrap_or_default()
    }
}
