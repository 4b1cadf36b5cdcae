//! Lists behind an HTTP API, page by page.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use galerna_model::{Account, Source};
use galerna_retry::Pauses;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::entry::{Entry, collect};
use crate::{AccountsSource, DirectoryError, Listing, MAX_ENTRIES, SourcesSource};

/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Longest wait that an API may ask for with `Retry-After`.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(10);

/// How to call the API.
#[derive(Clone)]
pub struct HttpOptions {
    /// Sent as `Authorization: Bearer …` when given.
    pub token: Option<String>,
    /// Entries asked for in a page; the API may give fewer.
    pub page_size: usize,
    /// Time for one page, connection and body included.
    pub timeout: Duration,
    /// How often a page, and the whole list, is tried before the error is final; at least 1.
    pub attempts: u32,
    /// Pause before the second try; it doubles with each, and is cut by a random part of up to a half.
    pub backoff: Duration,
    /// Largest body of a page, in bytes.
    pub max_page_bytes: usize,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            token: None,
            page_size: 500,
            timeout: Duration::from_secs(10),
            attempts: 3,
            backoff: Duration::from_millis(200),
            max_page_bytes: 16 * 1024 * 1024,
        }
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("page_size", &self.page_size)
            .field("timeout", &self.timeout)
            .field("attempts", &self.attempts)
            .field("backoff", &self.backoff)
            .field("max_page_bytes", &self.max_page_bytes)
            .finish()
    }
}

/// Lists of an HTTP API.
///
/// `GET {base}/accounts?page=1&limit=500` answers
///
/// ```json
/// {"accounts": [{"id": "591", "name": "Acme", "queue": "D0000591", "active": true}],
///  "page": 1, "pages": 1, "total": 1, "version": 7}
/// ```
///
/// and `GET {base}/sources` the same with `sources` and entries `{"id", "account", "token_hash", "active"}`. Pages
/// count from 1. `name` and `active` may be left out. `version` may be left out; where it is given it must be the
/// same on all pages, which is how an API tells that its list changed while it was read.
///
/// The list is taken only when every page came, all tell the same `pages`, `total` and `version`, and the
/// entries are as many as `total`. Redirects are not followed.
#[derive(Debug, Clone)]
pub struct HttpDirectory {
    base: String,
    client: Client,
    options: HttpOptions,
}

/// What all pages of one list must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Extent {
    pages: u64,
    total: u64,
    version: Option<Value>,
}

