//! Calls of the API of a running dispatcher.

use std::error::Error;
use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::failure::NoAnswer;
use crate::page_client::actor;
use galerna_audit::ACTOR;

/// The longest that a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that a connection may take, before another dispatcher is asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of the dispatchers: the first that answers is asked.
pub(crate) struct Api {
    urls: Vec<String>,
    token: Option<String>,
    /// Who is named in the audit log.
    actor: String,
    client: Client,
}

/// The API said no.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({code}, HTTP {status})")]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Api {
    /// A client of the dispatchers at `urls`, with commas between them; connects at the first call.
    pub(crate) fn new(urls: &str, token: Option<&str>) -> anyhow::Result<Self> {
        galerna_tls::install_default_provider();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self {
            urls: urls.split(',').map(|url| url.trim().trim_end_matches('/').to_owned()).collect(),
            token: token.map(str::to_owned),
            actor: actor(),
            client,
        })
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.call(Method::GET, path, |request| request.query(query)).await
    }

    /// `POST` of a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, |request| request.json(body)).await
    }

    /// `PUT` of a JSON body.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::PUT, path, |request| request.json(body)).await
    }

    /// `POST` of NDJSON.
    pub(crate) async fn post_lines(&self, path: &str, lines: Vec<u8>) -> anyhow::Result<Value> {
        let typed = |request: RequestBuilder| request.header("content-type", "application/x-ndjson");
        self.call(Method::POST, path, |request| typed(request).body(lines.clone())).await
    }

    /// Asks one dispatcher after the other, until one can be connected to: what was sent to one is not sent to another.
    async fn call(
        &self,
        method: Method,
        path: &str,
        filled: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> anyhow::Result<Value> {
        let mut causes = Vec::new();
        for url in &self.urls {
            let request =
                self.client.request(method.clone(), format!("{url}{path}")).header(ACTOR, &self.actor);
            let request = match &self.token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            match filled(request).send().await {
                Ok(answer) => return self.read(url, answer).await,
                Err(error) => {
                    let mut cause: &dyn Error = &error;
                    while let Some(inner) = cause.source() {
                        cause = inner;
                    }
                    causes.push(format!("{url} ({cause})"));
                    if !error.is_connect() {
                        break;
                    }
                }
            }
        }
        let message = format!(
            "no dispatcher answers at {}; start one with `galerna up`, or name another with --dispatcher",
            causes.join(", ")
        );
        Err(NoAnswer { message }.into())
    }

    async fn read(&self, url: &str, answer: Response) -> anyhow::Result<Value> {
        let status = answer.status();
        let text = answer.text().await.with_context(|| format!("the answer of {url} was cut"))?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        let part = |name: &str| value["error"][name].as_str().map(str::to_owned);
        Err(Refused {
            status: status.as_u16(),
            code: part("code").unwrap_or_else(|| status.canonical_reason().unwrap_or("error").to_owned()),
            message: part("message").unwrap_or_else(|| match status {
                StatusCode::NOT_FOUND => format!("{url} has no such path; is it a Galerna dispatcher?"),
                _ => text.chars().take(200).collect(),
            }),
        }
        .into())
    }
}

/// A name as one segment of a path: what a URL minds is written out.
pub(crate) fn path_segment(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~:@!$&'()*+,;=".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
