//! The page's own metrics, and what only the page looks at: the dead letters of all queues, and the workers that do not answer.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder, core::Collector,
};
use tokio::time::Instant;

use super::observer::Snapshot;
use super::{MAX_VIEWERS, Page};
use crate::auth::metrics_answer;

/// The page's metrics, in a registry of its own.
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    actions: IntCounterVec,
    streams: IntGauge,
    dead_letters: IntGauge,
    silent_workers: IntGauge,
}

impl Metrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new(
                    "galerna_page_requests_total",
                    "Calls of the page and its API, by route and status.",
                ),
                &["route", "status"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new(
                    "galerna_page_request_seconds",
                    "Time from a call until its answer begins, by method.",
                ),
                &["method"],
            )?,
            actions: IntCounterVec::new(
                Opts::new(
                    "galerna_page_actions_total",
                    "What operators did, by action and outcome: done, refused.",
                ),
                &["action", "outcome"],
            )?,
            streams: IntGauge::new("galerna_page_streams", "Pages that are open and are sent updates.")?,
            dead_letters: IntGauge::new(
                "galerna_page_dead_letters",
                "Dead letters of all queues, as last counted.",
            )?,
            silent_workers: IntGauge::new(
                "galerna_page_silent_workers",
                "Workers and notifiers named in page.workers that do not answer.",
            )?,
        };
        let all: [Box<dyn Collector>; 6] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.seconds.clone()),
            Box::new(metrics.actions.clone()),
            Box::new(metrics.streams.clone()),
            Box::new(metrics.dead_letters.clone()),
            Box::new(metrics.silent_workers.clone()),
        ];
        for metric in all {
            metrics.registry.register(metric)?;
        }
        Ok(metrics)
    }

    /// Counts what an operator did or was refused.
    pub(super) fn acted(&self, action: &str, done: bool) {
        self.actions.with_label_values(&[action, if done { "done" } else { "refused" }]).inc();
    }

    fn text(&self, snapshot: &Snapshot, streams: usize) -> Result<String, prometheus::Error> {
        let set = |gauge: &IntGauge, n: u64| gauge.set(i64::try_from(n).unwrap_or(i64::MAX));
        set(&self.streams, streams as u64);
        set(&self.silent_workers, snapshot.unresponsive.len() as u64);
        // While the broker does not answer, what it said last stands.
        if let Some(dead) = snapshot.dead_total() {
            set(&self.dead_letters, dead);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// `GET /metrics`
pub(super) async fn show(State(page): State<Page>) -> Response {
    let snapshot = page.snapshot().await;
    let streams = MAX_VIEWERS - page.viewers.available_permits();
    metrics_answer(page.metrics.text(&snapshot, streams))
}

/// Counts a call. What no route takes is one route, so that nobody can add to their number.
pub(super) async fn count(State(page): State<Page>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let method = if request.method() == axum::http::Method::POST { "POST" } else { "GET" };
    let answer = next.run(request).await;
    page.metrics.requests.with_label_values(&[route.as_str(), answer.status().as_str()]).inc();
    page.metrics.seconds.with_label_values(&[method]).observe(began.elapsed().as_secs_f64());
    answer
}
