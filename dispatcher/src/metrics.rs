//! What the dispatcher counts, in Prometheus' manner.

use std::collections::BTreeMap;
use std::sync::Arc;

use galerna_http::metrics::OnScrape;
use galerna_lease::{QueueEvent, QueueState, TransitionError};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::dispatcher::Shared;
use galerna_lease::StrategyName;

/// Why an event is refused.
const REFUSALS: [&str; 3] = ["stale_epoch", "not_leasable", "superseded"];

pub(crate) struct Metrics {
    transitions: IntCounterVec,
    refusals: IntCounterVec,
    conflicts: IntCounter,
    leases: IntCounter,
    pub(crate) next_seconds: Histogram,
    pub(crate) commit_seconds: Histogram,
    pub(crate) commit_writes: Histogram,
    pub(crate) store_errors: IntCounter,
    queues: IntGaugeVec,
    waiting: IntGauge,
    pending: IntGauge,
    running: IntGauge,
    strategy: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let buckets = prometheus::exponential_buckets(0.000_1, 2.0, 20)?;
        let opts =
            |name: &str, help: &str| Opts::new(name, help).namespace("galerna").subsystem("dispatcher");
        let seconds = |name: &str, help: &str| {
            let o = HistogramOpts::from(opts(name, help));
            Histogram::with_opts(o.buckets(buckets.clone()))
        };
        let writes = HistogramOpts::from(opts("commit_writes", "guarded writes in one bulk write"));
        let metrics = Self {
            transitions: IntCounterVec::new(opts("transitions_total", "transitions stored"), &["event"])?,
            refusals: IntCounterVec::new(opts("refusals_total", "events refused"), &["event", "reason"])?,
            conflicts: IntCounter::with_opts(opts(
                "conflicts_total",
                "guarded writes that found a newer record",
            ))?,
            leases: IntCounter::with_opts(opts("leases_total", "leases answered"))?,
            next_seconds: seconds("next_seconds", "time to answer a call of next that got a lease")?,
            commit_seconds: seconds("commit_seconds", "time of one bulk write")?,
            commit_writes: Histogram::with_opts(
                writes.buckets(prometheus::exponential_buckets(1.0, 2.0, 12)?),
            )?,
            store_errors: IntCounter::with_opts(opts(
                "store_errors_total",
                "calls to the store that failed",
            ))?,
            queues: IntGaugeVec::new(opts("queues", "queues by state"), &["state"])?,
            waiting: IntGauge::with_opts(opts("waiting_callers", "callers that wait for a queue"))?,
            pending: IntGauge::with_opts(opts("pending_calls", "calls queued for the next bulk write"))?,
            running: IntGauge::with_opts(opts("running", "1 while leases are given"))?,
            strategy: IntGaugeVec::new(opts("strategy", "1 for the strategy in force"), &["strategy"])?,
        };
        let m = &metrics;
        let all: [Box<dyn Collector>; 8] = [
            Box::new(m.transitions.clone()),
            Box::new(m.refusals.clone()),
            Box::new(m.conflicts.clone()),
            Box::new(m.leases.clone()),
            Box::new(m.next_seconds.clone()),
            Box::new(m.commit_seconds.clone()),
            Box::new(m.commit_writes.clone()),
            Box::new(m.store_errors.clone()),
        ];
        for collector in all {
            registry.register(collector)?;
        }
        // Counters exist from the start, so that a first event is a step and not a beginning.
        for event in QueueEvent::NAMES {
            m.transitions.with_label_values(&[event]);
            for reason in REFUSALS {
                m.refusals.with_label_values(&[event, reason]);
            }
        }
        Ok(metrics)
    }

    pub(crate) fn transition(&self, event: &QueueEvent) {
        self.transitions.with_label_values(&[event.name()]).inc();
    }

    /// How many transitions were stored, by event.
    pub(crate) fn transitions(&self) -> BTreeMap<&'static str, u64> {
        QueueEvent::NAMES
            .into_iter()
            .map(|name| (name, self.transitions.with_label_values(&[name]).get()))
            .collect()
    }

    pub(crate) fn refused(&self, event: &QueueEvent, error: TransitionError) {
        let reason = match error {
            TransitionError::StaleEpoch { .. } => "stale_epoch",
            TransitionError::NotLeasable(_) => "not_leasable",
            TransitionError::Superseded => "superseded",
        };
        self.refusals.with_label_values(&[event.name(), reason]).inc();
    }

    pub(crate) fn conflict(&self) {
        self.conflicts.inc();
    }

    pub(crate) fn granted(&self, leases: usize) {
        self.leases.inc_by(leases as u64);
    }

    fn gauges(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.queues.clone()),
            Box::new(self.waiting.clone()),
            Box::new(self.pending.clone()),
            Box::new(self.running.clone()),
            Box::new(self.strategy.clone()),
        ]
    }

    /// Sets the gauges.
    fn set(
        &self,
        counts: [usize; QueueState::ALL.len()],
        (pending, waiting): (usize, usize),
        running: bool,
        in_force: StrategyName,
    ) {
        for (state, count) in QueueState::ALL.into_iter().zip(counts) {
            self.queues.with_label_values(&[state.as_str()]).set(gauge(count));
        }
        self.pending.set(gauge(pending));
        self.waiting.set(gauge(waiting));
        self.running.set(i64::from(running));
        for name in StrategyName::ALL {
            self.strategy.with_label_values(&[name.as_str()]).set(i64::from(name == in_force));
        }
    }

    pub(crate) fn leases_total(&self) -> u64 {
        self.leases.get()
    }
}

/// Has the gauges set whenever the registry is read.
pub(crate) fn observe(shared: &Arc<Shared>) -> Result<(), prometheus::Error> {
    let gauges = shared.metrics.gauges();
    // The registry outlives a dispatcher and must not keep it.
    let of = Arc::downgrade(shared);
    let set = move || {
        let Some(shared) = of.upgrade() else { return };
        let planner = shared.planner.lock();
        let calls = (planner.calls.pending(), planner.calls.waiting_for_queue());
        shared.metrics.set(planner.table.counts(), calls, planner.running, planner.table.in_force());
    };
    shared.registry.register(Box::new(OnScrape::new(gauges, set)))
}

fn gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
