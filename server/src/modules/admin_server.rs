//! The admin server of a process whose modules have no API of their own: whether it works, and its metrics.

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use galerna_http::{
    Guard, ServeOptions, Unready, method_not_allowed, metrics, no_route, readiness as answer_readiness,
    serve_until,
};
use galerna_settings::Settings;
use prometheus::Registry;
use serde_json::json;
use tokio::net::TcpListener;

use crate::module::{Module, Readiness, Task};

/// Paths that need no token.
const OPEN_PATHS: &[&str] = &["/healthz", "/readyz"];
/// One in so many of the files that the process may open are connections of this server.
const SHARE_OF_FILES: usize = 16;

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
        registry: Registry,
        beside: Router,
        readiness: Readiness,
    ) -> Self {
        let ready = move || async move {
            let draining = readiness.is_draining();
            let unready = match (draining, readiness.is_ready()) {
                (true, _) => Some(Unready::new("draining", "this process shuts down")),
                (false, false) => Some(Unready::new("not_ready", "not all modules of this process work yet")),
                (false, true) => None,
            };
            answer_readiness(&json!({ "draining": draining }), unready)
        };
        let routes = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(move || async move { metrics::answer(&registry) }))
            .merge(beside)
            .fallback(no_route)
            .method_not_allowed_fallback(method_not_allowed);
        let routes = Guard::new(settings.api.token.as_deref()).protect(routes, OPEN_PATHS);
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
                let options = ServeOptions::new("admin server").within_files(SHARE_OF_FILES);
                Ok(serve_until(listener, routes, options, stopped.cancelled()).await?)
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
