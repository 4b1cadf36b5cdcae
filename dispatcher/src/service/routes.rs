//! Every route, once: the router is built from this table, and a test compares it with the OpenAPI document.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use galerna_model::QueueName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{
    Body, HintBody, LeaseBody, LeasesBody, NextBody, PauseBody, ReleaseBody, RenewBody, RenewedBody,
    StrategyBody,
};
use super::error::{ApiError, ErrorBody};
use super::openapi;
use crate::dispatcher::{Dispatcher, MAX_COUNT};
use crate::status::{QueueView, StatusPage, StatusQuery};
use crate::strategy::StrategyName;
use galerna_lease::{Leases, NextRequest, Release};

type Answer<T> = Result<Json<T>, ApiError>;

/// A path, its methods in lower case, and what serves it.
pub(super) struct Route {
    pub(super) path: &'static str,
    #[cfg_attr(not(test), allow(dead_code))] // the test reads it
    pub(super) methods: &'static [&'static str],
    pub(super) handler: MethodRouter<Dispatcher>,
}

pub(super) fn all() -> Vec<Route> {
    let route = |path, methods, handler| Route { path, methods, handler };
    vec![
        route("/queue/next", &["post"], post(next)),
        route("/queue/hint", &["post"], post(hint)),
        route("/queue/status", &["get"], get(status)),
        route("/queue/{id}", &["get"], get(queue)),
        route("/queue/{id}/release", &["post"], post(release)),
        route("/queue/{id}/renew", &["post"], post(renew)),
        route("/queue/{id}/pause", &["post"], post(pause)),
        route("/queue/{id}/unpause", &["post"], post(unpause)),
        route("/stop", &["post"], post(stop)),
        route("/start", &["post"], post(start)),
        route("/strategy", &["get", "put"], get(strategy).put(set_strategy)),
        route("/healthz", &["get"], get(healthz)),
        route("/readyz", &["get"], get(readyz)),
        route("/metrics", &["get"], get(metrics)),
        route("/openapi.json", &["get"], get(document)),
    ]
}

/// Who acts through the API, in the log of transitions.
const OPERATOR: &str = "operator";
/// The longest consumer name and reason.
const MAX_TEXT: usize = 1_000;

/// The queue of a path. A name that no queue can have is the name of no queue.
fn named(path: Result<Path<String>, PathRejection>) -> Result<QueueName, ApiError> {
    let Path(name) =
        path.map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, "invalid_path", e.to_string()))?;
    QueueName::new(&name).map_err(|e| ApiError::new(StatusCode::NOT_FOUND, "unknown_queue", e.to_string()))
}

fn too_long(field: &str) -> ApiError {
    let message = format!("`{field}` is too long; use at most {MAX_TEXT} bytes");
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong_shape", message)
}

/// Leases the next queue by the strategy.
#[utoipa::path(post, path = "/queue/next", request_body = NextBody, responses(
    (status = 200, description = "leased; with `count` above 1 as `{\"leases\": [...]}`", body = LeaseBody),
    (status = 204, description = "nothing to lease within `wait_ms`"),
    (status = 503, description = "`stopped`, or `unavailable`: the store is away", body = ErrorBody)))]
pub(super) async fn next(
    State(dispatcher): State<Dispatcher>,
    Body(body): Body<NextBody>,
) -> Result<Response, ApiError> {
    if body.count == 0 || body.count > MAX_COUNT {
        let message = format!("`count` is {}; use 1 to {MAX_COUNT}", body.count);
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong_shape", message));
    }
    let consumer = body.consumer.unwrap_or_else(|| "anonymous".to_owned());
    if consumer.len() > MAX_TEXT {
        return Err(too_long("consumer"));
    }
    let request = NextRequest {
        consumer,
        wait: Duration::from_millis(body.wait_ms),
        count: body.count,
        release: body.release,
    };
    let mut leases = dispatcher.next(request).await?;
    Ok(match leases.pop() {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(lease) if body.count == 1 => Json(lease).into_response(),
        Some(lease) => {
            leases.push(lease);
            Json(LeasesBody { leases }).into_response()
        }
    })
}

