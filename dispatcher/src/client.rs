//! A typed client of a dispatcher elsewhere.

use std::time::Duration;

use async_trait::async_trait;
use galerna_http::ErrorBody;
use galerna_model::QueueName;
use galerna_retry::Pauses;
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::options::AdminError;
use crate::past::Transitions;
use crate::service::{
    HintAnswer, HintBody, LeasesBody, NextBody, PauseBody, ReleaseBody, RenewBody, Running, StrategyAnswer,
    StrategyBody,
};
use crate::status::{QueueView, StatusPage, StatusQuery};
use galerna_lease::StrategyName;
use galerna_lease::{GrantedLease, LeaseError, Leases, NextRequest, Release, Renewed};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The header that says of a call that its caller writes it to the audit log.
pub const AUDITED: &str = "x-audited";

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The dispatcher's token, if it wants one.
    pub token: Option<String>,
    /// How long one attempt may take, beside the wait that `next` asks for.
    pub timeout: Duration,
    /// How often a call is tried that may be tried again.
    pub attempts: u32,
    /// Pause before the second attempt; it doubles up to 5 s, and each is cut by a random part of up to a half.
    pub backoff: Duration,
    /// The caller writes what it asks for to the audit log itself: each call says so with the header [`AUDITED`], and the
    /// other side does not write it once more.
    pub audited: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            token: None,
            timeout: Duration::from_secs(10),
            attempts: 4,
            backoff: Duration::from_millis(50),
            audited: false,
        }
    }
}

/// A client that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is no `http://` or `https://` URL.
    #[error("dispatcher address `{0}` is no http or https URL; write for instance http://127.0.0.1:8010")]
    Address(String),
    /// The HTTP client cannot be set up.
    #[error("HTTP client cannot be set up: {0}")]
    Http(String),
}

/// Calls a dispatcher over HTTP. Cheap to clone; connections are shared.
///
/// A call that fails is tried again with growing, jittered pauses; so is `next`, whose request carries an id: when the
/// answer that was lost was a lease, the caller is given it again.
#[derive(Debug, Clone)]
pub struct DispatcherClient {
    http: reqwest::Client,
    base: Url,
    options: ClientOptions,
}

/// How a call ended, short of success.
enum CallError {
    /// The dispatcher answered with an error.
    Answered { status: StatusCode, code: String, message: String, attempt: u32 },
    /// There was no answer, or none that is understood.
    Transport(String),
}

