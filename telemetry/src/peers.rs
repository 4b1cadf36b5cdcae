//! Other processes of the system, by their base URLs, which are asked over HTTP.
//!
//! A name often stands for several processes: a service of containers, or a headless Service of Kubernetes, resolves to the
//! addresses of all of them. So the host of an `http` URL is looked up at each question (what was found is kept for
//! [`NAMES_TTL`]), and every address is asked, with the name as `Host`. A host may have addresses of both families, which
//! then lead to the same processes: those of the family that the system would try first are asked, the others only when none
//! of these can be reached. `https` is asked once, by the name: its certificate is that of one service.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_lock::Mutex;
use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::TelemetryError;

/// For so long the addresses of a name are used again.
const NAMES_TTL: Duration = Duration::from_secs(5);
/// How long a look-up may take; after that the name itself is asked.
const LOOKUP: Duration = Duration::from_millis(700);
/// Addresses of one name that are asked; more are told as a problem.
const MAX_ADDRESSES: usize = 128;

/// Finds the addresses of a host.
#[async_trait]
pub(crate) trait Resolve: Send + Sync {
    /// All of them, those to try first in front.
    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<IpAddr>>;
}

/// As the system does it.
struct System;

#[async_trait]
impl Resolve for System {
    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.map(|address| address.ip()).collect())
    }
}

/// Why somebody did not tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct PeerError {
    why: String,
    /// No connection could be made.
    unreachable: bool,
}

/// A process: the URL, and its address where that stands for several.
type Process = (String, Option<IpAddr>);

/// Those at some base URLs.
pub struct Peers {
    /// By name, through a proxy if the environment names one.
    client: reqwest::Client,
    /// By address: a proxy that is excepted for the name would not be for the address.
    direct: reqwest::Client,
    urls: Vec<String>,
    token: Option<String>,
    /// Who did not answer is not asked again for so long.
    retry_after: Duration,
    resolver: Arc<dyn Resolve>,
    names: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
    /// Who did not answer: until when it is not asked again, and why.
    unresponsive: Mutex<HashMap<Process, (Instant, PeerError)>>,
}

