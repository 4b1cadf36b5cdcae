//! Where posts come from: the public API of a Mastodon server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use galerna_lock::Mutex;
use galerna_model::Timestamp;
use reqwest::StatusCode;
use scraper::Html;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// As many posts does a server give at once.
const PAGE: usize = 40;
/// One request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read: 40 posts of 500 characters, with all that Mastodon tells of them, are a tenth of it.
const LONGEST: usize = 4 << 20;

/// A post.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// Its id on the server.
    pub id: String,
    /// When it was posted.
    pub at: Timestamp,
    /// Replies, boosts and favourites.
    pub reactions: u64,
    /// What it says, without its markup.
    pub text: String,
}

impl Post {
    /// How many words it has.
    pub fn words(&self) -> usize {
        self.text.split_whitespace().count()
    }
}

/// Why posts were not fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The server has no such account.
    #[error("no such account")]
    NoAccount,
    /// The server does not give them to us, and will not.
    #[error("the server refuses: {0}")]
    Refused(StatusCode),
    /// The server wants to be asked later.
    #[error("the server is asked too often")]
    Limited(Option<Duration>),
    /// The server is not there, or has a fault.
    #[error("the server does not answer: {0}")]
    Unavailable(String),
    /// The answer is not what Mastodon's API gives.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

impl FetchError {
    /// Whether asking again cannot help.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::NoAccount | Self::Refused(_) | Self::Unreadable(_))
    }
}

#[derive(Deserialize)]
struct Account {
    id: String,
}

#[derive(Deserialize)]
struct Status {
    id: String,
    created_at: Timestamp,
    content: String,
    #[serde(default)]
    replies_count: u64,
    #[serde(default)]
    reblogs_count: u64,
    #[serde(default)]
    favourites_count: u64,
}

impl From<Status> for Post {
    fn from(status: Status) -> Self {
        let html = Html::parse_fragment(&status.content);
        let text: Vec<&str> = html.root_element().text().collect();
        Self {
            id: status.id,
            at: status.created_at,
            reactions: status.replies_count + status.reblogs_count + status.favourites_count,
            text: text.join(" ").trim().to_owned(),
        }
    }
}

/// A Mastodon server, or what has its API.
#[derive(Debug, Clone)]
pub struct Mastodon {
    base: reqwest::Url,
    http: reqwest::Client,
    /// Accounts' ids, which never change.
    ids: Arc<Mutex<HashMap<String, String>>>,
}

impl Mastodon {
    /// A server by its address: `https://mastodon.social`.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(base: reqwest::Url) -> Result<Self, reqwest::Error> {
        galerna_tls::install_default_provider();
        let agent = concat!("galerna-pulse/", env!("CARGO_PKG_VERSION"));
        let http = reqwest::Client::builder().timeout(TIMEOUT).user_agent(agent).build()?;
        Ok(Self { base, http, ids: Arc::default() })
    }

    /// The last posts of an account, the latest first, `most` at most.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn last(&self, account: &str, most: usize) -> Result<Vec<Post>, FetchError> {
        let known = self.ids.lock().get(account).cloned();
        let id = match known {
            Some(id) => id,
            None => {
                let found: Account = self.get("api/v1/accounts/lookup", &[("acct", account)]).await?;
                self.ids.lock().insert(account.to_owned(), found.id.clone());
                found.id
            }
        };
        let mut posts: Vec<Post> = Vec::new();
        while posts.len() < most {
            let wanted = (most - posts.len()).min(PAGE);
            let limit = wanted.to_string();
            let mut query = vec![("limit", limit.as_str())];
            if let Some(last) = posts.last() {
                query.push(("max_id", last.id.as_str()));
            }
            let page: Vec<Status> = self.get(&format!("api/v1/accounts/{id}/statuses"), &query).await?;
            let got = page.len();
            posts.extend(page.into_iter().take(wanted).map(Post::from));
            if got < wanted {
                break;
            }
        }
        Ok(posts)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, FetchError> {
        let url = self.base.join(path).map_err(|error| FetchError::Unreadable(error.to_string()))?;
        let unavailable = |error: reqwest::Error| FetchError::Unavailable(error.without_url().to_string());
        let mut answer = self.http.get(url).query(query).send().await.map_err(unavailable)?;
        match answer.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(FetchError::NoAccount),
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
                return Err(FetchError::Limited(
                    wait.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs),
                ));
            }
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                return Err(FetchError::Unavailable(status.to_string()));
            }
            status => return Err(FetchError::Refused(status)),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unavailable)? {
            if body.len() + chunk.len() > LONGEST {
                return Err(FetchError::Unreadable(format!("it is longer than {LONGEST} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| FetchError::Unreadable(error.to_string()))
    }
}