impl DispatcherClient {
    /// A client of the dispatcher at `address`, for instance `http://127.0.0.1:8010`.
    ///
    /// # Errors
    /// [`ClientError`] when the address is no URL.
    pub fn new(address: &str, options: ClientOptions) -> Result<Self, ClientError> {
        galerna_tls::install_default_provider();
        let wrong = || ClientError::Address(address.to_owned());
        let mut base: Url = address.parse().map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong());
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(options.timeout)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(256)
            .build()
            .map_err(|e| ClientError::Http(e.to_string()))?;
        Ok(Self { http, base, options })
    }

    /// The dispatcher's address.
    pub fn address(&self) -> &Url {
        &self.base
    }

    /// Blocks a queue until it is unpaused.
    ///
    /// # Errors
    /// [`AdminError`] when the queue is unknown or the dispatcher unavailable.
    pub async fn pause(&self, queue: &QueueName, reason: Option<String>) -> Result<QueueView, AdminError> {
        self.on_queue(queue, "pause", &PauseBody { reason }).await
    }

    /// Unblocks a queue.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub async fn unpause(&self, queue: &QueueName) -> Result<QueueView, AdminError> {
        self.on_queue(queue, "unpause", &PauseBody::default()).await
    }

    /// One queue.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub async fn queue(&self, queue: &QueueName) -> Result<QueueView, AdminError> {
        let url = self.url(&["queue", queue.as_str()]);
        self.call(Method::GET, url, None::<&()>).await.map_err(|e| e.admin(Some(queue)))
    }

    /// The last transitions of a queue that the dispatcher has written.
    ///
    /// # Errors
    /// [`AdminError`] when it is unknown or the dispatcher unavailable.
    pub async fn transitions(&self, queue: &QueueName) -> Result<Transitions, AdminError> {
        let url = self.url(&["queue", queue.as_str(), "transitions"]);
        self.call(Method::GET, url, None::<&()>).await.map_err(|e| e.admin(Some(queue)))
    }

    /// A page of queues.
    ///
    /// # Errors
    /// [`AdminError`] when the query is refused or the dispatcher unavailable.
    pub async fn status(&self, query: &StatusQuery) -> Result<StatusPage, AdminError> {
        query.check()?;
        let mut url = self.url(&["queue", "status"]);
        {
            let mut pairs = url.query_pairs_mut();
            let texts = [("state", &query.state), ("search", &query.search), ("sort", &query.sort)];
            for (key, value) in texts {
                if let Some(value) = value {
                    pairs.append_pair(key, value);
                }
            }
            for (key, value) in [("page", query.page), ("limit", query.limit)] {
                if let Some(value) = value {
                    pairs.append_pair(key, &value.to_string());
                }
            }
        }
        self.call(Method::GET, url, None::<&()>).await.map_err(|e| e.admin(None))
    }

    /// Stops the giving of leases.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] when the dispatcher is unavailable.
    pub async fn stop(&self) -> Result<(), AdminError> {
        let answer: Result<Running, CallError> =
            self.call(Method::POST, self.url(&["stop"]), None::<&()>).await;
        answer.map(drop).map_err(|e| e.admin(None))
    }

    /// Gives leases again.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn start(&self) -> Result<(), AdminError> {
        let answer: Result<Running, CallError> =
            self.call(Method::POST, self.url(&["start"]), None::<&()>).await;
        answer.map(drop).map_err(|e| e.admin(None))
    }

    /// The strategy in force, and the one asked for.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn strategy(&self) -> Result<(StrategyName, StrategyName), AdminError> {
        let answer: Result<StrategyAnswer, CallError> =
            self.call(Method::GET, self.url(&["strategy"]), None::<&()>).await;
        answer.map(|a| (a.strategy, a.configured)).map_err(|e| e.admin(None))
    }

    /// Sets the strategy.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn set_strategy(&self, strategy: StrategyName) -> Result<(), AdminError> {
        let answer: Result<StrategyAnswer, CallError> = self
            .call(Method::PUT, self.url(&["strategy"]), Some(&StrategyBody { strategy, reason: None }))
            .await;
        answer.map(drop).map_err(|e| e.admin(None))
    }

    /// Says that messages have just reached these queues; returns how many of them are known. One attempt is made.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn hint(&self, queues: &[QueueName]) -> Result<usize, AdminError> {
        let body = HintBody { queues: queues.to_vec() };
        let url = self.url(&["queue", "hint"]);
        match self.attempt(Method::POST, url, Some(&body), self.options.timeout, 1).await {
            Ok(answer) => Ok(answer.map_or(0, |a: HintAnswer| a.known)),
            Err(error) => Err(error.admin(None)),
        }
    }

    /// Whether the dispatcher answers and is ready.
    pub async fn is_ready(&self) -> bool {
        let call = self.http.get(self.url(&["readyz"])).timeout(self.options.timeout);
        call.send().await.is_ok_and(|a| a.status().is_success())
    }

    async fn on_queue(
        &self,
        queue: &QueueName,
        what: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<QueueView, AdminError> {
        let url = self.url(&["queue", queue.as_str(), what]);
        self.call(Method::POST, url, Some(body)).await.map_err(|e| e.admin(Some(queue)))
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, CallError> {
        let limit = self.options.timeout;
        let answer: Option<T> = self.retry(method, url, |_| body, limit).await?;
        answer.ok_or_else(|| CallError::Transport("the answer is empty".to_owned()))
    }

    /// Tries until there is an answer that another try would not change; `body` is told which try it is for, from 1.
    async fn retry<T: DeserializeOwned, B: Serialize + Sync>(
        &self,
        method: Method,
        url: Url,
        body: impl Fn(u32) -> Option<B>,
        limit: Duration,
    ) -> Result<Option<T>, CallError> {
        let mut backoff = Pauses::new(self.options.backoff, LONGEST_PAUSE.max(self.options.backoff)).begin();
        let mut attempt = 1;
        loop {
            let answer =
                self.attempt(method.clone(), url.clone(), body(attempt).as_ref(), limit, attempt).await;
            match answer {
                Err(error) if error.is_transient() && attempt < self.options.attempts => {}
                answer => return answer,
            }
            tokio::time::sleep(backoff.pause()).await;
            attempt += 1;
        }
    }

    async fn attempt<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Option<&(impl Serialize + Sync)>,
        limit: Duration,
        attempt: u32,
    ) -> Result<Option<T>, CallError> {
        let mut request = self.http.request(method, url).timeout(limit);
        if let Some(token) = &self.options.token {
            request = request.bearer_auth(token);
        }
        if self.options.audited {
            request = request.header(AUDITED, "yes");
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let transport = |e: reqwest::Error| CallError::Transport(chain(&e));
        let answer = request.send().await.map_err(transport)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(transport)?;
        if status.is_success() {
            if status == StatusCode::NO_CONTENT {
                return Ok(None);
            }
            return serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| CallError::Transport(format!("the answer is not understood: {e}")));
        }
        let (code, message) = match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => (body.error.code, body.error.message),
            Err(_) => (String::new(), format!("it answers {status}")),
        };
        Err(CallError::Answered { status, code, message, attempt })
    }
}

