//! Calls of the JSON API of a running page.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use reqwest::{Client, Method, RequestBuilder, StatusCode, redirect};
use serde_json::Value;

use galerna_settings::Settings;

use crate::failure::NoAnswer;

/// The longest that a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The page said no.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct PageRefused {
    pub(crate) code: String,
    message: String,
}

/// A client of one page.
pub(crate) struct PageApi {
    url: String,
    token: Option<String>,
    /// Who is named in the audit log.
    actor: String,
    client: Client,
}

impl PageApi {
    /// A client of the page at `page.url`, with the token of operators, or else that of viewers; connects at the first call.
    pub(crate) fn new(settings: &Settings) -> anyhow::Result<Self> {
        galerna_tls::install_default_provider();
        let client = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none()).build();
        let token = settings.page.operator_token.as_deref().or(settings.page.viewer_token.as_deref());
        Ok(Self {
            url: settings.page.url.trim_end_matches('/').to_owned(),
            token: token.map(str::to_owned),
            actor: actor(),
            client: client.context("cannot make an HTTP client")?,
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

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let request = request.header("x-actor", &self.actor);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn call(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let url = &self.url;
        let answer = request.send().await.map_err(|e| self.unavailable(&e))?;
        let status = answer.status();
        let text = answer.text().await.with_context(|| format!("the answer of {url} was cut"))?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() && value.is_object() {
            return Ok(value);
        }
        let Some(message) = value["error"]["message"].as_str() else {
            bail!(
                "{url} answers with {status}, as no page of Galerna does; name the page with `--set page.url=…`"
            );
        };
        let help = match status {
            StatusCode::UNAUTHORIZED if self.token.is_none() => {
                "; set `page.operator_token` as the page has it"
            }
            StatusCode::UNAUTHORIZED => "; `page.operator_token` must be as the page has it",
            StatusCode::FORBIDDEN => "; see `page.operator_token` in `galerna config`",
            _ => "",
        };
        let code = value["error"]["code"].as_str().or(status.canonical_reason()).unwrap_or("refused");
        Err(PageRefused { code: code.to_owned(), message: format!("{message}{help}") }.into())
    }

    fn unavailable(&self, error: &reqwest::Error) -> anyhow::Error {
        let url = &self.url;
        if error.is_timeout() {
            let message = format!("the page at {url} did not answer within {} s", TIMEOUT.as_secs());
            return NoAnswer { message }.into();
        }
        if error.is_builder() {
            return anyhow!("`page.url` or `page.operator_token` cannot be sent: {error}");
        }
        let cause = std::iter::successors(std::error::Error::source(error), |e| e.source()).last();
        let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
        let message = format!(
            "the page at {url} cannot be reached; is `galerna up` or `galerna page` running? (`--set page.url=…`; {cause})"
        );
        NoAnswer { message }.into()
    }
}

/// The name of whoever runs the command, as far as a header can carry it.
pub(crate) fn actor() -> String {
    let name = ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    name.unwrap_or_default().chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect()
}
