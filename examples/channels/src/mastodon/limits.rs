//! Limits of rates, as servers tell them in the heads of their answers.
//!
//! `X-RateLimit-Remaining` says how many calls are left and `X-RateLimit-Reset` when there are more; `Retry-After` how long to wait. What
//! is told is held to before the next call is made.

use std::collections::HashMap;
use std::time::Duration;

use galerna_lock::Mutex;
use galerna_model::Timestamp;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::time::Instant;

use crate::network::NetworkError;

/// Calls that are limited together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Read,
    Write,
    Stream,
}

/// Where a server says too many without saying how long.
const UNTOLD: Duration = Duration::from_secs(60);

/// The longest that is waited on a server's word; then it is asked again.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Until when an account makes no calls of a class.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<HashMap<(String, Class), Instant>>);

impl Gates {
    /// Whether a call may be made.
    pub(super) fn check(&self, account: &str, class: Class) -> Result<(), NetworkError> {
        let mut gates = self.0.lock();
        let key = (account.to_owned(), class);
        let now = Instant::now();
        match gates.get(&key) {
            Some(until) if *until > now => Err(NetworkError::Limited(*until - now)),
            Some(_) => {
                gates.remove(&key);
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn close(&self, account: &str, class: Class, wait: Duration) {
        self.0.lock().insert((account.to_owned(), class), Instant::now() + wait);
    }
}

/// How long no further call is wanted after this answer.
pub(super) fn wait(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let refused = status == StatusCode::TOO_MANY_REQUESTS;
    let retry = text("retry-after").and_then(|text| retry_after(text, now));
    let reset = text("x-ratelimit-reset").and_then(|text| until(text, now));
    let used_up = text("x-ratelimit-remaining").and_then(|text| text.parse::<u64>().ok()) == Some(0);
    let wait = if refused {
        Some(retry.or(reset).unwrap_or(UNTOLD))
    } else if status == StatusCode::SERVICE_UNAVAILABLE {
        retry
    } else if used_up {
        reset
    } else {
        None
    };
    wait.map(|wait| wait.min(LONGEST))
}

/// Seconds, or a date as HTTP writes it.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(between(now, Timestamp(date.timestamp().as_millisecond())))
}

fn until(text: &str, now: Timestamp) -> Option<Duration> {
    let time = Timestamp::parse(text).ok()?;
    Some(between(now, time))
}

/// A server whose clock is behind is asked again a little later, not at once.
fn between(now: Timestamp, time: Timestamp) -> Duration {
    let millis = u64::try_from(time.millis_since(now)).unwrap_or(0);
    Duration::from_millis(millis).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heads_say_how_long_to_wait() {
        let now = Timestamp::parse("2026-11-30T12:00:00Z").unwrap();
        // Status, heads, and the seconds that are waited.
        type Case<'a> = (u16, &'a [(&'a str, &'a str)], Option<u64>);
        let cases: [Case<'_>; 11] = [
            (200, &[], None),
            (200, &[("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", "2026-11-30T12:05:00.000Z")], None),
            (
                200,
                &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2026-11-30T12:05:00.000Z")],
                Some(300),
            ),
            (200, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2026-11-30T11:00:00Z")], Some(1)),
            (200, &[("x-ratelimit-remaining", "0")], None),
            (429, &[("x-ratelimit-reset", "2026-11-30T13:00:00.000000Z")], Some(3600)),
            (429, &[("retry-after", "3600"), ("x-ratelimit-reset", "2026-11-30T12:00:10Z")], Some(3600)),
            (429, &[("retry-after", "Mon, 30 Nov 2026 12:02:00 GMT")], Some(120)),
            (429, &[("retry-after", "soon")], Some(60)),
            (503, &[("retry-after", "999999999")], Some(86_400)),
            (503, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2026-11-30T12:05:00Z")], None),
        ];
        for (status, heads, seconds) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in heads {
                headers.insert(*name, value.parse().unwrap());
            }
            let waits = wait(StatusCode::from_u16(status).unwrap(), &headers, now);
            assert_eq!(waits, seconds.map(Duration::from_secs), "{status} {heads:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_gate_opens_by_itself_and_closes_nothing_else() {
        let gates = Gates::default();
        gates.close("a", Class::Write, Duration::from_secs(3600));
        tokio::time::advance(Duration::from_secs(3599)).await;
        assert_eq!(gates.check("a", Class::Write), Err(NetworkError::Limited(Duration::from_secs(1))));
        assert_eq!(gates.check("a", Class::Read), Ok(()));
        assert_eq!(gates.check("b", Class::Write), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(gates.check("a", Class::Write), Ok(()));
    }
}
