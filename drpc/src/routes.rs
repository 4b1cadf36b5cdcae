//! Calls over HTTP.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use galerna_http::{ApiError, Params};
use serde::Deserialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::DrpcError;
use crate::functions::Drpc;

impl Drpc {
    /// `POST /drpc/<function>` and `GET /drpc/<function>/<argument>`, as a router to be served beside others. A call that is
    /// given up by its caller is cancelled.
    pub fn routes(&self) -> OpenApiRouter {
        let limit = DefaultBodyLimit::max(self.options().argument_bytes);
        OpenApiRouter::new()
            .routes(routes!(call))
            .routes(routes!(call_by_path))
            .layer(limit)
            .with_state(self.clone())
    }
}

impl From<DrpcError> for ApiError {
    fn from(error: DrpcError) -> Self {
        let (status, code) = match &error {
            DrpcError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_function"),
            DrpcError::Inactive(_) => (StatusCode::SERVICE_UNAVAILABLE, "inactive"),
            DrpcError::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_calls"),
            DrpcError::Deadline { .. } => (StatusCode::GATEWAY_TIMEOUT, "deadline"),
            DrpcError::Failed { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
            DrpcError::NoResult(_) => (StatusCode::INTERNAL_SERVER_ERROR, "no_result"),
        };
        let answer = Self::new(status, code, error.to_string());
        match &error {
            DrpcError::Failed { component, kind, .. } => {
                answer.with("component", Value::from(&**component)).with("fault", Value::from(kind.name()))
            }
            DrpcError::Busy { .. } | DrpcError::Inactive(_) => answer.retry_after(Duration::from_secs(1)),
            _ => answer,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Within {
    /// Milliseconds.
    timeout_ms: Option<u64>,
}

async fn run(drpc: &Drpc, function: &str, argument: String, within: &Within) -> Result<Response, ApiError> {
    let timeout = within.timeout_ms.map_or(drpc.options().timeout, Duration::from_millis);
    let result = drpc.execute_within(function, argument, timeout).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], result).into_response())
}

type Parts<T> = Result<Path<T>, axum::extract::rejection::PathRejection>;

fn parts<T>(path: Parts<T>) -> Result<T, ApiError> {
    path.map(|Path(parts)| parts)
        .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, "invalid_path", e.body_text()))
}

/// Calls a function and answers with its result.
#[utoipa::path(post, path = "/drpc/{function}",
    params(("function" = String, Path, description = "the function"),
        ("timeout_ms" = Option<u64>, Query, description = "wait no longer for the result; the service has a limit of its own")),
    request_body(content = String, content_type = "text/plain", description = "the argument"),
    responses(
        (status = 200, description = "the result", body = String, content_type = "text/plain"),
        (status = 400, description = "`not_text`: the body is no UTF-8", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_function`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`invalid_query`", body = ref("#/components/schemas/ErrorBody")),
        (status = 429, description = "`too_many_calls` are in flight", body = ref("#/components/schemas/ErrorBody")),
        (status = 500, description = "`failed`: a tuple of the call failed, in `component`; `no_result`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`inactive`: its topology is not active", body = ref("#/components/schemas/ErrorBody")),
        (status = 504, description = "`deadline`: there was no result in time", body = ref("#/components/schemas/ErrorBody"))))]
async fn call(
    State(drpc): State<Drpc>,
    function: Parts<String>,
    Params(within): Params<Within>,
    body: Result<bytes::Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, ApiError> {
    let function = parts(function)?;
    let body = body.map_err(|e| {
        let code =
            if e.status() == StatusCode::PAYLOAD_TOO_LARGE { "body_too_large" } else { "unreadable_body" };
        ApiError::new(e.status(), code, e.body_text()).closing()
    })?;
    let argument = String::from_utf8(body.into()).map_err(|e| {
        let message = format!("the argument is no UTF-8 text: {}", e.utf8_error());
        ApiError::new(StatusCode::BAD_REQUEST, "not_text", message)
    })?;
    run(&drpc, &function, argument, &within).await
}

/// Calls a function with an argument that stands in the path.
#[utoipa::path(get, path = "/drpc/{function}/{argument}",
    params(("function" = String, Path, description = "the function"), ("argument" = String, Path, description = "the argument"),
        ("timeout_ms" = Option<u64>, Query, description = "wait no longer for the result; the service has a limit of its own")),
    responses(
        (status = 200, description = "the result", body = String, content_type = "text/plain"),
        (status = 404, description = "`unknown_function`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`invalid_query`", body = ref("#/components/schemas/ErrorBody")),
        (status = 429, description = "`too_many_calls` are in flight", body = ref("#/components/schemas/ErrorBody")),
        (status = 500, description = "`failed`: a tuple of the call failed, in `component`; `no_result`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`inactive`: its topology is not active", body = ref("#/components/schemas/ErrorBody")),
        (status = 504, description = "`deadline`: there was no result in time", body = ref("#/components/schemas/ErrorBody"))))]
async fn call_by_path(
    State(drpc): State<Drpc>,
    path: Parts<(String, String)>,
    Params(within): Params<Within>,
) -> Result<Response, ApiError> {
    let (function, argument) = parts(path)?;
    run(&drpc, &function, argument, &within).await
}
