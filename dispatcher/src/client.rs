//! A typed client of a dispatcher elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// After so long without a word a connection is probed, and as often again: one that is gone is noticed after four of them.
const KEEPALIVE: Duration = Duration::from_secs(3);

/// The header that says of a call that its caller writes it to the audit log.
pub const AUDITED: &str = "x-audited";

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The dispatcher's token, if it wants one.
    pub token: Option<String>,
    /// How long one attempt may take, beside the wait that `next` asks for.
    pub timeout: Duration,
    /// How often a call is tried that may be tried again: at least once at each address.
    pub attempts: u32,
    /// Pause after all addresses were tried; it doubles up to 5 s, and each is cut by a random part of up to a half.
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
    /// An address is no `http://` or `https://` URL.
    #[error(
        "dispatcher address `{0}` is no http or https URL; write for instance http://127.0.0.1:8010, and several with commas \
         between them"
    )]
    Address(String),
    /// The HTTP client cannot be set up.
    #[error("HTTP client cannot be set up: {0}")]
    Http(String),
}

/// Calls a dispatcher over HTTP. Cheap to clone; connections are shared.
///
/// A call that fails is tried again with growing, jittered pauses; so is `next`, whose request carries an id: when the
/// answer that was lost was a lease, the caller is given it again.
///
/// All dispatchers of one store know the same leases, so a client may know several: it asks one for as long as it answers,
/// then the next, and all its clones go with it. A call that its caller gives up before there is an answer counts as not
/// answered, so that who waits no longer than one attempt does not ask a silent dispatcher again.
#[derive(Debug, Clone)]
pub struct DispatcherClient {
    http: reqwest::Client,
    addresses: Arc<Addresses>,
    options: ClientOptions,
}

/// The dispatchers that there are, and which of them is asked.
#[derive(Debug)]
struct Addresses {
    all: Vec<Url>,
    current: AtomicUsize,
}

impl Addresses {
    /// The one to ask.
    fn ask(&self) -> Asked<'_> {
        Asked { addresses: self, at: self.current.load(Ordering::Relaxed), answered: false }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }
}

/// An address that is being asked. Dropped without an answer, the next is asked from then on.
struct Asked<'a> {
    addresses: &'a Addresses,
    at: usize,
    answered: bool,
}

impl Asked<'_> {
    fn url(&self) -> &Url {
        // `current` is always one of them, and there is one at least.
        &self.addresses.all[self.at % self.addresses.all.len()]
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let count = self.addresses.all.len();
        if self.answered || count == 1 {
            return;
        }
        let next = (self.at + 1) % count;
        // Unless another call has left it already.
        let current = &self.addresses.current;
        if current.compare_exchange(self.at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let (left, now) = (&self.addresses.all[self.at], &self.addresses.all[next]);
            tracing::info!(%left, %now, "a dispatcher does not answer; another is asked");
        }
    }
}

/// What is called: the path below a dispatcher's address, and the query.
#[derive(Debug, Clone, Default)]
struct Target<'a> {
    segments: Vec<&'a str>,
    query: Vec<(&'static str, String)>,
}

impl<'a> Target<'a> {
    fn of(segments: impl Into<Vec<&'a str>>) -> Self {
        Self { segments: segments.into(), query: Vec::new() }
    }

    fn at(&self, base: &Url) -> Url {
        let mut url = base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(&self.segments);
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        url
    }
}

/// How a call ended, short of success.
enum CallError {
    /// The dispatcher answered with an error.
    Answered { status: StatusCode, code: String, message: String, attempt: u32 },
    /// There was no answer, or none that is understood.
    Transport(String),
}

