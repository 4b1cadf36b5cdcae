//! The notifier's metrics. No label names an endpoint, an account, a rule or a device.

use galerna_storage::DeliveryStatus;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) events: IntCounterVec,
    pub(crate) enqueued: IntCounterVec,
    pub(crate) attempts: IntCounterVec,
    pub(crate) attempt_seconds: HistogramVec,
    pub(crate) ended: IntCounterVec,
    pub(crate) wait_seconds: Histogram,
    pub(crate) lost_claims: IntCounter,
    pub(crate) disabled: IntCounter,
    pub(crate) errors: IntCounterVec,
    pub(crate) in_flight: IntGauge,
    outbox: IntGaugeVec,
}

/// Seconds of attempts, and from event to delivery.
const SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0,
];

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
        let metrics = Self {
            events: register!(counters(
                "galerna_notifier_events_total",
                "Alert events taken from the broker: taken, known (seen before), unwanted (no endpoint), malformed",
                &["outcome"]
            )),
            enqueued: register!(counters(
                "galerna_notifier_enqueued_total",
                "Events put into the outbox: pending (a delivery of its own), grouped (joined another), held (in cooldown or silenced), suppressed",
                &["outcome"]
            )),
            attempts: register!(counters(
                "galerna_notifier_attempts_total",
                "Attempts by kind of endpoint and outcome: taken, failed, gone, hopeless",
                &["kind", "outcome"]
            )),
            attempt_seconds: register!(HistogramVec::new(
                HistogramOpts::new("galerna_notifier_attempt_duration_seconds", "How long attempts took")
                    .buckets(SECONDS.to_vec()),
                &["kind"]
            )),
            ended: register!(counters(
                "galerna_notifier_deliveries_total",
                "Deliveries that ended after they were put into the outbox, by kind of endpoint and status: delivered, dead, suppressed",
                &["kind", "status"]
            )),
            wait_seconds: register!(Histogram::with_opts(
                HistogramOpts::new(
                    "galerna_notifier_delivery_delay_seconds",
                    "From a delivery's first event in the outbox to its being delivered"
                )
                .buckets(SECONDS.to_vec())
            )),
            lost_claims: register!(IntCounter::new(
                "galerna_notifier_lost_claims_total",
                "Attempts whose result was not recorded, since the claim had run out: they may be sent again"
            )),
            disabled: register!(IntCounter::new(
                "galerna_notifier_disabled_endpoints_total",
                "Endpoints disabled since they answered 410 Gone"
            )),
            errors: register!(counters(
                "galerna_notifier_errors_total",
                "Failed calls of broker and store",
                &["of"]
            )),
            in_flight: register!(IntGauge::new("galerna_notifier_attempts_in_flight", "Attempts under way")),
            outbox: register!(IntGaugeVec::new(
                Opts::new("galerna_notifier_outbox_deliveries", "Deliveries in the outbox, by status"),
                &["status"]
            )),
            registry: registry.clone(),
        };
        // So that they are there before the first of them happens.
        for outcome in ["taken", "known", "unwanted", "malformed"] {
            metrics.events.with_label_values(&[outcome]);
        }
        for outcome in ["pending", "grouped", "held", "suppressed"] {
            metrics.enqueued.with_label_values(&[outcome]);
        }
        for of in ["broker", "store"] {
            metrics.errors.with_label_values(&[of]);
        }
        for status in DeliveryStatus::ALL {
            metrics.outbox.with_label_values(&[status.as_str()]);
        }
        for kind in ["webhook", "email", "log"] {
            metrics.attempt_seconds.with_label_values(&[kind]);
            for outcome in ["taken", "failed", "gone", "hopeless"] {
                metrics.attempts.with_label_values(&[kind, outcome]);
            }
            for status in ["delivered", "dead", "suppressed"] {
                metrics.ended.with_label_values(&[kind, status]);
            }
        }
        Ok(metrics)
    }

    pub(crate) fn set_outbox(&self, counts: &[(DeliveryStatus, u64)]) {
        for (status, count) in counts {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.outbox.with_label_values(&[status.as_str()]).set(count);
        }
    }

    /// In Prometheus's text format.
    pub(crate) fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
