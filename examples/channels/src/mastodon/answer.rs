//! What servers answer, and what it means.

use std::error::Error;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::network::NetworkError;

/// The longest answer that is read: a page of 40 statuses is about 200 kB.
const LONGEST: usize = 16 << 20;

/// How long a body may pause.
const PAUSE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Message {
    error: String,
}

/// What a request came to that got no answer.
pub(super) fn unavailable(error: &reqwest::Error) -> NetworkError {
    // The innermost cause says what happened; the outer ones only that a request failed.
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    NetworkError::Unavailable(cause.to_string())
}

/// What an answer means that is no success; `wait` is how long the server wants no further call.
pub(super) async fn failure(answer: Response, what: &str, wait: Option<Duration>) -> NetworkError {
    let status = answer.status();
    let text = text(answer).await.unwrap_or_default();
    let message = serde_json::from_slice::<Message>(&text).map(|message| message.error);
    let message = message.unwrap_or_else(|_| status.canonical_reason().unwrap_or("no reason").to_owned());
    match (status, wait) {
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(wait)) => {
            NetworkError::Limited(wait)
        }
        (StatusCode::UNAUTHORIZED, _) => NetworkError::Revoked(message),
        (StatusCode::NOT_FOUND | StatusCode::GONE, _) => NetworkError::NotFound(what.to_owned()),
        (StatusCode::REQUEST_TIMEOUT, _) => NetworkError::Unavailable(message),
        _ if status.is_client_error() => NetworkError::Refused { status: status.as_u16(), message },
        _ => NetworkError::Unavailable(format!("{status}: {message}")),
    }
}

/// The body of a success.
pub(super) async fn body<T: DeserializeOwned>(answer: Response, what: &str) -> Result<T, NetworkError> {
    let text = text(answer).await?;
    serde_json::from_slice(&text)
        .map_err(|error| NetworkError::Unavailable(format!("the answer is no {what}: {error}")))
}

async fn text(mut answer: Response) -> Result<Vec<u8>, NetworkError> {
    let mut text = Vec::new();
    loop {
        let chunk = tokio::time::timeout(PAUSE, answer.chunk()).await;
        let chunk =
            chunk.map_err(|_| NetworkError::Unavailable(format!("the answer paused for {PAUSE:?}")))?;
        let Some(chunk) = chunk.map_err(|error| unavailable(&error))? else { return Ok(text) };
        if text.len() + chunk.len() > LONGEST {
            return Err(NetworkError::Unavailable(format!("the answer is longer than {LONGEST} bytes")));
        }
        text.extend_from_slice(&chunk);
    }
}
