//! Why a call is refused, and how that is answered.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use galerna_broker::BrokerError;
use galerna_http::{ApiError, ErrorDetail};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::answer::Rejected;

/// A call that was not taken: nothing of it is known to be safe.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{0}")]
    Malformed(String),
    #[error("the body is empty; send one reading or an array of readings as JSON")]
    Empty,
    #[error("none of the {} readings can be taken; the first: {}", rejected.len(), first(rejected))]
    NothingValid { rejected: Vec<Rejected> },
    #[error("the body ended before it was complete; send it again")]
    CutOff,
    #[error("the body took longer than {0:?}; send it faster or in smaller parts")]
    TooSlow(Duration),
    #[error(
        "source and token do not belong together; give `source_key` and `x-dexcell-source-token` as the platform shows them"
    )]
    Unauthorized,
    #[error("{0}")]
    TooLarge(String),
    #[error("content encoding `{0}` is not taken; send gzip, zstd or none")]
    Encoding(String),
    #[error("this source sends more than its {what} a second; wait {wait:?}")]
    TooMany { what: &'static str, wait: Duration },
    #[error("this {0} has too much under way at once; wait for its answers and send again")]
    TooMuchAtOnce(&'static str),
    #[error("too much is under way here; try again in a moment")]
    Overloaded,
    #[error("no list of sources has been read yet; try again in a moment")]
    NoSources,
    #[error("the readings are not safe, send them again: {0}")]
    Broker(String),
    #[error("the readings are not safe, send them again: the broker blocks publishing: {0}")]
    Blocked(String),
    #[error("the readings are not safe, send them again: the queue of this account is not there yet")]
    NoQueue,
    #[error("statistics cannot be read: {0}")]
    Statistics(String),
    #[error("{0}")]
    Refresh(String),
}

fn first(rejected: &[Rejected]) -> String {
    rejected.first().map_or_else(String::new, |r| format!("[{}] {}", r.index, r.reason))
}

/// Body of every error of a call.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
    /// When no reading of a call can be taken: why, by their indexes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<Rejected>,
}

impl CallError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Empty | Self::NothingValid { .. } | Self::CutOff => {
                StatusCode::BAD_REQUEST
            }
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooMany { .. } | Self::TooMuchAtOnce(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded
            | Self::NoSources
            | Self::Broker(_)
            | Self::Blocked(_)
            | Self::NoQueue
            | Self::Refresh(_)
            | Self::Statistics(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Empty => "empty_body",
            Self::NothingValid { .. } => "no_valid_reading",
            Self::CutOff => "body_cut_off",
            Self::TooSlow(_) => "body_too_slow",
            Self::Unauthorized => "unauthorized",
            Self::TooLarge(_) => "too_large",
            Self::Encoding(_) => "unsupported_encoding",
            Self::TooMany { .. } => "too_many",
            Self::TooMuchAtOnce(_) => "too_much_at_once",
            Self::Overloaded => "overloaded",
            Self::NoSources => "sources_unknown",
            Self::Broker(_) => "broker_away",
            Self::Blocked(_) => "broker_blocked",
            Self::NoQueue => "queue_missing",
            Self::Statistics(_) => "statistics_away",
            Self::Refresh(_) => "not_refreshed",
        }
    }

    /// After how long it is worth to try again. What many senders wait for together is spread over twice its time, so that
    /// they do not come back together.
    fn retry_after(&self) -> Option<Duration> {
        let spread = |seconds: u64| Duration::from_secs(fastrand::u64(seconds..=2 * seconds));
        match self {
            Self::TooMany { wait, .. } => Some(*wait),
            Self::TooMuchAtOnce(_) | Self::Overloaded | Self::Statistics(_) => Some(spread(1)),
            Self::NoSources | Self::Broker(_) | Self::NoQueue => Some(spread(5)),
            Self::Blocked(_) => Some(spread(10)),
            _ => None,
        }
    }
}

impl From<BrokerError> for CallError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Blocked(reason) => Self::Blocked(reason),
            BrokerError::UnknownQueue(_) => Self::NoQueue,
            // The broker's own words may name hosts; they are in the log.
            BrokerError::Unconfirmed { .. } => {
                Self::Broker("the broker did not confirm all of them".to_owned())
            }
            BrokerError::Timeout { .. } => Self::Broker("the broker did not confirm in time".to_owned()),
            _ => Self::Broker("the broker is unavailable".to_owned()),
        }
    }
}

impl From<CallError> for ApiError {
    fn from(refused: CallError) -> Self {
        let (status, code, message) = (refused.status(), refused.code(), refused.to_string());
        let mut error = match refused {
            // No registered scheme; a 401 must name one all the same (RFC 9110, 15.5.2).
            CallError::Unauthorized => Self::unauthorized("SourceToken", message),
            _ => Self::new(status, code, message),
        };
        if let Some(wait) = refused.retry_after() {
            error = error.retry_after(wait);
        }
        match refused {
            // What was not read of a refused body would otherwise have to be read to its end.
            CallError::TooLarge(_) | CallError::CutOff | CallError::TooSlow(_) => error.closing(),
            CallError::NothingValid { rejected } => error.with("rejected", json!(rejected)),
            _ => error,
        }
    }
}

impl IntoResponse for CallError {
    fn into_response(self) -> Response {
        let encoding = matches!(self, Self::Encoding(_));
        let mut answer = ApiError::from(self).into_response();
        if encoding {
            answer.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
        }
        answer
    }
}
