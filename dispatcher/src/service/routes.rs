//! Every route, once: the router and the OpenAPI document are built from this list.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use galerna_http::{ApiError, ErrorBody, JsonBody, Params, Unready, readiness};
use galerna_model::QueueName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{
    HintBody, LeaseBody, LeasesBody, NextBody, PauseBody, ReleaseBody, RenewBody, RenewedBody, StrategyBody,
};
use super::error::{of_admin, of_lease};
use crate::dispatcher::Dispatcher;
use crate::next::MAX_COUNT;
use crate::past::Transitions;
use crate::status::{QueueView, StatusPage, StatusQuery};
use galerna_lease::StrategyName;
use galerna_lease::{Leases, NextRequest, Release};

type Answer<T> = Result<Json<T>, ApiError>;

pub(super) fn all() -> OpenApiRouter<Dispatcher> {
    OpenApiRouter::new()
        .routes(routes!(next))
        .routes(routes!(hint))
        .routes(routes!(status))
        .routes(routes!(queue))
        .routes(routes!(transitions))
        .routes(routes!(release))
        .routes(routes!(renew))
        .routes(routes!(pause))
        .routes(routes!(unpause))
        .routes(routes!(stop))
        .routes(routes!(start))
        .routes(routes!(strategy, set_strategy))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
}

/// Who acts through the API, in the log of transitions.
const OPERATOR: &str = "operator";
/// The largest number that every reader of JSON has exactly.
const MAX_NUMBER: u64 = (1 << 53) - 1;
/// The longest consumer name and reason.
const MAX_TEXT: usize = 1_000;

/// The queue of a path. A name that no queue can have is the name of no queue.
fn named(path: Result<Path<String>, PathRejection>) -> Result<QueueName, ApiError> {
    let Path(name) =
        path.map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, "invalid_path", e.to_string()))?;
    QueueName::new(&name).map_err(|e| ApiError::new(StatusCode::NOT_FOUND, "unknown_queue", e.to_string()))
}

fn too_long(field: &str) -> ApiError {
    let message = format!("`{field}` is too long; use at most {MAX_TEXT} characters");
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong_shape", message)
}

fn check_length(field: &str, text: Option<&str>) -> Result<(), ApiError> {
    if text.is_some_and(|text| text.chars().count() > MAX_TEXT) { Err(too_long(field)) } else { Ok(()) }
}

fn check_reason(reason: Option<&str>) -> Result<(), ApiError> {
    check_length("reason", reason)
}

/// Leases the next queue by the strategy.
#[utoipa::path(post, path = "/queue/next", request_body = NextBody, responses(
    (status = 200, description = "leased; with `count` above 1 as `{\"leases\": [...]}`", body = NextAnswer),
    (status = 204, description = "nothing to lease within `wait_ms`"),
    (status = 503, description = "`stopped`, or `unavailable`: the store does not answer", body = ErrorBody)))]
async fn next(
    State(dispatcher): State<Dispatcher>,
    JsonBody(body): JsonBody<NextBody>,
) -> Result<Response, ApiError> {
    if body.count == 0 || body.count > MAX_COUNT {
        let message = format!("`count` is {}; use 1 to {MAX_COUNT}", body.count);
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong_shape", message));
    }
    if body.wait_ms > MAX_NUMBER || body.release.iter().any(|release| release.epoch > MAX_NUMBER) {
        let message = format!("`wait_ms` or an `epoch` is above {MAX_NUMBER}, which no lease ever has");
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong_shape", message));
    }
    let consumer = body.consumer.unwrap_or_else(|| "anonymous".to_owned());
    check_length("consumer", Some(&consumer))?;
    check_length("request_id", body.request_id.as_deref())?;
    let request = NextRequest {
        consumer,
        wait: Duration::from_millis(body.wait_ms),
        count: body.count,
        release: body.release,
        request: body.request_id.filter(|id| !id.is_empty()),
        retry: body.retry,
    };
    let mut leases = dispatcher.next(request).await.map_err(|e| of_lease(&e))?;
    Ok(match leases.pop() {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(lease) if body.count == 1 => Json(lease).into_response(),
        Some(lease) => {
            leases.push(lease);
            Json(LeasesBody { leases }).into_response()
        }
    })
}

