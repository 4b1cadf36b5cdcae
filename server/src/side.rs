//! The small service of a module that has no API of its own: whether it is well, and its metrics.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router, middleware};
use galerna_console::auth::{authorise, metrics_answer};
use galerna_settings::Settings;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The metrics of a module, as Prometheus reads them.
pub(crate) type MetricsText = Arc<dyn Fn() -> Result<String, prometheus::Error> + Send + Sync>;

/// Serves `/healthz`, `/readyz` (503 from the moment of `draining`), `/metrics` and what is `beside` them, until `shutdown`.
/// All but the first two need the token, if there is one.
pub(crate) fn serve(
    settings: &Settings,
    listener: TcpListener,
    metrics: MetricsText,
    beside: Router,
    draining: CancellationToken,
    shutdown: CancellationToken,
) -> JoinHandle<()> {
    let token = settings.api.token.as_deref().map(Arc::from);
    let guarded = Router::new()
        .route("/metrics", get(move || async move { metrics_answer(metrics()) }))
        .merge(beside)
        .layer(middleware::from_fn_with_state(token, authorise));
    let ready = move || async move {
        let ready = !draining.is_cancelled();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(json!({ "ready": ready, "draining": !ready })))
    };
    let app = Router::new()
        .route("/healthz", get(|| async { Json(json!({ "ok": true })) }))
        .route("/readyz", get(ready))
        .merge(guarded);
    tokio::spawn(async move {
        let serving =
            axum::serve(listener, app).with_graceful_shutdown(async move { shutdown.cancelled().await });
        if let Err(e) = serving.await {
            tracing::error!(error = %e, "the service of metrics and health ended");
        }
    })
}
