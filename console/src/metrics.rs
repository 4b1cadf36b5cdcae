//! The page's metrics, and what only the page looks at: the dead letters of all queues, and the workers that do not answer.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use galerna_audit::Action;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, core::Collector};
use tokio::time::Instant;

use super::Page;
use super::observer::Snapshot;

/// The page's metrics.
pub(super) struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    actions: IntCounterVec,
    streams: IntGauge,
    dead_letters: IntGauge,
    silent_workers: IntGauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
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
            registry.register(metric)?;
        }
        // So that they are there before the first call: a first failure is a step then, and not a beginning.
        metrics.requests.with_label_values(&["/", "200"]);
        for method in ["GET", "POST"] {
            metrics.seconds.with_label_values(&[method]);
        }
        for action in
            [Action::Pause, Action::Unpause, Action::Stop, Action::Start, Action::Replay, Action::Discard]
        {
            for outcome in ["done", "refused"] {
                metrics.actions.with_label_values(&[action.name(), outcome]);
            }
        }
        Ok(metrics)
    }

    /// Counts what an operator did or was refused.
    pub(super) fn acted(&self, action: &str, done: bool) {
        self.actions.with_label_values(&[action, if done { "done" } else { "refused" }]).inc();
    }

    /// Sets the gauges to what was just seen.
    pub(super) fn set(&self, snapshot: &Snapshot, streams: usize) {
        let set = |gauge: &IntGauge, n: u64| gauge.set(i64::try_from(n).unwrap_or(i64::MAX));
        set(&self.streams, streams as u64);
        set(&self.silent_workers, snapshot.unresponsive.len() as u64);
        // While the broker does not answer, what it said last stands.
        if let Some(dead) = snapshot.dead_total() {
            set(&self.dead_letters, dead);
        }
    }
}

/// `GET /metrics`
pub(super) async fn show(State(page): State<Page>) -> Response {
    drop(page.snapshot().await);
    galerna_http::metrics::answer(&page.parts.registry)
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