/// One lease, or several when `count` is above 1.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code)] // only its schema is used
enum NextAnswer {
    /// One.
    One(LeaseBody),
    /// Several.
    Several(LeasesBody),
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
async fn hint(
    State(dispatcher): State<Dispatcher>,
    JsonBody(body): JsonBody<HintBody>,
) -> Answer<HintAnswer> {
    Ok(Json(HintAnswer { known: dispatcher.hint(&body.queues) }))
}

/// Gives a lease back.
#[utoipa::path(post, path = "/queue/{id}/release", request_body = ReleaseBody,
    params(("id" = String, Path, description = "the queue")), responses(
    (status = 200, description = "released", body = QueueView),
    (status = 404, description = "`unknown_queue`", body = ErrorBody),
    (status = 409, description = "`stale_epoch`", body = ErrorBody)))]
async fn release(
    State(dispatcher): State<Dispatcher>,
    path: Result<Path<String>, PathRejection>,
    JsonBody(body): JsonBody<ReleaseBody>,
) -> Answer<QueueView> {
    let queue = named(path)?;
    let release = Release { queue: queue.clone(), epoch: body.epoch, empty: body.empty };
    dispatcher.release(&release).await.map_err(|e| of_lease(&e))?;
    dispatcher.queue(&queue).await.map(Json).map_err(|e| of_admin(&e))
}

/// Extends a lease.
#[utoipa::path(post, path = "/queue/{id}/renew", request_body = RenewBody,
    params(("id" = String, Path, description = "the queue")), responses(
    (status = 200, description = "renewed", body = RenewedBody),
    (status = 404, description = "`unknown_queue`", body = ErrorBody),
    (status = 409, description = "`stale_epoch`", body = ErrorBody)))]
async fn renew(
    State(dispatcher): State<Dispatcher>,
    path: Result<Path<String>, PathRejection>,
    JsonBody(body): JsonBody<RenewBody>,
) -> Result<Response, ApiError> {
    let queue = named(path)?;
    let renewed = dispatcher.renew(&queue, body.epoch).await.map_err(|e| of_lease(&e))?;
    Ok(Json(renewed).into_response())
}

/// Blocks a queue until it is unpaused. Idempotent.
#[utoipa::path(post, path = "/queue/{id}/pause", request_body = PauseBody,
    params(("id" = String, Path, description = "the queue")), responses(
    (status = 200, description = "paused", body = QueueView),
    (status = 404, description = "`unknown_queue`", body = ErrorBody)))]
async fn pause(
    State(dispatcher): State<Dispatcher>,
    path: Result<Path<String>, PathRejection>,
    JsonBody(body): JsonBody<PauseBody>,
) -> Answer<QueueView> {
    let queue = named(path)?;
    check_reason(body.reason.as_deref())?;
    dispatcher.pause(&queue, body.reason, OPERATOR).await.map(Json).map_err(|e| of_admin(&e))
}

/// Unblocks a queue. Idempotent.
#[utoipa::path(post, path = "/queue/{id}/unpause", request_body = PauseBody,
    params(("id" = String, Path, description = "the queue")), responses(
    (status = 200, description = "unpaused", body = QueueView),
    (status = 404, description = "`unknown_queue`", body = ErrorBody)))]
async fn unpause(
    State(dispatcher): State<Dispatcher>,
    path: Result<Path<String>, PathRejection>,
    JsonBody(body): JsonBody<PauseBody>,
) -> Answer<QueueView> {
    let queue = named(path)?;
    check_reason(body.reason.as_deref())?;
    dispatcher.unpause(&queue, OPERATOR).await.map(Json).map_err(|e| of_admin(&e))
}

/// Whether leases are given.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Running {
    /// Whether leases are given.
    pub(crate) running: bool,
}

/// Stops giving leases; releases and renewals still work. Survives restarts.
#[utoipa::path(post, path = "/stop", request_body = PauseBody, responses(
    (status = 200, description = "stopped", body = Running),
    (status = 503, description = "`unavailable`: the store does not answer", body = ErrorBody)))]
