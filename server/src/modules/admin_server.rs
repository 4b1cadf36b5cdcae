//! The admin server of a process whose modules have no API of their own: whether it works, and its metrics.

use std::sync::Arc;

use async_trait::async_trait;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router, middleware};
use galerna_console::auth::{authorise, metrics_answer};
use galerna_settings::Settings;
use serde_json::json;
use tokio::net::TcpListener;

use crate::module::{Module, Readiness, Task};

/// The metrics of a process, as Prometheus reads them.
pub(crate) type MetricsText = Arc<dyn Fn() -> Result<String, prometheus::Error> + Send + Sync>;

/// Serves `/healthz`, `/readyz` (503 until all modules work, and while the process ends), `/metrics` and what is `beside` them.
/// All but the first two need the token, if there is one.
pub(crate) struct AdminServer {
    routes: Router,
    listener: Option<TcpListener>,
    task: Task,
}

impl AdminServer {
    pub(crate) fn new(
        settings: &Settings,
        listener: TcpListener,
        metrics: MetricsText,
        beside: Router,
        readiness: Readiness,
    ) -> Self {
        let token = settings.api.token.as_deref().map(Arc::from);
        let guarded = Router::new()
            .route("/metrics", get(move || async move { metrics_answer(metrics()) }))
            .merge(beside)
            .layer(middleware::from_fn_with_state(token, authorise));
        let ready = move || async move {
            let (ready, draining) = (readiness.is_ready(), readiness.is_draining());
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, Json(json!({ "ready": ready, "draining": draining })))
        };
        let routes = Router::new()
            .route("/healthz", get(|| async { Json(json!({ "ok": true })) }))
            .route("/readyz", get(ready))
            .merge(guarded);
        Self { routes, listener: Some(listener), task: Task::default() }
    }
}

#[async_trait]
impl Module for AdminServer {
    fn name(&self) -> &'static str {
        "admin server"
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        if let Some(listener) = self.listener.take() {
            let (routes, stopped) = (self.routes.clone(), self.task.stopped());
            self.task.spawn(async move {
                let shutdown = async move { stopped.cancelled().await };
                Ok(axum::serve(listener, routes).with_graceful_shutdown(shutdown).await?)
            });
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        self.task.runs()
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.task.end().await
    }
}
