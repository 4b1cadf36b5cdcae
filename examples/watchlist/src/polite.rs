//! Asking other people's servers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use galerna_delay::{Limit, Permit, RateLimits};
use galerna_lock::Mutex;
use galerna_topology::prelude::{Fault, OrFault as _};
use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER};
use robotstxt::DefaultMatcher;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::store::Validators;

/// What the crawler calls itself, and what `robots.txt` may address.
pub(crate) const AGENT: &str = "galerna-watchlist";
/// One request.
const TIMEOUT: Duration = Duration::from_secs(20);
/// So long is a `robots.txt` as good as new (RFC 9309 allows a day).
const ROBOTS: Duration = Duration::from_secs(3_600);
/// No host is left alone for longer, whatever it says.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);
/// The longest answer that is read.
const LONGEST: usize = 8 << 20;
/// What of a `robots.txt` is read: RFC 9309 asks for at least so much.
const ROBOTS_LONGEST: usize = 500 << 10;

/// An answer to a conditional request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The page is as it was.
    NotModified,
    /// The page, and what to ask with the next time.
    Page(Vec<u8>, Validators),
}

/// A `robots.txt`, and when it was fetched.
type Robots = (Instant, Arc<str>);

/// Asks servers as they want to be asked: what `robots.txt` disallows is not, no host more often than the rate, in all processes together,
/// and a page that has not changed is not sent again.
#[derive(Clone)]
pub(crate) struct Polite {
    http: reqwest::Client,
    limits: Arc<RateLimits>,
    per_minute: u32,
    /// The `robots.txt` of each host, and since when.
    robots: Arc<Mutex<HashMap<String, Robots>>>,
    /// Hosts that want no request before then.
    closed: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Polite {
    pub(crate) fn new(limits: Arc<RateLimits>, per_minute: u32) -> Result<Self, reqwest::Error> {
        galerna_tls::install_default_provider();
        let agent = format!("{AGENT}/{}", env!("CARGO_PKG_VERSION"));
        let http = reqwest::Client::builder().timeout(TIMEOUT).user_agent(agent).build()?;
        Ok(Self { http, limits, per_minute, robots: Arc::default(), closed: Arc::default() })
    }

    /// A page, unless it is as it was.
    pub(crate) async fn get(&self, url: &Url, known: &Validators) -> Result<Answer, Fault> {
        let robots = self.robots(url).await?;
        if !DefaultMatcher::default().one_agent_allowed_by_robots(&robots, AGENT, url.as_str()) {
            return Err(Fault::permanent(format!(
                "{url} is not to be crawled, says the robots.txt of its host"
            )));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.modified)] {
            if let Some(value) = value.as_ref().and_then(|value| value.parse().ok()) {
                headers.insert(name, value);
            }
        }
        let answer = self.send(url, headers).await?;
        match answer.status() {
            StatusCode::NOT_MODIFIED => return Ok(Answer::NotModified),
            status if status.is_success() => {}
            status => return Err(refused(url, status)),
        }
        let text = |name| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let validators = Validators { etag: text(ETAG), modified: text(LAST_MODIFIED), next: None };
        Ok(Answer::Page(body(answer, LONGEST).await?, validators))
    }

    async fn send(&self, url: &Url, headers: HeaderMap) -> Result<reqwest::Response, Fault> {
        let host = url.authority().to_owned();
        let until = self.closed.lock().get(&host).copied();
        if let Some(left) = until.map(|until| until.saturating_duration_since(Instant::now()))
            && !left.is_zero()
        {
            return Err(Fault::unavailable(format!("{host} wants no request for {} s more", left.as_secs())));
        }
        let limit =
            Limit::new("requests a minute", host.clone(), self.per_minute, Duration::from_secs(60)).burst(1);
        while let Permit::After(wait) =
            self.limits.ask(std::slice::from_ref(&limit)).await.or_unavailable()?
        {
            sleep(wait).await;
        }
        match self.http.get(url.clone()).headers(headers).send().await {
            // However often it is tried.
            Err(error) if error.is_builder() || error.is_redirect() => Err(error).or_permanent(),
            answer => {
                let answer = answer.or_unavailable()?;
                if let Some(wait) = wait(&answer) {
                    self.closed.lock().insert(host, Instant::now() + wait);
                }
                Ok(answer)
            }
        }
    }

    /// The `robots.txt` of a page's host.
    async fn robots(&self, url: &Url) -> Result<Arc<str>, Fault> {
        let host = format!("{}://{}", url.scheme(), url.authority());
        let known = self.robots.lock().get(&host).cloned();
        if let Some((at, text)) = known
            && at.elapsed() < ROBOTS
        {
            return Ok(text);
        }
        let of_host = url.join("/robots.txt").or_permanent()?;
        let answer = self.send(&of_host, HeaderMap::new()).await?;
        let text: Arc<str> = match answer.status() {
            status if status.is_success() => {
                String::from_utf8_lossy(&body(answer, ROBOTS_LONGEST).await?).into()
            }
            // Who has none, or hides it, allows all; who cannot answer now may disallow (RFC 9309, 2.3.1).
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => "".into(),
            status => return Err(refused(&of_host, status)),
        };
        self.robots.lock().insert(host, (Instant::now(), Arc::clone(&text)));
        Ok(text)
    }
}

/// For how long the host wants no other request.
fn wait(answer: &reqwest::Response) -> Option<Duration> {
    if !matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

fn refused(url: &Url, status: StatusCode) -> Fault {
    let reason = format!("{url} answers {status}");
    let later = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    if later { Fault::unavailable(reason) } else { Fault::permanent(reason) }
}

async fn body(mut answer: reqwest::Response, longest: usize) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.or_unavailable()? {
        if body.len() + chunk.len() > longest {
            return Err(Fault::permanent(format!("{} is longer than {longest} bytes", answer.url())));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use galerna_model::SystemClock;
    use galerna_topology::prelude::FaultKind;
    use tokio::net::TcpListener;

    use super::*;

    async fn served(router: Router) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/page", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router).into_future());
        Url::parse(&url).unwrap()
    }

    fn polite() -> Polite {
        let limits = RateLimits::in_memory(Arc::new(SystemClock)).unwrap();
        Polite::new(Arc::new(limits), 60_000).unwrap()
    }

    #[tokio::test]
    async fn a_host_that_wants_no_request_for_an_hour_gets_none() {
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let page = get(move || async move {
            counted.fetch_add(1, Ordering::Relaxed);
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3600")])
        });
        let url = served(Router::new().route("/page", page)).await;
        let polite = polite();
        for said in ["answers 429", "wants no request for", "wants no request for"] {
            let fault = polite.get(&url, &Validators::default()).await.unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Unavailable);
            assert!(fault.reason().contains(said), "{fault}");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_page_that_leads_in_a_circle_fails_for_good_and_a_server_that_is_not_there_does_not() {
        let circle = get(|| async { (StatusCode::FOUND, [("location", "/page")]) });
        let url = served(Router::new().route("/page", circle)).await;
        let fault = polite().get(&url, &Validators::default()).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Permanent, "{fault}");
        let nobody = Url::parse("http://127.0.0.1:1/page").unwrap();
        let fault = polite().get(&nobody, &Validators::default()).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Unavailable, "{fault}");
    }
}
