//! Who may call: the bearer token of a service.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Lets those with the token pass, and everybody where there is none.
pub async fn authorise(State(token): State<Option<Arc<str>>>, request: Request, next: Next) -> Response {
    let Some(token) = token else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let given = given.and_then(bearer).unwrap_or_default();
    if same(token.as_bytes(), given.as_bytes()) {
        return next.run(request).await;
    }
    let message = "send `Authorization: Bearer <token>` with the token of this service";
    (StatusCode::UNAUTHORIZED, Json(json!({"error": {"code": "unauthorized", "message": message}})))
        .into_response()
}

/// The token of credentials whose scheme is `Bearer`, in whatever case (RFC 9110, section 11.1).
pub fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// Whether two byte strings are the same, in a time that does not tell where they differ.
pub fn same(right: &[u8], given: &[u8]) -> bool {
    let differing = right.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differing) == 0 && right.len() == given.len()
}

/// Metrics as an answer.
pub fn metrics_answer(text: Result<String, prometheus::Error>) -> Response {
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}
