//! The frontend's metrics. No label holds the name of a source, an account or a queue.

use std::sync::Arc;

use galerna_http::metrics::OnScrape;
use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::call_error::CallError;
use crate::frontend::Core;

pub(crate) struct Metrics {
    pub(crate) requests: IntCounterVec,
    pub(crate) request_seconds: HistogramVec,
    pub(crate) publish_seconds: Histogram,
    pub(crate) call_readings: Histogram,
    pub(crate) accepted: IntCounter,
    pub(crate) rejected: IntCounter,
    pub(crate) hints: IntCounterVec,
    pub(crate) refreshes: IntCounterVec,
    pub(crate) flushes: IntCounterVec,
    pub(crate) connections: IntGauge,
    pub(crate) readings_under_way: IntGauge,
    pub(crate) bytes_under_way: IntGauge,
    pub(crate) sources: IntGauge,
    pub(crate) sources_age: Gauge,
    pub(crate) sources_suspicious: IntGauge,
    pub(crate) ready: IntGauge,
}

/// Seconds of calls and publishes.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        macro_rules! register {
            ($metric:expr) => {{
                let metric = $metric?;
                registry.register(Box::new(metric.clone()))?;
                metric
            }};
        }
        let counters =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let seconds = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let metrics = Self {
            requests: register!(counters(
                "galerna_frontend_requests_total",
                "Requests by route and status",
                &["route", "status"]
            )),
            request_seconds: register!(HistogramVec::new(
                seconds("galerna_frontend_request_seconds", "From a request's head to its answer"),
                &["route"]
            )),
            publish_seconds: register!(Histogram::with_opts(seconds(
                "galerna_frontend_publish_seconds",
                "From handing a call's window to the broker to its confirmation or failure"
            ))),
            call_readings: register!(Histogram::with_opts(
                HistogramOpts::new("galerna_frontend_call_readings", "Readings of an accepted call")
                    .buckets(vec![1.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0])
            )),
            accepted: register!(IntCounter::new(
                "galerna_frontend_readings_accepted_total",
                "Readings that the broker confirmed"
            )),
            rejected: register!(IntCounter::new(
                "galerna_frontend_readings_rejected_total",
                "Readings refused one by one"
            )),
            hints: register!(counters(
                "galerna_frontend_hints_total",
                "Queues named to the dispatcher, by what became of it (sent, lost, dropped)",
                &["result"]
            )),
            refreshes: register!(counters(
                "galerna_frontend_sources_refreshes_total",
                "Refreshes of the list of sources by result (ok, or why it was not taken)",
                &["result"]
            )),
            flushes: register!(counters(
                "galerna_frontend_statistics_flushes_total",
                "Flushes of the statistics by result (ok, failed)",
                &["result"]
            )),
            connections: register!(IntGauge::new("galerna_frontend_connections", "Connections open")),
            readings_under_way: IntGauge::new(
                "galerna_frontend_readings_in_flight",
                "Readings parsed and not yet confirmed",
            )?,
            bytes_under_way: IntGauge::new(
                "galerna_frontend_body_bytes_in_flight",
                "Bytes of bodies in memory",
            )?,
            sources: IntGauge::new("galerna_frontend_sources", "Sources known")?,
            sources_age: Gauge::new(
                "galerna_frontend_sources_age_seconds",
                "Age of the list of sources; -1 while there is none",
            )?,
            sources_suspicious: IntGauge::new(
                "galerna_frontend_sources_suspicious",
                "1 while the list of sources lost too much to be believed; put it right or refresh with force",
            )?,
            ready: IntGauge::new("galerna_frontend_ready", "1 while ready for calls")?,
        };
        // Counters exist from the start, so that a first failure is a step and not a beginning.
        for (counters, results) in [
            (&metrics.refreshes, &["ok", "unreadable", "timeout", "suspicious"][..]),
            (&metrics.flushes, &["ok", "failed"]),
            (&metrics.hints, &["sent", "lost", "dropped"]),
        ] {
            for result in results {
                counters.with_label_values(&[result]);
            }
        }
        metrics.requests.with_label_values(&["/readings", "202"]);
        metrics.request_seconds.with_label_values(&["/readings"]);
        Ok(metrics)
    }

    /// Counts the readings of a call that is refused because none of them can be taken.
    pub(crate) fn refused(&self, error: &CallError) {
        if let CallError::NothingValid { rejected } = error {
            self.rejected.inc_by(rejected.len() as u64);
        }
    }

    fn gauges(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.readings_under_way.clone()),
            Box::new(self.bytes_under_way.clone()),
            Box::new(self.sources.clone()),
            Box::new(self.sources_age.clone()),
            Box::new(self.sources_suspicious.clone()),
            Box::new(self.ready.clone()),
        ]
    }
}

/// Has the gauges set whenever the registry is read.
pub(crate) fn observe(core: &Arc<Core>, registry: &Registry) -> Result<(), prometheus::Error> {
    let gauges = core.metrics.gauges();
    // The registry outlives a frontend and must not keep it.
    let of = Arc::downgrade(core);
    let set = move || {
        if let Some(core) = of.upgrade() {
            core.set_gauges();
        }
    };
    registry.register(Box::new(OnScrape::new(gauges, set)))
}
