//! One call after another: what is sent and what comes back.

use std::time::Duration;

use anyhow::Context;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;

use super::concentrators::{Body, Concentrator};

/// The longest that a call may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The wait after a 429 or 503 that says none.
const PAUSE: Duration = Duration::from_secs(1);
/// Characters shown of an answer that was no 202.
const SHOWN: usize = 300;

/// Calls a frontend over a bounded number of connections, which are kept.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    client: Client,
    url: Url,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub(super) enum CallResult {
    /// 202.
    Taken { accepted: u64, rejected: u64 },
    /// Any other answer, with the wait that 429 and 503 ask for.
    Refused { status: u16, text: String, wait: Option<Duration> },
    /// No answer.
    Failed { kind: &'static str, text: String },
}

#[derive(Deserialize)]
struct Answer {
    accepted: u64,
    rejected: Vec<serde::de::IgnoredAny>,
}

impl Caller {
    /// A caller of the frontend at `url`; connects when it first calls.
    ///
    /// # Errors
    /// When `url` is none.
    pub(super) fn new(url: &str, connections: usize) -> anyhow::Result<Self> {
        galerna_tls::install_default_provider();
        let client = Client::builder()
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(connections)
            .http1_only()
            .tcp_nodelay(true)
            // What is measured is the frontend alone, and each call once.
            .no_proxy()
            .retry(reqwest::retry::never())
            .build()
            .context("cannot make an HTTP client")?;
        let url = format!("{}/readings", url.trim_end_matches('/'));
        let url = Url::parse(&url).with_context(|| format!("--url: `{url}` is no URL"))?;
        Ok(Self { client, url })
    }

    /// Posts a body as this concentrator.
    pub(super) async fn call(&self, from: &Concentrator, body: Body, gzip: bool) -> CallResult {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("source_key", from.credentials.source.as_str());
        let mut request = self
            .client
            .post(url)
            // Not in the query, so that no proxy on the way has it in its log.
            .header("x-dexcell-source-token", &from.credentials.token)
            .header(CONTENT_TYPE, "application/json");
        if gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        let answer = match request.body(body.bytes).send().await {
            Ok(answer) => answer,
            Err(e) => return failed(&e),
        };
        let status = answer.status();
        let wait =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE).then(|| {
                let asked = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
                asked.map_or(PAUSE, Duration::from_secs)
            });
        let text = match answer.text().await {
            Ok(text) => text,
            Err(e) => return failed(&e),
        };
        if status != StatusCode::ACCEPTED {
            let text = text.chars().take(SHOWN).collect();
            return CallResult::Refused { status: status.as_u16(), text, wait };
        }
        match serde_json::from_str::<Answer>(&text) {
            Ok(Answer { accepted, rejected }) => {
                CallResult::Taken { accepted, rejected: rejected.len() as u64 }
            }
            Err(e) => CallResult::Failed { kind: "not a frontend's answer", text: e.to_string() },
        }
    }
}

fn failed(error: &reqwest::Error) -> CallResult {
    let kind = match error {
        e if e.is_timeout() => "timeout",
        e if e.is_connect() => "no connection",
        _ => "broken connection",
    };
    let cause = std::iter::successors(std::error::Error::source(error), |e| e.source()).last();
    CallResult::Failed { kind, text: cause.map_or_else(|| error.to_string(), ToString::to_string) }
}
