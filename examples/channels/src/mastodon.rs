//! Mastodon's API: REST, and streams by server-sent events.

mod answer;
mod events;
mod limits;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_lock::Mutex;
use galerna_model::Clock;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::channel::{Account, Source, Text};
use crate::length::LengthLimits;
use crate::network::{Ask, EventStream, Network, NetworkError};
use crate::status::{Author, Status, StatusId};
use events::Events;
use limits::{Class, Gates};

/// Statuses of a page; the most that servers give.
pub const PAGE: usize = 40;

/// How long a call may take.
const CALL: Duration = Duration::from_secs(30);

/// A client of servers that speak Mastodon's API.
pub struct Mastodon {
    http: reqwest::Client,
    gates: Gates,
    clock: Arc<dyn Clock>,
    /// Of each server.
    instances: Mutex<HashMap<String, Instance>>,
    /// Ids of users by the server and their name.
    users: Mutex<HashMap<(String, String), String>>,
}

impl std::fmt::Debug for Mastodon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mastodon").finish_non_exhaustive()
    }
}

/// What a server says of itself, as far as it is looked at.
#[derive(Debug, Clone, Default, Deserialize)]
struct Instance {
    #[serde(default)]
    configuration: Configuration,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    statuses: LengthLimits,
    #[serde(default)]
    urls: Urls,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Urls {
    #[serde(default)]
    streaming: Option<String>,
}

#[derive(Deserialize)]
struct Id {
    id: StatusId,
}

#[derive(Deserialize)]
struct Found {
    statuses: Vec<Id>,
}

impl Mastodon {
    /// A client; its certificates are those of the system.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn new(clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        galerna_tls::install_default_provider();
        let http = reqwest::Client::builder()
            .user_agent(concat!("galerna-channels/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .build()?;
        Ok(Self {
            http,
            gates: Gates::default(),
            clock,
            instances: Mutex::default(),
            users: Mutex::default(),
        })
    }

    fn request(&self, account: &Account, method: Method, base: &str, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", base.trim_end_matches('/'));
        self.http.request(method, url).bearer_auth(&account.token)
    }

    /// Sends a request, unless the server wants none, and looks at the head of the answer.
    async fn send(
        &self,
        account: &Account,
        class: Class,
        what: &str,
        request: RequestBuilder,
    ) -> Result<reqwest::Response, NetworkError> {
        self.gates.check(&account.name, class)?;
        let answer = tokio::time::timeout(CALL, request.send()).await;
        let answer = answer.map_err(|_| NetworkError::Unavailable(format!("no answer within {CALL:?}")))?;
        let answer = answer.map_err(|error| answer::unavailable(&error))?;
        let wait = limits::wait(answer.status(), answer.headers(), self.clock.now());
        if let Some(wait) = wait {
            self.gates.close(&account.name, class, wait);
        }
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(answer::failure(answer, what, wait).await)
    }

    async fn read<T: DeserializeOwned>(
        &self,
        account: &Account,
        class: Class,
        what: &str,
        request: RequestBuilder,
    ) -> Result<T, NetworkError> {
        let answer = self.send(account, class, what, request).await?;
        if answer.status() == reqwest::StatusCode::PARTIAL_CONTENT {
            return Err(NetworkError::Unavailable(
                "the server is still putting the timeline together".to_owned(),
            ));
        }
        answer::body(answer, what).await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        account: &Account,
        what: &str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, NetworkError> {
        let request = self.request(account, Method::GET, &account.server, path).query(query);
        self.read(account, Class::Read, what, request).await
    }

    async fn instance(&self, account: &Account) -> Result<Instance, NetworkError> {
        if let Some(known) = self.instances.lock().get(&account.server) {
            return Ok(known.clone());
        }
        let instance = match self.get(account, "description of the server", "/api/v2/instance", &[]).await {
            Ok(instance) => instance,
            // Older servers, and other programs with the same API.
            Err(NetworkError::NotFound(_)) => Instance::default(),
            Err(error) => return Err(error),
        };
        self.instances.lock().insert(account.server.clone(), instance.clone());
        Ok(instance)
    }

    async fn user(&self, account: &Account, acct: &str) -> Result<String, NetworkError> {
        let acct = acct.trim_start_matches('@');
        let key = (account.server.clone(), acct.to_owned());
        if let Some(known) = self.users.lock().get(&key) {
            return Ok(known.clone());
        }
        let what = format!("user {acct}");
        let user: Author = self.get(account, &what, "/api/v1/accounts/lookup", &[("acct", acct)]).await?;
        self.users.lock().insert(key, user.id.clone());
        Ok(user.id)
    }

    async fn timeline(&self, account: &Account, source: &Source) -> Result<String, NetworkError> {
        Ok(match source {
            Source::Home => "/api/v1/timelines/home".to_owned(),
            Source::Public => "/api/v1/timelines/public".to_owned(),
            Source::Local => "/api/v1/timelines/public?local=true".to_owned(),
            Source::Hashtag(tag) => format!("/api/v1/timelines/tag/{}", segment(tag.trim_start_matches('#'))),
            Source::List(list) => format!("/api/v1/timelines/list/{}", segment(list)),
            Source::Id(id) => format!("/api/v1/accounts/{}/statuses", segment(id)),
            Source::User(acct) => {
                format!("/api/v1/accounts/{}/statuses", segment(&self.user(account, acct).await?))
            }
        })
    }
}

/// A text as a segment of a path.
fn segment(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// Whether what comes are server-sent events, and no page that says something else.
fn are_events(answer: &Response) -> bool {
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

#[async_trait]
impl Network for Mastodon {
    async fn whoami(&self, account: &Account) -> Result<Author, NetworkError> {
        self.get(account, "account", "/api/v1/accounts/verify_credentials", &[]).await
    }

    async fn length_limits(&self, account: &Account) -> Result<LengthLimits, NetworkError> {
        Ok(self.instance(account).await?.configuration.statuses)
    }

    async fn page(&self, account: &Account, source: &Source, ask: Ask) -> Result<Vec<Status>, NetworkError> {
        let path = self.timeline(account, source).await?;
        let mut statuses: Vec<Status> = match &ask {
            Ask::Latest(most) => {
                let most = most.clamp(&1, &PAGE).to_string();
                self.get(account, &source.to_string(), &path, &[("limit", &most)]).await?
            }
            Ask::After(id) => {
                let query = [("limit", "40"), ("min_id", id.as_str())];
                self.get(account, &source.to_string(), &path, &query).await?
            }
        };
        statuses.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(statuses)
    }

    async fn stream(
        &self,
        account: &Account,
        source: &Source,
    ) -> Result<Option<Box<dyn EventStream>>, NetworkError> {
        let (path, query) = match source {
            Source::Home => ("user", None),
            Source::Public => ("public", None),
            Source::Local => ("public/local", None),
            Source::Hashtag(tag) => ("hashtag", Some(("tag", tag.trim_start_matches('#')))),
            Source::List(list) => ("list", Some(("list", list.as_str()))),
            Source::User(_) | Source::Id(_) => return Ok(None),
        };
        let instance = self.instance(account).await?;
        // Told with the scheme of WebSocket; server-sent events are at the same place.
        let base = instance.configuration.urls.streaming.map(|url| url.replacen("ws", "http", 1));
        let base = base.filter(|url| url.starts_with("http")).unwrap_or_else(|| account.server.clone());
        let request = self
            .request(account, Method::GET, &base, &format!("/api/v1/streaming/{path}"))
            .header("accept", "text/event-stream")
            .query(query.as_slice());
        match self.send(account, Class::Stream, &source.to_string(), request).await {
            Ok(answer) if are_events(&answer) => Ok(Some(Box::new(Events::new(answer)))),
            // Servers of this API that stream by WebSocket only are asked for pages.
            Ok(_) | Err(NetworkError::NotFound(_) | NetworkError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn post(
        &self,
        account: &Account,
        text: &Text,
        composed: &str,
        key: &str,
    ) -> Result<StatusId, NetworkError> {
        let mut body =
            json!({ "status": composed, "visibility": text.visibility, "sensitive": text.sensitive });
        if !text.warning.is_empty() {
            body["spoiler_text"] = text.warning.as_str().into();
        }
        if let Some(language) = &text.language {
            body["language"] = language.as_str().into();
        }
        let request = self
            .request(account, Method::POST, &account.server, "/api/v1/statuses")
            .header("Idempotency-Key", key)
            .json(&body);
        Ok(self.read::<Id>(account, Class::Write, "status", request).await?.id)
    }

    async fn boost(&self, account: &Account, id: &StatusId) -> Result<StatusId, NetworkError> {
        let path = format!("/api/v1/statuses/{}/reblog", segment(id.as_str()));
        let request = self.request(account, Method::POST, &account.server, &path).json(&json!({}));
        Ok(self.read::<Id>(account, Class::Write, "status", request).await?.id)
    }

    async fn resolve(&self, account: &Account, uri: &str) -> Result<StatusId, NetworkError> {
        let query = [("q", uri), ("resolve", "true"), ("type", "statuses"), ("limit", "1")];
        let found: Found = self.get(account, "status", "/api/v2/search", &query).await?;
        let first = found.statuses.into_iter().next();
        first.map(|status| status.id).ok_or_else(|| NetworkError::NotFound(format!("status {uri}")))
    }
}