#[derive(Deserialize)]
struct Page {
    page: u64,
    pages: u64,
    total: u64,
    version: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl HttpDirectory {
    /// An API at this base address, for instance `http://127.0.0.1:8090/api`.
    ///
    /// # Errors
    /// [`DirectoryError::Invalid`] when the address is not an `http` or `https` URL without user, query and fragment.
    pub fn new(base: &str, options: HttpOptions) -> Result<Self, DirectoryError> {
        galerna_tls::install_default_provider();
        let url = Url::parse(base).map_err(|e| {
            DirectoryError::Invalid(format!("`{base}` is not the URL of an accounts API: {e}"))
        })?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
            return Err(DirectoryError::Invalid(format!(
                "`{base}` is not the base URL of an accounts API; write http(s)://host:port/path"
            )));
        }
        if !url.username().is_empty() || url.password().is_some() {
            // The address is shown in logs, so it must hold no secret; nor is this one shown here.
            return Err(DirectoryError::Invalid(
                "the URL of the accounts API holds a user or password; give a token instead".to_owned(),
            ));
        }
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(options.timeout)
            .build()
            .map_err(|e| DirectoryError::Invalid(format!("cannot make an HTTP client for `{base}`: {e}")))?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), client, options })
    }

    async fn list<T: Entry>(&self) -> Result<Listing<T>, DirectoryError> {
        let address = format!("{}/{}", self.base, T::LIST);
        let mut backoff = self.pauses().begin();
        let mut tried = 1;
        loop {
            match self.list_once(&address).await {
                // The list changed while it was read: from the beginning, once more.
                Err(e @ DirectoryError::Contradiction { .. }) if tried < self.options.attempts => {
                    tracing::warn!(error = %e, "reading the list again");
                    tokio::time::sleep(backoff.pause()).await;
                    tried += 1;
                }
                other => return other,
            }
        }
    }

    async fn list_once<T: Entry>(&self, address: &str) -> Result<Listing<T>, DirectoryError> {
        let contradiction =
            |contradiction: String| DirectoryError::Contradiction { from: address.to_owned(), contradiction };
        let mut list = Listing::default();
        let mut agreed: Option<Extent> = None;
        let mut read = 0_u64;
        let mut number = 1_u64;
        loop {
            let mut page = self.page(address, number).await?;
            let entries = match page.rest.remove(T::LIST) {
                Some(Value::Array(entries)) => entries,
                _ => {
                    return Err(DirectoryError::Malformed {
                        from: address.to_owned(),
                        cause: format!("page {number} has no list `{}`", T::LIST),
                    });
                }
            };
            let extent = Extent { pages: page.pages, total: page.total, version: page.version };
            if page.page != number {
                return Err(contradiction(format!("page {number} says that it is page {}", page.page)));
            }
            match &agreed {
                Some(agreed) if *agreed != extent => {
                    return Err(contradiction(format!(
                        "page {number} tells of {} entries on {} pages, the pages before of {} on {}",
                        extent.total, extent.pages, agreed.total, agreed.pages
                    )));
                }
                Some(_) => {}
                None if extent.total > MAX_ENTRIES as u64 || extent.pages > MAX_ENTRIES as u64 => {
                    return Err(DirectoryError::TooLarge {
                        from: address.to_owned(),
                        limit: MAX_ENTRIES,
                        unit: "entries",
                    });
                }
                None => {}
            }
            read += entries.len() as u64;
            let last = number >= extent.pages;
            if read > extent.total || (last && read != extent.total) {
                return Err(contradiction(format!(
                    "{read} entries came in {number} of {} pages, of {} in all",
                    extent.pages, extent.total
                )));
            }
            if entries.is_empty() && !last {
                return Err(contradiction(format!("page {number} of {} is empty", extent.pages)));
            }
            collect(entries, &mut list);
            if last {
                return Ok(list);
            }
            agreed = Some(extent);
            number += 1;
        }
    }

    async fn page(&self, address: &str, number: u64) -> Result<Page, DirectoryError> {
        let mut backoff = self.pauses().begin();
        let mut tried = 1;
        loop {
            let (error, asked) = match self.page_once(address, number).await {
                Ok(page) => return Ok(page),
                Err(failed) => failed,
            };
            if tried >= self.options.attempts || !error.is_transient() {
                return Err(error);
            }
            tracing::debug!(%error, tried, "asking for the page again");
            tokio::time::sleep(asked.unwrap_or_else(|| backoff.pause())).await;
            tried += 1;
        }
    }

    /// One try; with an error goes the wait that the API asked for.
    async fn page_once(
        &self,
        address: &str,
        number: u64,
    ) -> Result<Page, (DirectoryError, Option<Duration>)> {
        let transport = |e: reqwest::Error| {
            let from = format!("{address} page {number}");
            let error = if e.is_timeout() {
                DirectoryError::Timeout { from, waited: self.options.timeout }
            } else {
                DirectoryError::Unreachable { from, cause: chain(&e.without_url()) }
            };
            (error, None)
        };
        let mut request =
            self.client.get(address).query(&[("page", number), ("limit", self.options.page_size as u64)]);
        if let Some(token) = &self.options.token {
            request = request.bearer_auth(token);
        }
        let mut response = request.send().await.map_err(transport)?;
        let status = response.status();
        let asked = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|v| v.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
        let limit = self.options.max_page_bytes;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > limit {
                return Err((
                    DirectoryError::TooLarge {
                        from: format!("{address} page {number}"),
                        limit,
                        unit: "bytes",
                    },
                    None,
                ));
            }
            body.extend_from_slice(&chunk);
        }
        if status != reqwest::StatusCode::OK {
            let body = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err((
                DirectoryError::Status { from: address.to_owned(), status: status.as_u16(), body },
                asked,
            ));
        }
        serde_json::from_slice(&body).map_err(|e| {
            let from = format!("{address} page {number}");
            (DirectoryError::Malformed { from, cause: e.to_string() }, None)
        })
    }

    fn pauses(&self) -> Pauses {
        Pauses::new(self.options.backoff, LONGEST_PAUSE.max(self.options.backoff))
    }
}

/// The whole chain of causes: the outermost of reqwest's errors says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[async_trait]
impl AccountsSource for HttpDirectory {
    fn describe(&self) -> String {
        format!("accounts API {}", self.base)
    }

    async fn accounts(&self) -> Result<Listing<Account>, DirectoryError> {
        self.list().await
    }
}

#[async_trait]
impl SourcesSource for HttpDirectory {
    fn describe(&self) -> String {
        format!("sources API {}", self.base)
    }

    async fn sources(&self) -> Result<Listing<Source>, DirectoryError> {
        self.list().await
    }
}
