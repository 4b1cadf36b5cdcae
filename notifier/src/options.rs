//! How a notifier works.

use std::time::Duration;

use crate::NotifierError;
use crate::addresses::AllowList;

/// When a failed delivery is tried again, and when no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    /// Wait after the first failure; each further failure doubles it. The wait is drawn from the upper half, so that many
    /// that failed together do not come back together.
    pub first: Duration,
    /// Longest wait between two attempts, unless the receiver asks for more by `Retry-After`.
    pub longest: Duration,
    /// Given up after so many attempts.
    pub attempts: u32,
    /// Given up when an attempt fails after so long; also the longest `Retry-After` that is honoured.
    pub max_age: Duration,
}

impl Default for RetrySchedule {
    /// 5 s, doubling to at most an hour; 30 attempts; a day.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(5),
            longest: Duration::from_secs(3600),
            attempts: 30,
            max_age: Duration::from_secs(24 * 3600),
        }
    }
}

impl RetrySchedule {
    /// The wait after the failure with this number (1 is the first); `draw` is from 0 to 1.
    pub fn wait_after(&self, failures: u32, draw: f64) -> Duration {
        let doubled = 2_u32.checked_pow(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let whole = self.first.saturating_mul(doubled).min(self.longest);
        whole.mul_f64(draw.clamp(0.0, 1.0).mul_add(0.5, 0.5))
    }
}

/// Where mail is handed in.
#[derive(Clone, PartialEq, Eq)]
pub struct Smtp {
    /// `smtps://user:password@host:465` (TLS), `smtp://user:password@host:587?tls=required` (STARTTLS) or, in the clear,
    /// `smtp://host:25`. Name and password percent-encoded.
    pub url: String,
    /// Sender, for instance `Galerna <alerts@example.com>`.
    pub from: String,
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Smtp").field("from", &self.from).finish_non_exhaustive()
    }
}

/// How a notifier works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names this notifier among those that share a store; no two may have the same.
    pub name: String,
    /// Alert events taken from the broker at a time.
    pub prefetch: u16,
    /// How often the outbox is looked at for deliveries that became due, or that others enqueued.
    pub poll: Duration,
    /// How long a delivery is this notifier's once claimed. When it dies, others go on after this time. Must be more than
    /// twice `attempt_timeout`, so that an attempt and the record of it end in time.
    pub lease: Duration,
    /// Longest attempt.
    pub attempt_timeout: Duration,
    /// Most attempts at once.
    pub in_flight: usize,
    /// No further deliveries of an endpoint are claimed while so many are in flight, so that one that hangs leaves room.
    pub per_endpoint: usize,
    /// Retries.
    pub retry: RetrySchedule,
    /// Internal addresses that webhooks may go to all the same.
    pub allow: AllowList,
    /// Mail server; without one, mails are given up with a reason that says so.
    pub smtp: Option<Smtp>,
    /// How long deliveries that have ended are kept, from when they were made.
    pub keep: Duration,
    /// How long attempts in flight are waited for at the end.
    pub drain: Duration,
}

impl Default for Options {
    /// A random name, a look every 500 ms, claims of 60 s, attempts of 15 s, 64 at once and 8 an endpoint, no internal
    /// address, no mail server, 90 days kept, 20 s of drain.
    fn default() -> Self {
        Self {
            name: format!("notifier-{}-{:08x}", std::process::id(), fastrand::u32(..)),
            prefetch: 100,
            poll: Duration::from_millis(500),
            lease: Duration::from_secs(60),
            attempt_timeout: Duration::from_secs(15),
            in_flight: 64,
            per_endpoint: 8,
            retry: RetrySchedule::default(),
            allow: AllowList::default(),
            smtp: None,
            keep: Duration::from_secs(90 * 24 * 3600),
            drain: Duration::from_secs(20),
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), NotifierError> {
        let wrong = |text: &str| Err(NotifierError::Option(text.to_owned()));
        if self.name.is_empty() {
            return wrong("name is empty");
        }
        if self.prefetch == 0 || self.in_flight == 0 || self.per_endpoint == 0 {
            return wrong("prefetch, in_flight or per_endpoint is 0; each must be at least 1");
        }
        if self.retry.attempts == 0 {
            return wrong("retry.attempts is 0; it must be at least 1");
        }
        if self.poll.is_zero() || self.attempt_timeout.is_zero() {
            return wrong("poll or attempt_timeout is 0");
        }
        if self.lease <= self.attempt_timeout.saturating_mul(2) {
            return wrong("lease is too short; it must be more than twice attempt_timeout");
        }
        if self.keep <= self.retry.max_age {
            return wrong("keep is too short; it must be more than retry.max_age");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_the_longest_and_is_drawn_from_its_upper_half() {
        let schedule = RetrySchedule { longest: Duration::from_secs(30), ..RetrySchedule::default() };
        let waits = |draw| -> Vec<f64> {
            [1, 2, 3, 4, 40].map(|n| schedule.wait_after(n, draw).as_secs_f64()).to_vec()
        };
        assert_eq!(waits(1.0), [5.0, 10.0, 20.0, 30.0, 30.0]);
        assert_eq!(waits(0.0), [2.5, 5.0, 10.0, 15.0, 15.0]);
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        assert!(Options::default().check().is_ok());
        let short = Options { lease: Duration::from_secs(30), ..Options::default() };
        assert!(short.check().unwrap_err().to_string().contains("lease is too short"));
        let none = Options { in_flight: 0, ..Options::default() };
        assert!(none.check().is_err());
    }
}
