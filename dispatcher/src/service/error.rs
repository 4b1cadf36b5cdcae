//! What failed calls are answered with.

use axum::http::StatusCode;
use galerna_http::ApiError;

use crate::options::AdminError;
use galerna_lease::LeaseError;

/// What a call of a lease failed for.
pub(super) fn of_lease(e: &LeaseError) -> ApiError {
    let (status, code) = match e {
        LeaseError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
        LeaseError::StaleEpoch { .. } => (StatusCode::CONFLICT, "stale_epoch"),
        LeaseError::UnknownQueue(_) => (StatusCode::NOT_FOUND, "unknown_queue"),
        LeaseError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        LeaseError::Refused(_) => (StatusCode::CONFLICT, "refused"),
    };
    ApiError::new(status, code, e.to_string())
}

/// What an operator's call failed for.
pub(super) fn of_admin(e: &AdminError) -> ApiError {
    let (status, code) = match e {
        AdminError::UnknownQueue(_) => (StatusCode::NOT_FOUND, "unknown_queue"),
        AdminError::Query(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_query"),
        AdminError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        AdminError::Refused(_) => (StatusCode::CONFLICT, "refused"),
    };
    ApiError::new(status, code, e.to_string())
}