impl Peers {
    /// Those at these base URLs, which take this token and have so long to answer. Who does not is not asked again for
    /// `ask_again`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(
        urls: Vec<String>,
        token: Option<String>,
        timeout: Duration,
        retry_after: Duration,
    ) -> Result<Self, TelemetryError> {
        galerna_tls::install_default_provider();
        let client = || reqwest::Client::builder().timeout(timeout);
        Ok(Self {
            client: client().build()?,
            direct: client().no_proxy().build()?,
            urls,
            token,
            retry_after,
            resolver: Arc::new(System),
            names: Mutex::default(),
            unresponsive: Mutex::default(),
        })
    }

    /// Names are looked up by this.
    #[cfg(test)]
    pub(crate) fn resolved_by(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Who is asked.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// `GET <url>/<path>` of everybody: what each tells, `None` of those who know nothing of it (404), and why somebody
    /// does not tell. It takes no longer than a look-up and twice the timeout.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Vec<Result<Option<T>, PeerError>> {
        self.unresponsive.lock().retain(|_, (until, _)| *until > Instant::now());
        let asked = self.urls.iter().map(|url| self.get_at(url, path));
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// All processes behind one URL.
    async fn get_at<T: DeserializeOwned>(&self, base: &str, path: &str) -> Vec<Result<Option<T>, PeerError>> {
        let url = match Url::parse(&format!("{}/{path}", base.trim_end_matches('/'))) {
            Ok(url) => url,
            Err(e) => return vec![Err(PeerError { why: format!("{base}: {e}"), unreachable: false })],
        };
        let addresses = self.addresses(&url).await;
        let Some(first) = addresses.first().filter(|_| addresses.len() > 1) else {
            return vec![self.ask(base, &url, None).await];
        };
        let (near, far): (Vec<IpAddr>, Vec<IpAddr>) =
            addresses.iter().partition(|address| address.is_ipv4() == first.is_ipv4());
        let unreachable =
            |answer: &Result<Option<T>, PeerError>| matches!(answer, Err(problem) if problem.unreachable);
        let answers = self.ask_all(base, &url, &near).await;
        if far.is_empty() || !answers.iter().all(unreachable) {
            return answers;
        }
        let others = self.ask_all(base, &url, &far).await;
        if others.iter().all(unreachable) { answers } else { others }
    }

    async fn ask_all<T: DeserializeOwned>(
        &self,
        base: &str,
        url: &Url,
        addresses: &[IpAddr],
    ) -> Vec<Result<Option<T>, PeerError>> {
        let asked = addresses.iter().take(MAX_ADDRESSES).map(|ip| self.ask(base, url, Some(*ip)));
        let mut answers = futures_util::future::join_all(asked).await;
        if addresses.len() > MAX_ADDRESSES {
            let why = format!("{base}: of its {} addresses, {MAX_ADDRESSES} are asked", addresses.len());
            answers.push(Err(PeerError { why, unreachable: false }));
        }
        answers
    }

    /// The addresses of the host of a URL; none when the URL is to be asked as it is.
    async fn addresses(&self, url: &Url) -> Vec<IpAddr> {
        let Some(host) = url.domain().filter(|_| url.scheme() == "http") else { return Vec::new() };
        if let Some((at, known)) = self.names.lock().get(host)
            && at.elapsed() < NAMES_TTL
        {
            return known.clone();
        }
        let port = url.port_or_known_default().unwrap_or(80);
        let found = timeout(LOOKUP, self.resolver.addresses(host, port)).await;
        // What is wrong with a name that is not found is told by the call to it.
        let mut found = found.ok().and_then(Result::ok).unwrap_or_default();
        let mut seen = std::collections::HashSet::new();
        found.retain(|address| seen.insert(*address));
        self.names.lock().insert(host.to_owned(), (Instant::now(), found.clone()));
        found
    }

    /// One process, unless it did not answer a moment ago.
    async fn ask<T: DeserializeOwned>(
        &self,
        base: &str,
        url: &Url,
        ip: Option<IpAddr>,
    ) -> Result<Option<T>, PeerError> {
        let key = (base.to_owned(), ip);
        if let Some((until, problem)) = self.unresponsive.lock().get(&key)
            && *until > Instant::now()
        {
            return Err(problem.clone());
        }
        let answer = self.call(base, url, ip).await;
        if let Err(problem) = &answer
            && !self.retry_after.is_zero()
        {
            self.unresponsive.lock().insert(key, (Instant::now() + self.retry_after, problem.clone()));
        }
        answer
    }

    async fn call<T: DeserializeOwned>(
        &self,
        base: &str,
        url: &Url,
        ip: Option<IpAddr>,
    ) -> Result<Option<T>, PeerError> {
        let unavailable = |e: reqwest::Error| {
            let unreachable = e.is_connect() || e.is_timeout();
            let cause = std::iter::successors(std::error::Error::source(&e), |e| e.source()).last();
            let cause = cause.map(ToString::to_string);
            let why = cause.unwrap_or_else(|| e.without_url().to_string());
            let at = ip.map(|ip| format!(" at {ip}")).unwrap_or_default();
            PeerError { why: format!("{base}{at}: {why}"), unreachable }
        };
        let mut to = url.clone();
        let mut request = match ip {
            Some(ip) if to.set_ip_host(ip).is_ok() => {
                let host = url.host_str().unwrap_or_default();
                let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
                self.direct.get(to).header(reqwest::header::HOST, host)
            }
            _ => self.client.get(to),
        };
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(unavailable)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.error_for_status().map_err(unavailable)?;
        answer.json().await.map(Some).map_err(unavailable)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::{HeaderMap, header};
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    /// Everything has these addresses.
    struct Known(Vec<IpAddr>);

    #[async_trait]
    impl Resolve for Known {
        async fn addresses(&self, _: &str, _: u16) -> io::Result<Vec<IpAddr>> {
            Ok(self.0.clone())
        }
    }

    /// Listens on the same port of both addresses.
    async fn listeners() -> (TcpListener, TcpListener, u16) {
        loop {
            let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = one.local_addr().unwrap().port();
            // The port may be somebody's at the other address.
            if let Ok(other) = TcpListener::bind(("127.0.0.2", port)).await {
                return (one, other, port);
            }
        }
    }

    /// Tells its name and what the request's `Host` was.
    fn serve(listener: TcpListener, name: &'static str) {
        let tell = move |headers: HeaderMap| async move {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            axum::Json(format!("{name} for {host}"))
        };
        let app = Router::new().route("/who", get(tell));
        tokio::spawn(async move { axum::serve(listener, app).await });
    }

    fn peers(url: String, addresses: &[&str]) -> Peers {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let timeout = Duration::from_secs(30);
        Peers::new(vec![url], None, timeout, Duration::ZERO).unwrap().resolved_by(Arc::new(Known(addresses)))
    }

    #[tokio::test]
    async fn every_process_behind_a_name_is_asked_under_that_name() {
        let (one, other, port) = listeners().await;
        serve(one, "one");
        serve(other, "other");
        let url = format!("http://worker:{port}/");
        let all = peers(url.clone(), &["127.0.0.1", "127.0.0.2", "127.0.0.1"]);
        let told = |name: &str| Ok(Some(format!("{name} for worker:{port}")));
        assert_eq!(all.get::<String>("who").await, [told("one"), told("other")]);
        // Those who know nothing of it are told from those who do not answer.
        assert_eq!(all.get::<String>("what").await, [Ok(None), Ok(None)]);

        let some = peers(url, &["127.0.0.1", "127.0.0.3"]).get::<String>("who").await;
        assert_eq!(some[0], told("one"));
        let why = some[1].as_ref().unwrap_err();
        assert!(why.to_string().starts_with(&format!("http://worker:{port}/ at 127.0.0.3: ")), "{why}");
    }

    #[tokio::test]
    async fn addresses_of_the_other_family_are_asked_only_when_none_of_the_first_is_reached() {
        let (one, other, port) = listeners().await;
        serve(one, "one");
        serve(other, "other");
        // Nobody listens on `::1`: one and other are all that there is.
        let url = format!("http://worker:{port}");
        let names = async |addresses: &[&str]| {
            let answers = peers(url.clone(), addresses).get::<String>("who").await;
            answers.into_iter().map(|answer| answer.unwrap().unwrap()).collect::<Vec<_>>()
        };
        let whole = |name: &str| format!("{name} for worker:{port}");
        assert_eq!(names(&["::1", "127.0.0.1", "127.0.0.2"]).await, [whole("one"), whole("other")]);
        assert_eq!(names(&["127.0.0.2", "::1", "127.0.0.1"]).await, [whole("other"), whole("one")]);
    }
}