/// An error with its causes: the outer one rarely says what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

impl CallError {
    /// Whether another try may be answered otherwise.
    fn is_transient(&self) -> bool {
        match self {
            Self::Answered { status, code, .. } => {
                *status == StatusCode::SERVICE_UNAVAILABLE && code != "stopped"
            }
            Self::Transport(_) => true,
        }
    }

    fn admin(self, queue: Option<&QueueName>) -> AdminError {
        match self {
            Self::Answered { code, .. } if code == "unknown_queue" && queue.is_some() => {
                queue.map_or_else(|| AdminError::Refused(code), |q| AdminError::UnknownQueue(q.clone()))
            }
            Self::Answered { status: StatusCode::SERVICE_UNAVAILABLE, message, .. } => {
                AdminError::Unavailable(message)
            }
            Self::Answered { message, .. } => AdminError::Refused(message),
            Self::Transport(cause) => AdminError::Unavailable(cause),
        }
    }

    fn lease(self, queue: Option<(&QueueName, u64)>) -> LeaseError {
        match (self, queue) {
            (Self::Answered { code, .. }, _) if code == "stopped" => LeaseError::Stopped,
            (Self::Answered { code, .. }, Some((queue, epoch))) if code == "stale_epoch" => {
                LeaseError::StaleEpoch { queue: queue.clone(), epoch }
            }
            (Self::Answered { code, .. }, Some((queue, _))) if code == "unknown_queue" => {
                LeaseError::UnknownQueue(queue.clone())
            }
            (Self::Answered { status: StatusCode::SERVICE_UNAVAILABLE, message, .. }, _) => {
                LeaseError::Unavailable(message)
            }
            (Self::Answered { message, .. }, _) => LeaseError::Refused(message),
            (Self::Transport(cause), _) => LeaseError::Unavailable(cause),
        }
    }
}

#[async_trait]
impl Leases for DispatcherClient {
    async fn next(&self, request: NextRequest) -> Result<Vec<GrantedLease>, LeaseError> {
        let count = request.count.max(1);
        // Its own id, when the caller has none: it serves the tries of this call.
        let id = request.request.unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
        let body = |attempt: u32| {
            Some(NextBody {
                consumer: (!request.consumer.is_empty()).then(|| request.consumer.clone()),
                wait_ms: u64::try_from(request.wait.as_millis()).unwrap_or(u64::MAX),
                count,
                release: request.release.clone(),
                request_id: Some(id.clone()),
                retry: request.retry || attempt > 1,
            })
        };
        let url = self.url(&["queue", "next"]);
        let limit = self.options.timeout + request.wait;
        if count == 1 {
            let lease: Option<GrantedLease> =
                self.retry(Method::POST, url, body, limit).await.map_err(|e| e.lease(None))?;
            Ok(lease.into_iter().collect())
        } else {
            let leases: Option<LeasesBody> =
                self.retry(Method::POST, url, body, limit).await.map_err(|e| e.lease(None))?;
            Ok(leases.map_or_else(Vec::new, |b| b.leases))
        }
    }

    async fn renew(&self, queue: &QueueName, epoch: u64) -> Result<Renewed, LeaseError> {
        let url = self.url(&["queue", queue.as_str(), "renew"]);
        self.call(Method::POST, url, Some(&RenewBody { epoch }))
            .await
            .map_err(|e| e.lease(Some((queue, epoch))))
    }

    /// A lease that is found stale by a second attempt counts as released: the first one may have done it, and the
    /// holder has it no more either way.
    async fn release(&self, release: &Release) -> Result<(), LeaseError> {
        let Release { queue, epoch, empty } = release;
        let url = self.url(&["queue", queue.as_str(), "release"]);
        let body = ReleaseBody { epoch: *epoch, empty: *empty };
        let answer: Result<QueueView, CallError> = self.call(Method::POST, url, Some(&body)).await;
        match answer {
            Err(CallError::Answered { code, attempt, .. }) if code == "stale_epoch" && attempt > 1 => Ok(()),
            other => other.map(drop).map_err(|e| e.lease(Some((queue, *epoch)))),
        }
    }
}
