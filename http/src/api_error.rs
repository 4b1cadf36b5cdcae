//! The one form of errors: `{"error": {"code": "...", "message": "..."}}`.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs, for instance `stale_epoch`.
    pub code: String,
    /// For people: what was wrong and what to do.
    pub message: String,
}

/// A call that was not done, and how that is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<u64>,
    challenge: Option<&'static str>,
    close: bool,
    beside: Map<String, Value>,
}

impl ApiError {
    /// An error of this status, with a code for programs and a message for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after: None,
            challenge: None,
            close: false,
            beside: Map::new(),
        }
    }

    /// 401 with the `WWW-Authenticate` that such an answer must have (RFC 9110, section 15.5.2).
    pub fn unauthorized(scheme: &'static str, message: impl Into<String>) -> Self {
        Self { challenge: Some(scheme), ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message) }
    }

    /// Says with `Retry-After` when it is worth to try again: in whole seconds, rounded up, and one at least.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        self.retry_after = Some(u64::try_from(seconds).unwrap_or(u64::MAX));
        self
    }

    /// Closes the connection with the answer: what was not read of the request would otherwise have to be.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Adds a field to the body, beside `error`.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.beside.insert(field.to_owned(), value);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The code for programs.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: ErrorDetail,
            #[serde(flatten)]
            beside: Map<String, Value>,
        }
        let error = ErrorDetail { code: self.code.to_owned(), message: self.message };
        let mut answer = (self.status, Json(Body { error, beside: self.beside })).into_response();
        let headers = answer.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(scheme) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

/// The path as it is repeated in an error.
fn shown(uri: &Uri) -> String {
    uri.path().chars().take(200).collect()
}

/// What a service says of a path that it does not have: 404 `no_route`.
pub async fn no_route(method: Method, uri: Uri) -> ApiError {
    let message = format!("there is no {method} {}; GET /openapi.json lists the routes", shown(&uri));
    ApiError::new(StatusCode::NOT_FOUND, "no_route", message)
}

/// What a service says of a method that a path does not take: 405 `method_not_allowed`.
pub async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}; GET /openapi.json lists the routes", shown(&uri));
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_has_its_form_its_headers_and_what_stands_beside_it() {
        let error = ApiError::new(StatusCode::CONFLICT, "busy", "it runs already; wait")
            .retry_after(Duration::from_millis(1_200))
            .closing()
            .with("task", Value::from("accounts"));
        assert_eq!((error.status(), error.code()), (StatusCode::CONFLICT, "busy"));
        let answer = error.into_response();
        assert_eq!(answer.headers()[header::RETRY_AFTER], "2");
        assert_eq!(answer.headers()[header::CONNECTION], "close");
        let body = axum::body::to_bytes(answer.into_body(), 1 << 10).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({"error": {"code": "busy", "message": "it runs already; wait"}, "task": "accounts"});
        assert_eq!(body, expected);
    }
}
