//! Who may call the HTTP services, and the form of their errors.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::net::TcpListener;

/// Refuses to serve other machines without a token.
pub(crate) fn check_exposure(listener: &TcpListener, has_token: bool, service: &str) -> io::Result<()> {
    let address = listener.local_addr()?;
    if has_token || address.ip().is_loopback() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("the {service} would be open to all at {address}; set a token or listen on 127.0.0.1"),
    ))
}

/// `{"error": {"code": …, "message": …}}` with a status.
pub(crate) fn error(status: StatusCode, code: &str, message: impl Into<String>) -> Response {
    (status, Json(json!({"error": {"code": code, "message": message.into()}}))).into_response()
}

/// Lets a request pass when no token is asked for or it brings the right one.
pub(crate) async fn require(State(token): State<Option<Arc<str>>>, request: Request, next: Next) -> Response {
    if let Some(token) = token {
        let brought = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let brought = brought.and_then(bearer).unwrap_or_default();
        if !same(token.as_bytes(), brought.as_bytes()) {
            return error(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "bring the token as `Authorization: Bearer <token>`",
            );
        }
    }
    next.run(request).await
}

/// The token of credentials whose scheme is `Bearer`, in whatever case (RFC 9110, section 11.1).
fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// Whether two byte strings are the same, in a time that depends on the length of the second only.
fn same(right: &[u8], brought: &[u8]) -> bool {
    let mut differs = right.len() ^ brought.len();
    for (i, byte) in brought.iter().enumerate() {
        let expected = right.get(i % right.len().max(1)).copied().unwrap_or(0);
        differs |= usize::from(byte ^ expected);
    }
    differs == 0
}

#[cfg(test)]
mod tests {
    use super::{bearer, same};

    #[test]
    fn the_scheme_is_taken_in_whatever_case() {
        for (credentials, token) in [
            ("Bearer secret", Some("secret")),
            ("bearer secret", Some("secret")),
            ("BEARER  secret", Some("secret")),
            ("Basic secret", None),
            ("secret", None),
            ("Bearersecret", None),
        ] {
            assert_eq!(bearer(credentials), token, "{credentials}");
        }
    }

    #[test]
    fn only_the_token_itself_is_the_same() {
        for (right, brought, expected) in [
            ("secret", "secret", true),
            ("secret", "secreT", false),
            ("secret", "secretsecret", false),
            ("secret", "", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(same(right.as_bytes(), brought.as_bytes()), expected, "{right} {brought}");
        }
    }
}
