//! Calls of the API of a running dispatcher.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::failure::NoAnswer;
use crate::page_client::actor;
use galerna_audit::ACTOR;

/// The longest that a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one dispatcher.
pub(crate) struct Api {
    url: String,
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
    /// A client of the dispatcher at `url`; connects at the first call.
    pub(crate) fn new(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        galerna_tls::install_default_provider();
        let client = Client::builder().timeout(TIMEOUT).build().context("cannot make an HTTP client")?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            token: token.map(str::to_owned),
            actor: actor(),
            client,
        })
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.call(self.request(Method::GET, path).query(query)).await
    }

    /// `POST` of a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(self.request(Method::POST, path).json(body)).await
    }

    /// `PUT` of a JSON body.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(self.request(Method::PUT, path).json(body)).await
    }

    /// `POST` of NDJSON.
    pub(crate) async fn post_lines(&self, path: &str, lines: Vec<u8>) -> anyhow::Result<Value> {
        let request = self.request(Method::POST, path).header("content-type", "application/x-ndjson");
        self.call(request.body(lines)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url)).header(ACTOR, &self.actor);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn call(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let url = &self.url;
        let answer = request.send().await.map_err(|e| {
            let cause = std::iter::successors(std::error::Error::source(&e), |e| e.source()).last();
            let cause = cause.map_or_else(|| e.to_string(), ToString::to_string);
            let message = format!(
                "no dispatcher answers at {url} ({cause}); start one with `galerna up`, or name another with --dispatcher"
            );
            NoAnswer { message }
        })?;
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