async fn stop(State(dispatcher): State<Dispatcher>, JsonBody(body): JsonBody<PauseBody>) -> Answer<Running> {
    check_reason(body.reason.as_deref())?;
    dispatcher.stop().await.map_err(|e| of_admin(&e))?;
    Ok(Json(Running { running: false }))
}

/// Gives leases again.
#[utoipa::path(post, path = "/start", request_body = PauseBody, responses(
    (status = 200, description = "started", body = Running),
    (status = 503, description = "`unavailable`: the store does not answer", body = ErrorBody)))]
async fn start(State(dispatcher): State<Dispatcher>, JsonBody(body): JsonBody<PauseBody>) -> Answer<Running> {
    check_reason(body.reason.as_deref())?;
    dispatcher.start().await.map_err(|e| of_admin(&e))?;
    Ok(Json(Running { running: true }))
}

/// A page of queues.
#[utoipa::path(get, path = "/queue/status", params(StatusQuery), responses(
    (status = 200, description = "a page of queues", body = StatusPage),
    (status = 422, description = "`invalid_query`", body = ErrorBody)))]
async fn status(
    State(dispatcher): State<Dispatcher>,
    Params(query): Params<StatusQuery>,
) -> Answer<StatusPage> {
    dispatcher.status(&query).map(Json).map_err(|e| of_admin(&e))
}

/// One queue.
#[utoipa::path(get, path = "/queue/{id}",
    params(("id" = String, Path, description = "the queue")), responses(
    (status = 200, description = "the queue", body = QueueView),
    (status = 404, description = "`unknown_queue`", body = ErrorBody)))]
async fn queue(
    State(dispatcher): State<Dispatcher>,
    path: Result<Path<String>, PathRejection>,
) -> Answer<QueueView> {
    dispatcher.queue(&named(path)?).await.map(Json).map_err(|e| of_admin(&e))
}

/// What happened to a queue lately: its last holders, who paused it, leases that ran out.
#[utoipa::path(get, path = "/queue/{id}/transitions",
    params(("id" = String, Path, description = "the queue")), responses(
    (status = 200, description = "the last transitions that this dispatcher has written, the latest first", body = Transitions),
    (status = 404, description = "`unknown_queue`", body = ErrorBody)))]
async fn transitions(
    State(dispatcher): State<Dispatcher>,
    path: Result<Path<String>, PathRejection>,
) -> Answer<Transitions> {
    dispatcher.transitions(&named(path)?).await.map(Json).map_err(|e| of_admin(&e))
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
async fn strategy(State(dispatcher): State<Dispatcher>) -> Json<StrategyAnswer> {
    strategies(&dispatcher)
}

/// Sets the strategy; no lease is touched. Survives restarts.
#[utoipa::path(put, path = "/strategy", request_body = StrategyBody, responses(
    (status = 200, description = "set", body = StrategyAnswer),
    (status = 422, description = "`wrong_shape`: no such strategy", body = ErrorBody),
    (status = 503, description = "`unavailable`: the store does not answer", body = ErrorBody)))]
async fn set_strategy(
    State(dispatcher): State<Dispatcher>,
    JsonBody(body): JsonBody<StrategyBody>,
) -> Answer<StrategyAnswer> {
    check_reason(body.reason.as_deref())?;
    dispatcher.set_strategy(body.strategy).await.map_err(|e| of_admin(&e))?;
    Ok(strategies(&dispatcher))
}

/// Whether calls can be served, and why not.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    /// Whether they can.
    ready: bool,
}

/// Whether calls can be served.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "ready", body = Readiness),
    (status = 503, description = "`unavailable`: the store does not answer", body = ErrorBody)))]
async fn readyz(State(dispatcher): State<Dispatcher>) -> Response {
    let ready = dispatcher.is_ready();
    let message = "the store does not answer, or the dispatcher shuts down";
    readiness(&Readiness { ready }, (!ready).then(|| Unready::new("unavailable", message)))
}

/// Metrics of this process in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "metrics", body = String, content_type = "text/plain")))]
async fn metrics(State(dispatcher): State<Dispatcher>) -> Response {
    galerna_http::metrics::answer(dispatcher.registry())
}