/// What became of a hint.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct HintAnswer {
    /// How many of the queues are known.
    pub(crate) known: usize,
}

/// Says that messages have just reached these queues; unknown ones are ignored.
#[utoipa::path(post, path = "/queue/hint", request_body = HintBody, responses(
    (status = 200, description = "taken", body = HintAnswer)))]
pub(super) async fn hint(
    State(dispatcher): State<Dispatcher>,
    Body(body): Body<HintBody>,
) -> Answer<HintAnswer> {
    Ok(Json(HintAnswer { known: dispatcher.hint(&body.queues) }))
}

/// Gives a lease back.
#[utoipa::path(post, path = "/queue/{id}/release", request_body = ReleaseBody,
    params(("id" = String, Path, description = "the queue")), responses(
    (status = 200, description = "released", body = QueueView),
    (status = 404, description = "`unknown_queue`", body = ErrorBody),
    (status = 409, description = "`stale_epoch`", body = ErrorBody)))]
pub(super) async fn release(
    State(dispatcher): State<Dispatcher>,
    path: Result<Path<String>, PathRejection>,
    Body(body): Body<ReleaseBody>,
) -> Answer<QueueView> {
    let queue = named(path)?;
    dispatcher.release(&Release { queue: queue.clone(), epoch: body.epoch, empty: body.empty }).await?;
    Ok(Json(dispatcher.queue(&queue).await?))
}

/// Extends a lease.
#[utoipa::path(post, path = "/queue/{id}/renew", request_body = RenewBody,
    params(("id" = String, Path, description = "the queue")), responses(
    (status = 200, description = "renewed", body = RenewedBody),
    (status = 404, description = "`unknown_queue`", body = ErrorBody),
    (status = 409, description = "`stale_epoch`", body = ErrorBody)))]
pub(super) async fn renew(
    State(dispatcher): State<Dispatcher>,
    path: Result<Path<String>, PathRejection>,
    Body(body): Body<RenewBody>,
) -> Result<Response, ApiError> {
    let queue = named(path)?;
    Ok(Json(dispatcher.renew(&queue, body.epoch).await?).into_response())
}

/// Blocks a queue until it is unpaused. Idempotent.
#[utoipa::path(post, path = "/queue/{id}/pause", request_body = Option<PauseBody>,
    params(("id" = String, Path, description = "the queue")), responses(
    (status = 200, description = "paused", body = QueueView),
    (status = 404, description = "`unknown_queue`", body = ErrorBody)))]
pub(super) async fn pause(
    State(dispatcher): State<Dispatcher>,
    path: Result<Path<String>, PathRejection>,
    Body(body): Body<PauseBody>,
) -> Answer<QueueView> {
    let queue = named(path)?;
    if body.reason.as_ref().is_some_and(|r| r.len() > MAX_TEXT) {
        return Err(too_long("reason"));
    }
    Ok(Json(dispatcher.pause(&queue, body.reason, OPERATOR).await?))
}

/// Unblocks a queue. Idempotent.
#[utoipa::path(post, path = "/queue/{id}/unpause",
    params(("id" = String, Path, description = "the queue")), responses(
    (status = 200, description = "unpaused", body = QueueView),
    (status = 404, description = "`unknown_queue`", body = ErrorBody)))]
pub(super) async fn unpause(
    State(dispatcher): State<Dispatcher>,
    path: Result<Path<String>, PathRejection>,
) -> Answer<QueueView> {
    Ok(Json(dispatcher.unpause(&named(path)?, OPERATOR).await?))
}

/// Whether leases are given.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Running {
    /// Whether leases are given.
    pub(crate) running: bool,
}

