//! What can be wrong with a call, as a page or as JSON.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use galerna_broker::BrokerError;
use galerna_dispatcher::AdminError;
use galerna_notifier::NotifierError;
use galerna_storage::StorageError;
use serde_json::json;

use super::layout;

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// Something is in the way now.
    #[error("{0}")]
    Conflict(String),
    /// No or a wrong credential.
    #[error("{0}")]
    Unauthorized(String),
    /// Not with this role, or not from there.
    #[error("{0}")]
    Forbidden(String),
    /// Too many wrong tokens.
    #[error("too many wrong tokens; wait a minute")]
    TooMany,
    /// The body cannot be read, or is too long.
    #[error("{1}")]
    Body(StatusCode, String),
    /// A module or a store does not answer.
    #[error("{0}")]
    Unavailable(String),
}

impl Problem {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Body(status, _) => *status,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Unknown(_) => "unknown",
            Self::Conflict(_) => "conflict",
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::TooMany => "too_many_tries",
            Self::Body(StatusCode::PAYLOAD_TOO_LARGE, _) => "too_large",
            Self::Body(..) => "unreadable_body",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// The answer: JSON for calls of the API, else a page.
    pub(super) fn answer(&self, is_api: bool) -> Response {
        let mut answer = if is_api {
            let error = json!({"error": {"code": self.code(), "message": self.to_string()}});
            (self.status(), Json(error)).into_response()
        } else {
            (self.status(), layout::problem(self)).into_response()
        };
        if *self == Self::TooMany {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        answer
    }
}

impl From<AdminError> for Problem {
    fn from(e: AdminError) -> Self {
        match e {
            AdminError::UnknownQueue(_) => Self::Unknown(e.to_string()),
            AdminError::Unavailable(_) => Self::Unavailable(e.to_string()),
            _ => Self::Invalid(e.to_string()),
        }
    }
}

impl From<BrokerError> for Problem {
    fn from(e: BrokerError) -> Self {
        match e {
            BrokerError::UnknownQueue(_) => Self::Unknown(e.to_string()),
            BrokerError::Invalid(_) => Self::Invalid(e.to_string()),
            _ => Self::Unavailable(e.to_string()),
        }
    }
}

impl From<NotifierError> for Problem {
    fn from(e: NotifierError) -> Self {
        match e {
            NotifierError::Unknown { .. } => Self::Unknown(e.to_string()),
            NotifierError::Broker(_) | NotifierError::Store(_) => Self::Unavailable(e.to_string()),
            _ => Self::Invalid(e.to_string()),
        }
    }
}

impl From<StorageError> for Problem {
    fn from(e: StorageError) -> Self {
        match e {
            StorageError::Invalid(_) => Self::Invalid(e.to_string()),
            _ => Self::Unavailable(e.to_string()),
        }
    }
}
