//! What is sent: JSON bodies and queries, read with the same checks on every route.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::api_error::ApiError;

/// A JSON body. An empty one counts as `{}`; the content type is not looked at.
///
/// Refused as 400 `malformed_json`, 413 `body_too_large` or 422 `wrong_shape`.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|e| {
            let status = e.status();
            if status == StatusCode::PAYLOAD_TOO_LARGE {
                let message = "the body is longer than this call takes; send less at once";
                ApiError::new(status, "body_too_large", message).closing()
            } else {
                ApiError::new(status, "unreadable_body", format!("the body cannot be read: {e}"))
            }
        })?;
        parse_json(&bytes).map(Self)
    }
}

/// Reads a JSON object; an empty text counts as `{}`.
///
/// # Errors
/// 400 `malformed_json`, 422 `wrong_shape`.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let wrong_shape = |cause: String| {
        let message = format!("the body has the wrong shape: {cause}");
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong_shape", message)
    };
    let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { bytes };
    // Serde would take an array for a struct, field by field.
    if text.trim_ascii_start().first() == Some(&b'[') && serde_json::from_slice::<IgnoredAny>(text).is_ok() {
        return Err(wrong_shape("it is an array, not an object".to_owned()));
    }
    serde_json::from_slice(text).map_err(|e| {
        if e.is_data() {
            wrong_shape(e.to_string())
        } else {
            let message = format!("the body is no JSON: {e}");
            ApiError::new(StatusCode::BAD_REQUEST, "malformed_json", message)
        }
    })
}

/// The parameters of a query. Refused as 422 `invalid_query`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(query)| Self(query))
            .map_err(|e| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", e.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Call {
        reason: Option<String>,
    }

    #[test]
    fn what_is_wrong_with_a_body_is_told_by_its_code() {
        let none = Call { reason: None };
        assert_eq!(parse_json::<Call>(b""), Ok(Call { reason: None }));
        assert_eq!(parse_json::<Call>(b" \n"), Ok(none));
        let deep = "[".repeat(100_000);
        for (body, status, code) in [
            ("{", 400, "malformed_json"),
            ("\u{feff}{}", 400, "malformed_json"),
            ("[1]", 422, "wrong_shape"),
            (r#"["why"]"#, 422, "wrong_shape"),
            ("7", 422, "wrong_shape"),
            ("null", 422, "wrong_shape"),
            (r#"{"reason":7}"#, 422, "wrong_shape"),
            (r#"{"more":7}"#, 422, "wrong_shape"),
            (&deep, 422, "wrong_shape"),
        ] {
            let error = parse_json::<Call>(body.as_bytes()).unwrap_err();
            let shown: String = body.chars().take(20).collect();
            assert_eq!((error.status().as_u16(), error.code()), (status, code), "{shown}");
        }
    }
}
