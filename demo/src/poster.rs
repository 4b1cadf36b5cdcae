//! Posts readings to the frontend, as concentrators do.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use galerna_model::Reading;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde::Deserialize;

/// For one call.
const POST_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts to have a call answered, and the pause between two of them when the answer names none.
const ATTEMPTS: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);

/// The token of a demo's source. Anybody may know it: a demo listens on this machine alone.
pub(crate) fn token_of(source: &str) -> String {
    format!("demo-{source}")
}

/// A client of the frontend.
#[derive(Debug, Clone)]
pub(crate) struct Poster {
    client: reqwest::Client,
    url: String,
}

#[derive(Debug, Deserialize)]
struct Answer {
    accepted: u64,
    rejected: Vec<serde_json::Value>,
}

/// The body of a call.
#[derive(Debug)]
pub(crate) struct PostBody {
    body: Bytes,
    readings: u64,
}

impl PostBody {
    /// A body with these readings.
    ///
    /// # Errors
    /// When a value is no number that JSON has.
    pub(crate) fn new(readings: &[&Reading]) -> anyhow::Result<Self> {
        Ok(Self { body: serde_json::to_vec(readings)?.into(), readings: readings.len() as u64 })
    }
}

impl Poster {
    /// A client of the frontend at `url`, for instance `http://127.0.0.1:8080`.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        galerna_tls::install_default_provider();
        let client = reqwest::Client::builder().timeout(POST_TIMEOUT).build()?;
        Ok(Self { client, url: format!("{url}/readings") })
    }

    /// Posts readings until they are accepted. Posting again what may have been taken already is harmless: the store knows
    /// readings by their identity.
    ///
    /// # Errors
    /// When they are refused, or the frontend is unavailable for too long.
    pub(crate) async fn post(&self, source: &str, call: PostBody) -> anyhow::Result<()> {
        for attempt in 1.. {
            let request = self
                .client
                .post(&self.url)
                .query(&[("source_key", source)])
                .header("x-dexcell-source-token", token_of(source))
                .header("content-type", "application/json")
                .body(call.body.clone());
            let mut pause = PAUSE;
            match request.send().await {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                    let answer: Answer = answer.json().await.context("the frontend's answer is no JSON")?;
                    if answer.accepted != call.readings {
                        bail!("the frontend refused good readings of {source}: {:?}", answer.rejected);
                    }
                    return Ok(());
                }
                Ok(answer)
                    if attempt < ATTEMPTS
                        && matches!(
                            answer.status(),
                            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
                        ) =>
                {
                    let seconds =
                        answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
                    pause = seconds.map_or(PAUSE, Duration::from_secs);
                    tracing::warn!(status = %answer.status(), source, ?pause, "posting again");
                }
                Ok(answer) => {
                    let status = answer.status();
                    let text = answer.text().await.unwrap_or_default();
                    bail!("the frontend answered {status} to a post of {source}: {text}");
                }
                Err(e) if attempt < ATTEMPTS => tracing::warn!(error = %e, source, "posting again"),
                Err(e) => return Err(e).context("the frontend cannot be reached"),
            }
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}
