//! The maintainer's HTTP service.
//!
//! | call | answer |
//! |---|---|
//! | `GET /ping` | 200 while all tasks run on time, else 503; both times whether each is on time and when it last succeeded |
//! | `GET /status` | 200, the [`Status`](crate::Status) |
//! | `POST /tasks/<name>/run?force=true` | 200 with what the run did, 404, 409 `busy` or `accounts_suspicious`, 502, 504, each with what was done |
//! | `GET /healthz` | 200 while the process serves |
//! | `GET /readyz` | 200 when every task has run and its last run ended well, else 503 with what failed |
//! | `GET /metrics` | Prometheus text of this process |
//! | `GET /openapi.json` | the description of all of these |
//!
//! With a token, all but `/ping`, `/healthz` and `/readyz` ask for `Authorization: Bearer <token>`.

use std::future::Future;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use galerna_http::openapi::{add_error, operations, served};
use galerna_http::{
    ApiError, ErrorBody, Guard, ServeError, ServeOptions, Unready, check_exposure, metrics, readiness,
    serve_until,
};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::maintainer::Maintainer;
use crate::task::{Run, RunFailure, Task, TaskError};

/// Paths that need no token.
const OPEN_PATHS: &[&str] = &["/ping", "/healthz", "/readyz"];
/// One in so many of the files that the process may open are connections of this service, or of the small server of lists.
pub(crate) const SHARE_OF_FILES: usize = 16;
/// The longest that a call may ask to watch leases for.
const LONGEST_WATCH_MS: u64 = 3_600_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunQuery {
    #[serde(default)]
    force: bool,
    watch_ms: Option<u64>,
}

impl Maintainer {
    /// The route that runs a task, alone: for a process that serves it beside others, and asks for its own token.
    pub fn task_routes(&self) -> OpenApiRouter {
        OpenApiRouter::new().routes(routes!(run)).with_state(self.clone())
    }

    /// The routes of the service.
    pub fn router(&self, token: Option<&str>) -> Router {
        let routes = OpenApiRouter::new()
            .routes(routes!(status))
            .routes(routes!(run))
            .routes(routes!(show_metrics))
            .routes(routes!(ping))
            .routes(routes!(readyz))
            .with_state(self.clone());
        let (routes, _) = served(routes, describe);
        Guard::new(token).protect(routes, OPEN_PATHS)
    }

    /// Serves until `shutdown` ends, then lets open requests finish.
    ///
    /// # Errors
    /// When the listener fails, or it can be reached from other machines and there is no token.
    pub async fn serve(
        &self,
        listener: TcpListener,
        token: Option<&str>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        const SERVICE: &str = "maintainer";
        check_exposure(&listener, &Guard::new(token), SERVICE)?;
        let options = ServeOptions::new(SERVICE).within_files(SHARE_OF_FILES);
        serve_until(listener, self.router(token), options, shutdown).await
    }
}

fn describe(description: &mut OpenApi) {
    "Galerna maintainer".clone_into(&mut description.info.title);
    description.info.description = Some("Keeps the queues' states true to accounts and broker.".to_owned());
    description.info.version = env!("CARGO_PKG_VERSION").to_owned();
    for (path, _, operation) in operations(description) {
        if !OPEN_PATHS.contains(&path) {
            add_error(operation, "401", "`unauthorized`: a token is demanded and was not sent");
            add_error(operation, "429", "`too_many_tries`: too many wrong tokens came from this address");
        }
    }
}

/// Whether each task runs on time.
#[utoipa::path(get, path = "/ping", responses(
    (status = 200, description = "all do", body = Object, example = json!({"on_time": true, "tasks": {}})),
    (status = 503, description = "some do not: the same body says which", body = Object)))]
async fn ping(State(maintainer): State<Maintainer>) -> Response {
    let status = maintainer.status();
    let tasks: serde_json::Map<String, serde_json::Value> = status
        .tasks
        .iter()
        .map(|task| {
            let told = json!({
                "on_time": task.on_time,
                "last_success": task.last_success,
                "last_success_ago_ms": task.last_success_ago_ms,
            });
            (task.task.to_string(), told)
        })
        .collect();
    let code = if status.on_time { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({"on_time": status.on_time, "tasks": tasks}))).into_response()
}

/// The state of each task.
#[utoipa::path(get, path = "/status", responses(
    (status = 200, description = "the tasks", body = Object, example = json!({"on_time": true, "tasks": []}))))]
async fn status(State(maintainer): State<Maintainer>) -> Response {
    Json(maintainer.status()).into_response()
}

/// Whether every task has run, and its last run ended well.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "ready", body = Object, example = json!({"ready": true})),
    (status = 503, description = "`not_ready`: what failed", body = ErrorBody)))]
async fn readyz(State(maintainer): State<Maintainer>) -> Response {
    readiness(
        &json!({}),
        maintainer.readiness().err().map(|problem| Unready::new("not_ready", problem.to_string())),
    )
}

/// Metrics of this process in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "metrics", body = String, content_type = "text/plain")))]
async fn show_metrics(State(maintainer): State<Maintainer>) -> Response {
    metrics::answer(maintainer.registry())
}

/// Runs a task of the maintainer now.
#[utoipa::path(post, path = "/tasks/{task}/run",
    params(
        ("task" = String, Path, description = "`accounts`, `empties`, `timeouts` or `deletions`"),
        ("force" = Option<bool>, Query, description = "believe a list of accounts that lost much"),
        ("watch_ms" = Option<u64>, Query, description = "watch leases for so long, at most an hour")),
    responses(
        (status = 200, description = "what it did", body = Object, example = json!({"task": "empties", "report": {"emptied": 2}})),
        (status = 400, description = "`bad_query`", body = ErrorBody),
        (status = 404, description = "`unknown_task`", body = ErrorBody),
        (status = 409, description = "`busy`, or `accounts_suspicious`: use `force` if the list is right", body = ErrorBody),
        (status = 502, description = "the list of accounts, the store or the broker failed", body = ErrorBody),
        (status = 504, description = "it took too long", body = ErrorBody)))]
async fn run(
    State(maintainer): State<Maintainer>,
    Path(task): Path<String>,
    query: Result<Query<RunQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let task: Task = task.parse().map_err(|e: crate::UnknownTask| {
        ApiError::new(StatusCode::NOT_FOUND, "unknown_task", e.to_string())
    })?;
    let Query(query) =
        query.map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, "bad_query", e.body_text()))?;
    let watch = query.watch_ms.map(|ms| Duration::from_millis(ms.min(LONGEST_WATCH_MS)));
    match maintainer.run_once(task, Run { force: query.force, watch }).await {
        Ok(report) => Ok(Json(json!({"task": task, "report": report})).into_response()),
        Err(failure) => Err(failed(&failure)),
    }
}

fn failed(failure: &RunFailure) -> ApiError {
    let status = match failure.error {
        TaskError::Busy | TaskError::Suspicious(_) => StatusCode::CONFLICT,
        TaskError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        TaskError::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
        TaskError::Directory(_) | TaskError::Storage(_) | TaskError::Broker(_) => StatusCode::BAD_GATEWAY,
    };
    ApiError::new(status, failure.error.code(), failure.error.to_string())
        .with("task", json!(failure.task))
        .with("report", json!(failure.report))
}
