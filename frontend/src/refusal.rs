//! Why a call is refused, and how that is answered.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use galerna_broker::BrokerError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::Rejected;

/// A call that was not taken: nothing of it is known to be safe.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
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
    #[error("this needs `Authorization: Bearer <operator token>`")]
    OperatorNeeded,
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
    #[error("the readings are not safe, send them again: the broker blocks publishing")]
    Blocked,
    #[error("the readings are not safe, send them again: the queue of this account is not there yet")]
    NoQueue,
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Method(String),
    #[error("statistics cannot be read: {0}")]
    Statistics(String),
    #[error("{0}")]
    Refresh(String),
}

fn first(rejected: &[Rejected]) -> String {
    rejected.first().map_or_else(String::new, |r| format!("[{}] {}", r.index, r.reason))
}

/// Body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
    /// When no reading of a call can be taken: why, by their indexes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<Rejected>,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// For programs, for instance `malformed_json`.
    code: &'static str,
    /// For people.
    message: String,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Empty | Self::NothingValid { .. } | Self::CutOff => {
                StatusCode::BAD_REQUEST
            }
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized | Self::OperatorNeeded => StatusCode::UNAUTHORIZED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooMany { .. } | Self::TooMuchAtOnce(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Overloaded
            | Self::NoSources
            | Self::Broker(_)
            | Self::Blocked
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
            Self::Unauthorized | Self::OperatorNeeded => "unauthorized",
            Self::TooLarge(_) => "too_large",
            Self::Encoding(_) => "unsupported_encoding",
            Self::TooMany { .. } => "too_many",
            Self::TooMuchAtOnce(_) => "too_much_at_once",
            Self::Overloaded => "overloaded",
            Self::NoSources => "sources_unknown",
            Self::Broker(_) => "broker_away",
            Self::Blocked => "broker_blocked",
            Self::NoQueue => "queue_missing",
            Self::NotFound(_) => "not_found",
            Self::Method(_) => "method_not_allowed",
            Self::Statistics(_) => "statistics_away",
            Self::Refresh(_) => "not_refreshed",
        }
    }

    /// Seconds after which it is worth to try again. What many senders wait for together is spread over twice its time, so that
    /// they do not come back together.
    fn retry_after(&self) -> Option<u64> {
        let spread = |seconds: u64| fastrand::u64(seconds..=2 * seconds);
        match self {
            Self::TooMany { wait, .. } => {
                Some(wait.as_millis().div_ceil(1_000).max(1).try_into().unwrap_or(1))
            }
            Self::TooMuchAtOnce(_) | Self::Overloaded | Self::Statistics(_) => Some(spread(1)),
            Self::NoSources | Self::Broker(_) | Self::NoQueue => Some(spread(5)),
            Self::Blocked => Some(spread(10)),
            _ => None,
        }
    }
}

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Blocked(_) => Self::Blocked,
            BrokerError::UnknownQueue(_) => Self::NoQueue,
            // The broker's own words may name hosts; they are in the log.
            BrokerError::Unconfirmed { .. } => {
                Self::Broker("the broker did not confirm all of them".to_owned())
            }
            BrokerError::Timeout { .. } => Self::Broker("the broker did not confirm in time".to_owned()),
            _ => Self::Broker("the broker is away".to_owned()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let detail = ErrorDetail { code: self.code(), message: self.to_string() };
        let (status, retry_after) = (self.status(), self.retry_after());
        let challenge = match self {
            Self::OperatorNeeded => Some("Bearer"),
            // No registered scheme; a 401 must name one all the same (RFC 9110, 15.5.2).
            Self::Unauthorized => Some("SourceToken"),
            _ => None,
        };
        let encoding = matches!(self, Self::Encoding(_));
        // What was not read of a refused body would otherwise have to be read to its end.
        let close = matches!(self, Self::TooLarge(_) | Self::CutOff | Self::TooSlow(_));
        let rejected = match self {
            Self::NothingValid { rejected } => rejected,
            _ => Vec::new(),
        };
        let mut answer = (status, Json(ErrorBody { error: detail, rejected })).into_response();
        let headers = answer.headers_mut();
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(scheme) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        if encoding {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
        }
        if close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}
