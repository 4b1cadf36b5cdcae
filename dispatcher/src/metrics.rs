//! What the dispatcher counts, in Prometheus' manner.

use galerna_storage::QueueState;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::strategy::StrategyName;
use galerna_lease::{QueueEvent, TransitionError};

pub(crate) struct Metrics {
    registry: Registry,
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
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
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
            registry,
        };
        let m = &metrics;
        let all: [Box<dyn prometheus::core::Collector>; 13] = [
            Box::new(m.transitions.clone()),
            Box::new(m.refusals.clone()),
            Box::new(m.conflicts.clone()),
            Box::new(m.leases.clone()),
            Box::new(m.next_seconds.clone()),
            Box::new(m.commit_seconds.clone()),
            Box::new(m.commit_writes.clone()),
            Box::new(m.store_errors.clone()),
            Box::new(m.queues.clone()),
            Box::new(m.waiting.clone()),
            Box::new(m.pending.clone()),
            Box::new(m.running.clone()),
            Box::new(m.strategy.clone()),
        ];
        for collector in all {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    pub(crate) fn stepped(&self, event: &QueueEvent) {
        self.transitions.with_label_values(&[event.name()]).inc();
    }

    pub(crate) fn refused(&self, event: &QueueEvent, refusal: TransitionError) {
        let reason = match refusal {
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

    /// Sets the gauges; called when they are read.
    pub(crate) fn observe(
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

    /// All metrics in the text format.
    pub(crate) fn text(&self) -> String {
        let mut text = Vec::new();
        if let Err(cause) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%cause, "metrics cannot be encoded");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) fn leases_total(&self) -> u64 {
        self.leases.get()
    }
}

fn gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
