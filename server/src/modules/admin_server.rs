//! The admin server of a process whose modules have no API of their own: whether it works, and its metrics.

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use galerna_http::openapi::{add_error, operations, served};
use galerna_http::{Guard, ServeOptions, Unready, metrics, readiness, serve_until};
use galerna_settings::Settings;
use prometheus::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::module::{Module, Readiness, Task};

/// Paths that need no token.
const OPEN_PATHS: &[&str] = &["/healthz", "/readyz"];
/// One in so many of the files that the process may open are connections of this server.
const SHARE_OF_FILES: usize = 16;

/// Serves `/healthz`, `/readyz` (503 until all modules work, and while the process ends), `/metrics`, `/openapi.json` and what is
/// `beside` them. All but the first two need the token, if there is one.
pub(crate) struct AdminServer {
    routes: Router,
    listener: Option<TcpListener>,
    task: Task,
}

/// What the routes tell of.
#[derive(Clone)]
struct Process {
    readiness: Readiness,
    registry: Registry,
}

/// Whether the modules of this process work.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "they do", body = Object, example = json!({"draining": false, "ready": true})),
    (status = 503, description = "`not_ready` or `draining`", body = ref("#/components/schemas/ErrorBody"))))]
async fn readyz(State(process): State<Process>) -> Response {
    let draining = process.readiness.is_draining();
    let unready = match (draining, process.readiness.is_ready()) {
        (true, _) => Some(Unready::new("draining", "this process shuts down")),
        (false, false) => Some(Unready::new("not_ready", "not all modules of this process work yet")),
        (false, true) => None,
    };
    readiness(&json!({ "draining": draining }), unready)
}

/// Metrics of this process in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "metrics", body = String, content_type = "text/plain")))]
async fn show_metrics(State(process): State<Process>) -> Response {
    metrics::answer(&process.registry)
}

fn describe(description: &mut OpenApi) {
    "Galerna process".clone_into(&mut description.info.title);
    description.info.description =
        Some("Health and metrics of a process, and what its workers do.".to_owned());
    description.info.version = env!("CARGO_PKG_VERSION").to_owned();
    for (path, _, operation) in operations(description) {
        if !OPEN_PATHS.contains(&path) {
            add_error(operation, "401", "`unauthorized`: a token is demanded and was not sent");
            add_error(operation, "429", "`too_many_tries`: too many wrong tokens came from this address");
        }
        if path.contains('{') {
            add_error(operation, "400", "`invalid_path`: it is no text");
        }
    }
}

impl AdminServer {
    pub(crate) fn new(
        settings: &Settings,
        listener: TcpListener,
        registry: Registry,
        beside: OpenApiRouter,
        readiness: Readiness,
    ) -> Self {
        let routes = OpenApiRouter::new()
            .routes(routes!(readyz))
            .routes(routes!(show_metrics))
            .with_state(Process { readiness, registry })
            .merge(beside);
        let (routes, _) = served(routes, describe);
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
