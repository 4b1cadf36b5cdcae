//! Trying again: growing pauses, and few lines in the log for a failure that lasts.
//!
//! A background task that fails must neither spin nor fill the log. [`Backoff`] gives the pauses; [`Outage`] adds what is
//! logged: the first failure, then one line a minute with the count, then that it works again.
//!
//! ```
//! use std::time::Duration;
//! use galerna_retry::{Outage, Pauses};
//!
//! # async fn look() -> Result<(), String> { Ok(()) }
//! # async fn example() {
//! let mut outage = Outage::new("looking at the store", Pauses::new(Duration::from_millis(100), Duration::from_secs(10)));
//! loop {
//!     match look().await {
//!         Ok(()) => break outage.succeeded(),
//!         Err(cause) => tokio::time::sleep(outage.failed(&cause)).await,
//!     }
//! }
//! # }
//! ```
//!
//! The crate knows nothing of what is tried: it must not depend on any other crate of the workspace.

use std::fmt::Display;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// How often a failure that lasts is logged again.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// How long the pauses between attempts are: each is twice the one before, up to the longest, and cut by a random part of up
/// to a half, so that many who fail together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    first: Duration,
    longest: Duration,
}

impl Pauses {
    /// The first pause, and the longest.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// Starts with the first pause.
    pub fn begin(self) -> Backoff {
        Backoff { pauses: self, delays: self.delays() }
    }

    fn delays(self) -> ExponentialBackoff {
        // The random part is added to each delay and is at most as long as it: so the delays are half of the pauses.
        ExponentialBuilder::new()
            .with_min_delay(self.first / 2)
            .with_max_delay(self.longest / 2)
            .with_factor(2.0)
            .without_max_times()
            .with_jitter()
            .build()
    }
}

/// The pauses of something that fails repeatedly.
#[derive(Debug)]
pub struct Backoff {
    pauses: Pauses,
    delays: ExponentialBackoff,
}

impl Backoff {
    /// How long to wait before the next attempt.
    pub fn pause(&mut self) -> Duration {
        self.delays.next().unwrap_or(self.pauses.longest)
    }

    /// It worked: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.delays = self.pauses.delays();
    }
}

/// Something that is tried again for as long as it fails: its pauses, and what is logged of it.
#[derive(Debug)]
pub struct Outage {
    task: &'static str,
    backoff: Backoff,
    failures: u64,
    began: Instant,
    logged: Instant,
}

impl Outage {
    /// Nothing has failed yet. The task is named in the log: `reading the settings`.
    pub fn new(task: &'static str, pauses: Pauses) -> Self {
        let now = Instant::now();
        Self { task, backoff: pauses.begin(), failures: 0, began: now, logged: now }
    }

    /// An attempt failed: logs it if it is the first, or the last line is a minute old, and gives the pause before the next
    /// attempt.
    pub fn failed(&mut self, cause: &(impl Display + ?Sized)) -> Duration {
        let now = Instant::now();
        self.failures += 1;
        if self.failures == 1 {
            self.began = now;
            self.logged = now;
            tracing::warn!(task = self.task, %cause, "it failed and is tried again");
        } else if now - self.logged >= LOG_EVERY {
            self.logged = now;
            let seconds = (now - self.began).as_secs();
            tracing::warn!(task = self.task, %cause, failures = self.failures, seconds, "it still fails");
        }
        self.backoff.pause()
    }

    /// An attempt did what it should: logs how often it had failed before, if it had.
    pub fn succeeded(&mut self) {
        if self.failures == 0 {
            return;
        }
        let seconds = self.began.elapsed().as_secs();
        tracing::info!(task = self.task, failures = self.failures, seconds, "it works again");
        self.failures = 0;
        self.backoff.reset();
    }

    /// Failures since it last worked.
    pub fn failures(&self) -> u64 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    const PAUSES: Pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(1));

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = PAUSES.begin();
        for _ in 0..2 {
            for whole in [100, 200, 400, 800, 1_000, 1_000] {
                let (pause, whole) = (backoff.pause(), Duration::from_millis(whole));
                assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
            }
            backoff.reset();
        }
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(data);
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_lasts_is_logged_once_then_once_a_minute_with_its_count_then_that_it_ended() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let mut outage = Outage::new("writing", PAUSES);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(150) {
            tokio::time::sleep(outage.failed("not authorised")).await;
        }
        assert!(outage.failures() > 100);
        outage.succeeded();
        outage.succeeded();
        assert_eq!(outage.failures(), 0);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].contains("it failed and is tried again") && lines[0].contains("not authorised"));
        assert!(
            lines[1..3].iter().all(|l| l.contains("it still fails") && l.contains("failures=")),
            "{text}"
        );
        assert!(lines[3].contains("it works again"), "{text}");
    }
}