impl DispatcherClient {
    /// A client of the dispatcher at `address`, for instance `http://127.0.0.1:8010`; of several, with commas between
    /// their addresses, the first is asked first.
    ///
    /// # Errors
    /// [`ClientError`] when an address is no URL.
    pub fn new(address: &str, options: ClientOptions) -> Result<Self, ClientError> {
        galerna_tls::install_default_provider();
        let parts = address.split(',').map(str::trim).filter(|part| !part.is_empty());
        let all = parts.map(parse_address).collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err(ClientError::Address(address.to_owned()));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(options.timeout)
            // A connection on which a call waits for a lease says nothing when the other side is gone.
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE)
            .tcp_keepalive_retries(3)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(256)
            .build()
            .map_err(|e| ClientError::Http(e.to_string()))?;
        Ok(Self { http, addresses: Arc::new(Addresses { all, current: AtomicUsize::new(0) }), options })
    }

    /// The address of the dispatcher that is asked now.
    pub fn address(&self) -> &Url {
        &self.addresses.all[self.addresses.current.load(Ordering::Relaxed) % self.addresses.all.len()]
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
        let target = Target::of(["queue", queue.as_str()]);
        self.call(Method::GET, target, None::<&()>).await.map_err(|e| e.admin(Some(queue)))
    }

    /// The last transitions of a queue that the dispatcher has written.
    ///
    /// # Errors
    /// [`AdminError`] when it is unknown or the dispatcher unavailable.
    pub async fn transitions(&self, queue: &QueueName) -> Result<Transitions, AdminError> {
        let target = Target::of(["queue", queue.as_str(), "transitions"]);
        self.call(Method::GET, target, None::<&()>).await.map_err(|e| e.admin(Some(queue)))
    }

    /// A page of queues.
    ///
    /// # Errors
    /// [`AdminError`] when the query is refused or the dispatcher unavailable.
    pub async fn status(&self, query: &StatusQuery) -> Result<StatusPage, AdminError> {
        query.check()?;
        let mut target = Target::of(["queue", "status"]);
        let texts = [("state", &query.state), ("search", &query.search), ("sort", &query.sort)];
        target.query.extend(texts.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
        let numbers = [("page", query.page), ("limit", query.limit)];
        target.query.extend(numbers.into_iter().filter_map(|(key, value)| Some((key, value?.to_string()))));
        self.call(Method::GET, target, None::<&()>).await.map_err(|e| e.admin(None))
    }

    /// Stops the giving of leases.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] when the dispatcher is unavailable.
    pub async fn stop(&self) -> Result<(), AdminError> {
        let answer: Result<Running, CallError> =
            self.call(Method::POST, Target::of(["stop"]), None::<&()>).await;
        answer.map(drop).map_err(|e| e.admin(None))
    }

    /// Gives leases again.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn start(&self) -> Result<(), AdminError> {
        let answer: Result<Running, CallError> =
            self.call(Method::POST, Target::of(["start"]), None::<&()>).await;
        answer.map(drop).map_err(|e| e.admin(None))
    }

    /// The strategy in force, and the one asked for.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn strategy(&self) -> Result<(StrategyName, StrategyName), AdminError> {
        let answer: Result<StrategyAnswer, CallError> =
            self.call(Method::GET, Target::of(["strategy"]), None::<&()>).await;
        answer.map(|a| (a.strategy, a.configured)).map_err(|e| e.admin(None))
    }

    /// Sets the strategy.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn set_strategy(&self, strategy: StrategyName) -> Result<(), AdminError> {
        let answer: Result<StrategyAnswer, CallError> = self
            .call(Method::PUT, Target::of(["strategy"]), Some(&StrategyBody { strategy, reason: None }))
            .await;
        answer.map(drop).map_err(|e| e.admin(None))
    }

    /// Says that messages have just reached these queues; returns how many of them are known. One attempt is made.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn hint(&self, queues: &[QueueName]) -> Result<usize, AdminError> {
        let body = HintBody { queues: queues.to_vec() };
        match self
            .attempt(Method::POST, &Target::of(["queue", "hint"]), Some(&body), self.options.timeout, 1)
            .await
        {
            Ok(answer) => Ok(answer.map_or(0, |a: HintAnswer| a.known)),
            Err(error) => Err(error.admin(None)),
        }
    }

    /// Whether the dispatcher that is asked answers and is ready.
    pub async fn is_ready(&self) -> bool {
        let url = Target::of(["readyz"]).at(self.address());
        let call = self.http.get(url).timeout(self.options.timeout);
        call.send().await.is_ok_and(|a| a.status().is_success())
    }

    async fn on_queue(
        &self,
        queue: &QueueName,
        what: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<QueueView, AdminError> {
        let target = Target::of(["queue", queue.as_str(), what]);
        self.call(Method::POST, target, Some(body)).await.map_err(|e| e.admin(Some(queue)))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        target: Target<'_>,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, CallError> {
        let limit = self.options.timeout;
        let answer: Option<T> = self.retry(method, target, |_| body, limit).await?;
        answer.ok_or_else(|| CallError::Transport("the answer is empty".to_owned()))
    }

    /// Tries until there is an answer that another try would not change; `body` is told which try it is for, from 1.
    async fn retry<T: DeserializeOwned, B: Serialize + Sync>(
        &self,
        method: Method,
        target: Target<'_>,
        body: impl Fn(u32) -> Option<B>,
        limit: Duration,
    ) -> Result<Option<T>, CallError> {
        let addresses = self.addresses.count();
        let attempts = self.options.attempts.max(addresses);
        let mut backoff = Pauses::new(self.options.backoff, LONGEST_PAUSE.max(self.options.backoff)).begin();
        let mut attempt = 1;
        loop {
            let answer = self.attempt(method.clone(), &target, body(attempt).as_ref(), limit, attempt).await;
            match answer {
                Err(error) if error.is_transient() && attempt < attempts => {}
                answer => return answer,
            }
            // Another address is asked at once.
            if attempt % addresses == 0 {
                tokio::time::sleep(backoff.pause()).await;
            }
            attempt += 1;
        }
    }

    async fn attempt<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &Target<'_>,
        body: Option<&(impl Serialize + Sync)>,
        limit: Duration,
        attempt: u32,
    ) -> Result<Option<T>, CallError> {
        let mut asked = self.addresses.ask();
        let answer = self.send(method, target.at(asked.url()), body, limit, attempt).await;
        asked.answered = answer.as_ref().err().is_none_or(|error| !error.is_transient());
        answer
    }

    async fn send<T: DeserializeOwned>(
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

fn parse_address(address: &str) -> Result<Url, ClientError> {
    let wrong = || ClientError::Address(address.to_owned());
    let mut base: Url = address.parse().map_err(|_| wrong())?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(wrong());
    }
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    Ok(base)
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
        let target = Target::of(["queue", "next"]);
        let limit = self.options.timeout + request.wait;
        if count == 1 {
            let lease: Option<GrantedLease> =
                self.retry(Method::POST, target, body, limit).await.map_err(|e| e.lease(None))?;
            Ok(lease.into_iter().collect())
        } else {
            let leases: Option<LeasesBody> =
                self.retry(Method::POST, target, body, limit).await.map_err(|e| e.lease(None))?;
            Ok(leases.map_or_else(Vec::new, |b| b.leases))
        }
    }

    async fn renew(&self, queue: &QueueName, epoch: u64) -> Result<Renewed, LeaseError> {
        let target = Target::of(["queue", queue.as_str(), "renew"]);
        self.call(Method::POST, target, Some(&RenewBody { epoch }))
            .await
            .map_err(|e| e.lease(Some((queue, epoch))))
    }

    /// A lease that is found stale by a second attempt counts as released: the first one may have done it, and the
    /// holder has it no more either way.
    async fn release(&self, release: &Release) -> Result<(), LeaseError> {
        let Release { queue, epoch, empty } = release;
        let target = Target::of(["queue", queue.as_str(), "release"]);
        let body = ReleaseBody { epoch: *epoch, empty: *empty };
        let answer: Result<QueueView, CallError> = self.call(Method::POST, target, Some(&body)).await;
        match answer {
            Err(CallError::Answered { code, attempt, .. }) if code == "stale_epoch" && attempt > 1 => Ok(()),
            other => other.map(drop).map_err(|e| e.lease(Some((queue, *epoch)))),
        }
    }
}
