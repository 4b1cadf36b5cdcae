//! What whoever watches the process asks: whether it lives, and whether it is worth sending calls to.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "it lives", body = String, content_type = "text/plain")))]
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// Why no calls are to be sent to a service now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unready {
    /// For programs.
    pub code: &'static str,
    /// For people: what is missing, and what to do.
    pub reason: String,
}

impl Unready {
    /// It is not ready for this reason.
    pub fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// The answer of `/readyz`: 200, or 503 with the reason in the form of errors; both times with the details, which are an object.
pub fn readiness(details: &impl Serialize, unready: Option<Unready>) -> Response {
    let mut body = match serde_json::to_value(details) {
        Ok(Value::Object(fields)) => fields,
        // Details that are no object are left out: whether it is ready must be told all the same.
        _ => serde_json::Map::new(),
    };
    body.insert("ready".to_owned(), unready.is_none().into());
    let mut status = StatusCode::OK;
    if let Some(Unready { code, reason }) = unready {
        status = StatusCode::SERVICE_UNAVAILABLE;
        body.insert("error".to_owned(), json!({"code": code, "message": reason}));
    }
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_that_is_not_ready_says_why_in_the_form_of_errors() {
        let unready = Unready::new("broker_blocked", "its disk is full");
        for (unready, status, code) in
            [(Some(unready), 503, json!("broker_blocked")), (None, 200, Value::Null)]
        {
            let answer = readiness(&json!({"sources": 2}), unready);
            assert_eq!(answer.status().as_u16(), status);
            let body = axum::body::to_bytes(answer.into_body(), 1 << 10).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&body["ready"], &body["sources"]), (&json!(status == 200), &json!(2)));
            assert_eq!(body["error"]["code"], code);
        }
    }
}
