//! The one form of errors: `{"error": {"code": "...", "message": "..."}}`.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::dispatcher::AdminError;
use galerna_lease::LeaseError;

/// Body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// For programs, for instance `stale_epoch`.
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
}

#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: ErrorDetail { code: self.code.to_owned(), message: self.message } };
        (self.status, Json(body)).into_response()
    }
}

impl From<LeaseError> for ApiError {
    fn from(e: LeaseError) -> Self {
        let (status, code) = match &e {
            LeaseError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
            LeaseError::StaleEpoch { .. } => (StatusCode::CONFLICT, "stale_epoch"),
            LeaseError::UnknownQueue(_) => (StatusCode::NOT_FOUND, "unknown_queue"),
            LeaseError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            LeaseError::Refused(_) => (StatusCode::CONFLICT, "refused"),
        };
        Self::new(status, code, e.to_string())
    }
}

impl From<AdminError> for ApiError {
    fn from(e: AdminError) -> Self {
        let (status, code) = match &e {
            AdminError::UnknownQueue(_) => (StatusCode::NOT_FOUND, "unknown_queue"),
            AdminError::Query(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_query"),
            AdminError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            AdminError::Refused(_) => (StatusCode::CONFLICT, "refused"),
        };
        Self::new(status, code, e.to_string())
    }
}

pub(super) async fn no_route(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(
        StatusCode::NOT_FOUND,
        "no_route",
        format!("there is no {method} {path}; GET /openapi.json lists the routes"),
    )
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{path} does not take {method}; GET /openapi.json lists the routes"),
    )
}
