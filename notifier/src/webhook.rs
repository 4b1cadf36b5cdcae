//! Sends deliveries by HTTP.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::Timestamp;
use galerna_storage::{Delivery, Endpoint, EndpointKind};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode};
use tokio::time::timeout;

use crate::addresses::{AllowList, CheckedNames, ForbiddenAddress};
use crate::attempt::AttemptOutcome;
use crate::check::{content_type, parse_header, parse_method, parse_url};
use crate::template::{self, Form};
use crate::{NotifierError, signature};

/// Most bytes of an answer that are read; the connection of a longer one is closed.
const LONGEST_ANSWER: usize = 64 << 10;
/// How long the body of an answer is waited for: its status has told what counts.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Most characters of an answer that are kept.
const KEPT: usize = 200;

/// Sends webhooks.
pub(crate) struct Webhooks {
    client: Client,
    allow: Arc<AllowList>,
}

impl Webhooks {
    pub(crate) fn new(allow: AllowList, attempt_timeout: Duration) -> Result<Self, NotifierError> {
        galerna_tls::install_default_provider();
        let allow = Arc::new(allow);
        let client = Client::builder()
            .dns_resolver(Arc::new(CheckedNames::new(Arc::clone(&allow))))
            // A proxy would resolve names itself, and a redirect lead anywhere.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .timeout(attempt_timeout)
            .connect_timeout(attempt_timeout)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(2)
            .user_agent(concat!("galerna-notifier/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| NotifierError::Option(format!("of HTTP is not usable: {}", causes(&e))))?;
        Ok(Self { client, allow })
    }

    /// One attempt.
    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        now: Timestamp,
    ) -> AttemptOutcome {
        let request = match self.request(endpoint, delivery, now) {
            Ok(request) => request,
            Err(error) => return AttemptOutcome::permanent(error),
        };
        match self.client.execute(request).await {
            Ok(response) => classify(response, now).await,
            Err(error) => {
                let error = error.without_url();
                match ForbiddenAddress::among_causes(&error) {
                    Some(refused) => AttemptOutcome::permanent(format!("url: {refused}")),
                    None => AttemptOutcome::transient(None, causes(&error)),
                }
            }
        }
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        now: Timestamp,
    ) -> Result<reqwest::Request, String> {
        let EndpointKind::Webhook { url, method, headers, body, secret } = &endpoint.kind else {
            return Err("the endpoint is no webhook".to_owned());
        };
        let said = |e: crate::FieldError| e.to_string();
        let url = parse_url(url).map_err(said)?;
        self.allow.check(&url).map_err(|refused| format!("url: {refused}"))?;
        let method = parse_method(method).map_err(said)?;
        let content_type = content_type(endpoint);
        let bodyless = body.is_none() && matches!(method, Method::GET | Method::DELETE);
        let body = if bodyless {
            String::new()
        } else {
            template::body(body.as_deref(), Form::of(content_type), endpoint, delivery)
                .map_err(|e| format!("body: the template fails: {e}"))?
        };
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let (name, value) = parse_header(name, value).map_err(said)?;
            all.insert(name, value);
        }
        if !bodyless && !all.contains_key(CONTENT_TYPE) {
            all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let timestamp = now.as_millis() / 1000;
        let mut set = |name: &'static str, value: &str| {
            HeaderValue::from_str(value)
                .map(|value| all.insert(name, value))
                .map_err(|e| format!("{name}: {e}"))
        };
        set("webhook-id", &delivery.id)?;
        set("webhook-timestamp", &timestamp.to_string())?;
        if let Some(secret) = secret {
            let key = signature::key(secret).map_err(|problem| format!("secret: {problem}"))?;
            set("webhook-signature", &signature::sign(&key, &delivery.id, timestamp, body.as_bytes()))?;
        }
        let mut request = self.client.request(method, url).headers(all);
        if !bodyless {
            request = request.body(body);
        }
        request.build().map_err(|e| causes(&e.without_url()))
    }
}

/// What an answer means. Anything but 2xx is a failure, a redirect too.
async fn classify(mut response: Response, now: Timestamp) -> AttemptOutcome {
    let status = response.status();
    let retry_after = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        .then(|| response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, now)))
        .flatten();
    let mut answer = Vec::new();
    let read = async {
        while answer.len() < LONGEST_ANSWER
            && let Ok(Some(chunk)) = response.chunk().await
        {
            let room = LONGEST_ANSWER - answer.len();
            answer.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    };
    // Not having read it whole, or at all, changes nothing.
    let _ = timeout(ANSWER_TIME, read).await;
    if status.is_success() {
        return AttemptOutcome::Delivered { status: Some(status.as_u16()) };
    }
    let answer: String = String::from_utf8_lossy(&answer)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(KEPT)
        .collect();
    let error = if status.is_redirection() {
        format!("answered {status}; redirects are not followed")
    } else if answer.trim().is_empty() {
        format!("answered {status}")
    } else {
        format!("answered {status}: {}", answer.trim())
    };
    match status {
        StatusCode::GONE => AttemptOutcome::Gone { status: status.as_u16(), error },
        _ => AttemptOutcome::Transient { status: Some(status.as_u16()), error, retry_after },
    }
}

/// Seconds, or an HTTP date.
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let now = Duration::from_millis(u64::try_from(now.as_millis()).ok()?);
    Some(at.saturating_sub(now))
}

/// An error with its causes, in one line.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        for (value, wait) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Thu, 01 Jan 2026 00:01:30 GMT", Some(90)),
            ("Wed, 31 Dec 2025 23:59:59 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
        ] {
            let found = retry_after(&HeaderValue::from_static(value), now);
            assert_eq!(found, wait.map(Duration::from_secs), "{value}");
        }
    }
}
