//! The maintainer's HTTP service.
//!
//! | call | answer |
//! |---|---|
//! | `GET /ping` | 200 while all tasks run on time, else 503; both times whether each is on time and when it last succeeded |
//! | `GET /status` | 200, the [`Status`](crate::Status) |
//! | `POST /tasks/<name>/run?force=true` | 200 with what the run did, 404, 409 `busy` or `accounts_suspicious`, 502, 504, each with what was done |
//! | `GET /healthz` | 200 while the process serves |
//! | `GET /readyz` | 200 when every task has run and its last run ended well, else 503 with what failed |
//! | `GET /metrics` | Prometheus text |
//!
//! With a token, all but `/ping`, `/healthz` and `/readyz` ask for `Authorization: Bearer <token>`.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

use crate::bearer;
use crate::maintainer::Maintainer;
use crate::task::{Run, RunFailure, Task, TaskError};

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
    pub fn task_routes(&self) -> Router {
        Router::new().route("/tasks/{task}/run", post(run)).with_state(self.clone())
    }

    /// The routes of the service.
    pub fn router(&self, token: Option<&str>) -> Router {
        let token: Option<Arc<str>> = token.map(Arc::from);
        Router::new()
            .route("/status", get(status))
            .route("/tasks/{task}/run", post(run))
            .route("/metrics", get(metrics))
            .layer(middleware::from_fn_with_state(token, bearer::require))
            .route("/ping", get(ping))
            .route("/healthz", get(|| async { "ok" }))
            .route("/readyz", get(readyz))
            .with_state(self.clone())
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
    ) -> io::Result<()> {
        bearer::check_exposure(&listener, token.is_some(), "maintainer")?;
        axum::serve(listener, self.router(token)).with_graceful_shutdown(shutdown).await
    }
}

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

async fn status(State(maintainer): State<Maintainer>) -> Response {
    Json(maintainer.status()).into_response()
}

async fn readyz(State(maintainer): State<Maintainer>) -> Response {
    match maintainer.readiness() {
        Ok(()) => "ready".into_response(),
        Err(problem) => bearer::error(StatusCode::SERVICE_UNAVAILABLE, "not_ready", problem),
    }
}

async fn metrics(State(maintainer): State<Maintainer>) -> Response {
    match maintainer.metrics_text() {
        Ok(text) => text.into_response(),
        Err(e) => bearer::error(StatusCode::INTERNAL_SERVER_ERROR, "metrics", e.to_string()),
    }
}

async fn run(
    State(maintainer): State<Maintainer>,
    Path(task): Path<String>,
    query: Result<Query<RunQuery>, QueryRejection>,
) -> Response {
    let task: Task = match task.parse() {
        Ok(task) => task,
        Err(e) => {
            let e: crate::UnknownTask = e;
            return bearer::error(StatusCode::NOT_FOUND, "unknown_task", e.to_string());
        }
    };
    let query = match query {
        Ok(Query(query)) => query,
        Err(e) => return bearer::error(StatusCode::BAD_REQUEST, "bad_query", e.body_text()),
    };
    let watch = query.watch_ms.map(|ms| Duration::from_millis(ms.min(LONGEST_WATCH_MS)));
    match maintainer.run_once(task, Run { force: query.force, watch }).await {
        Ok(report) => Json(json!({"task": task, "report": report})).into_response(),
        Err(failure) => failed(failure),
    }
}

fn failed(failure: RunFailure) -> Response {
    let status = match failure.error {
        TaskError::Busy | TaskError::Suspicious(_) => StatusCode::CONFLICT,
        TaskError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        TaskError::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
        TaskError::Directory(_) | TaskError::Storage(_) | TaskError::Broker(_) => StatusCode::BAD_GATEWAY,
    };
    let body = json!({
        "error": {"code": failure.error.code(), "message": failure.error.to_string()},
        "task": failure.task,
        "report": failure.report,
    });
    (status, Json(body)).into_response()
}