/// Stops giving leases; releases and renewals still work. Survives restarts.
#[utoipa::path(post, path = "/stop", responses(
    (status = 200, description = "stopped", body = Running),
    (status = 503, description = "`unavailable`: the store is away", body = ErrorBody)))]
pub(super) async fn stop(State(dispatcher): State<Dispatcher>) -> Answer<Running> {
    dispatcher.stop().await?;
    Ok(Json(Running { running: false }))
}

/// Gives leases again.
#[utoipa::path(post, path = "/start", responses(
    (status = 200, description = "started", body = Running),
    (status = 503, description = "`unavailable`: the store is away", body = ErrorBody)))]
pub(super) async fn start(State(dispatcher): State<Dispatcher>) -> Answer<Running> {
    dispatcher.start().await?;
    Ok(Json(Running { running: true }))
}

/// A page of queues.
#[utoipa::path(get, path = "/queue/status", params(StatusQuery), responses(
    (status = 200, description = "a page of queues", body = StatusPage),
    (status = 422, description = "`invalid_query`", body = ErrorBody)))]
pub(super) async fn status(
    State(dispatcher): State<Dispatcher>,
    query: Result<Query<StatusQuery>, QueryRejection>,
) -> Answer<StatusPage> {
    let Query(query) =
        query.map_err(|e| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", e.body_text()))?;
    Ok(Json(dispatcher.status(&query)?))
}

/// One queue.
#[utoipa::path(get, path = "/queue/{id}",
    params(("id" = String, Path, description = "the queue")), responses(
    (status = 200, description = "the queue", body = QueueView),
    (status = 404, description = "`unknown_queue`", body = ErrorBody)))]
pub(super) async fn queue(
    State(dispatcher): State<Dispatcher>,
    path: Result<Path<String>, PathRejection>,
) -> Answer<QueueView> {
    Ok(Json(dispatcher.queue(&named(path)?).await?))
}

/// The strategy in force and the one asked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct StrategyAnswer {
    /// In force.
    pub(crate) strategy: StrategyName,
    /// Asked for.
    pub(crate) configured: StrategyName,
}

fn strategies(dispatcher: &Dispatcher) -> Json<StrategyAnswer> {
    let view = dispatcher.view();
    Json(StrategyAnswer { strategy: view.strategy, configured: view.configured })
}

/// The strategy.
#[utoipa::path(get, path = "/strategy", responses(
    (status = 200, description = "in force, and asked for", body = StrategyAnswer)))]
pub(super) async fn strategy(State(dispatcher): State<Dispatcher>) -> Json<StrategyAnswer> {
    strategies(&dispatcher)
}

/// Sets the strategy; no lease is touched. Survives restarts.
#[utoipa::path(put, path = "/strategy", request_body = StrategyBody, responses(
    (status = 200, description = "set", body = StrategyAnswer),
    (status = 422, description = "`wrong_shape`: no such strategy", body = ErrorBody),
    (status = 503, description = "`unavailable`: the store is away", body = ErrorBody)))]
pub(super) async fn set_strategy(
    State(dispatcher): State<Dispatcher>,
    Body(body): Body<StrategyBody>,
) -> Answer<StrategyAnswer> {
    dispatcher.set_strategy(body.strategy).await?;
    Ok(strategies(&dispatcher))
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "it lives")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether calls can be served.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "ready"),
    (status = 503, description = "`unavailable`: the store does not answer", body = ErrorBody)))]
pub(super) async fn readyz(State(dispatcher): State<Dispatcher>) -> Result<&'static str, ApiError> {
    if dispatcher.is_ready() {
        Ok("ready\n")
    } else {
        let message = "the store does not answer, or the dispatcher shuts down";
        Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message))
    }
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "metrics", content_type = "text/plain")))]
pub(super) async fn metrics(State(dispatcher): State<Dispatcher>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], dispatcher.metrics_text()).into_response()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "OpenAPI", content_type = "application/json")))]
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi::document())
}
