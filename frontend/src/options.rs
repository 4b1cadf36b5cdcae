//! Settings of a frontend, and the inequalities between them.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// A rate that one source may keep up, and what it may send at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Sustained, per second.
    pub per_second: NonZeroU32,
    /// At once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate; zeros count as one.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self { per_second: at_least_one(per_second), burst: at_least_one(burst) }
    }
}

/// What a call may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest body in bytes, before and after decompression; 8 MiB by default.
    pub body_bytes: usize,
    /// Quota readings in one call; 10,000 by default.
    pub readings: usize,
    /// Longest text of one reading in bytes; 128 KiB by default.
    pub reading_bytes: usize,
    /// Bytes of the bodies of all calls under way, until their readings are confirmed; 256 MiB by default. Beyond it calls get 503.
    pub bytes_in_flight: usize,
    /// Readings parsed and not yet confirmed, of all calls together; 200,000 by default. Beyond it calls get 503.
    pub readings_in_flight: usize,
    /// Connections open at once; 4,096 by default, and on Linux never more than half of the files that the process may open.
    /// When they run out, those that have waited longest for a request give way.
    pub connections: usize,
    /// What one source may have at once of `bytes_in_flight` and, in calls under way, of `connections`: percent from 1 to 100;
    /// 25 by default. Beyond it the source gets 429 and others go on. It is never less than two longest bodies, in one call. The same
    /// share has one address of what is kept for callers who are not known before their body is read; behind a proxy all are one
    /// address.
    pub source_percent: usize,
    /// Readings of one envelope; 250 by default.
    pub envelope_readings: usize,
    /// Calls of one source; 500 a second, 1,000 at once by default.
    pub calls: Rate,
    /// Readings of one source; 100,000 a second and at once by default.
    pub source_readings: Rate,
}

impl Limits {
    /// What one source or address may have of so much.
    pub(crate) fn share_of_one(&self, all: usize) -> usize {
        all / 100 * self.source_percent + all % 100 * self.source_percent / 100
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            readings: 10_000,
            reading_bytes: 128 << 10,
            bytes_in_flight: 256 << 20,
            readings_in_flight: 200_000,
            connections: 4_096,
            source_percent: 25,
            envelope_readings: 250,
            calls: Rate::new(500, 1_000),
            source_readings: Rate::new(100_000, 100_000),
        }
    }
}

/// How long things may take. They are independent of each other but for `idle <= body`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// For the first byte on a new connection; 10 s by default. Beyond it the connection is closed.
    pub first_byte: Duration,
    /// For the head of a request, counted from when its connection is idle; 30 s by default.
    pub head: Duration,
    /// For a whole body; 60 s by default.
    pub body: Duration,
    /// Between two pieces of a body; 15 s by default.
    pub idle: Duration,
    /// For the broker to confirm; 15 s by default. What is confirmed later was safe all the same, and is stored
    /// once when the sender posts it again.
    pub publish: Duration,
    /// At the end: from `/readyz` saying 503 to no longer taking connections; 2 s by default. Longer than a load balancer takes
    /// to notice.
    pub notice: Duration,
    /// At the end: for calls under way; 30 s by default.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            first_byte: seconds(10),
            head: seconds(30),
            body: seconds(60),
            idle: seconds(15),
            publish: seconds(15),
            notice: seconds(2),
            drain: seconds(30),
        }
    }
}

/// How the list of sources is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct SourcesOptions {
    /// Time between two refreshes; 30 s by default.
    pub every: Duration,
    /// For one refresh; 60 s by default.
    pub timeout: Duration,
    /// A call of an unknown source brings the next refresh forward, but not nearer to the last one than this; 5 s by default.
    pub soonest: Duration,
    /// So many sources may go at once whatever their share, save all; 2 by default.
    pub may_lose: usize,
    /// The share of the known sources, 0 to 1, that a refresh must keep; 0.8 by default.
    pub keep_ratio: f64,
    /// Where the list is kept between runs; nowhere by default.
    pub disk_copy: Option<PathBuf>,
}

impl Default for SourcesOptions {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            every: seconds(30),
            timeout: seconds(60),
            soonest: seconds(5),
            may_lose: 2,
            keep_ratio: 0.8,
            disk_copy: None,
        }
    }
}

/// How a frontend works.
#[derive(Clone, PartialEq, Default)]
pub struct Options {
    /// What a call may cost.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How the list of sources is kept.
    pub sources: SourcesOptions,
    /// How statistics are written.
    pub statistics: StatisticsOptions,
    /// Asked of `/metrics` and `/statistics` as `Authorization: Bearer <token>`. Without one `/metrics` is open, and
    /// `/statistics`, which shows readings, is not served.
    pub operator_token: Option<String>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("limits", &self.limits)
            .field("timeouts", &self.timeouts)
            .field("sources", &self.sources)
            .field("statistics", &self.statistics)
            .field("operator_token", &self.operator_token.as_ref().map(|_| "…"))
            .finish()
    }
}

/// How statistics are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatisticsOptions {
    /// Time between two flushes, which is what a crash may lose of the counts; 5 s by default.
    pub flush_every: Duration,
    /// Bytes of last messages that wait for a flush; 16 MiB by default. Beyond it they are kept without their text.
    pub waiting_bytes: usize,
    /// Longest text kept of one message; 4 KiB by default, 256 KiB at most.
    pub message_bytes: usize,
}

impl Default for StatisticsOptions {
    fn default() -> Self {
        Self { flush_every: Duration::from_secs(5), waiting_bytes: 16 << 20, message_bytes: 4 << 10 }
    }
}

/// Settings that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("frontend settings are wrong: {0}")]
pub struct OptionsError(String);

/// The last messages of a source, in which each wrong byte has become a character of three, fit in one record of every store.
const LONGEST_EXCERPT: usize = 256 << 10;

/// The most readings that consumers take in one message, and so the most of an envelope.
const LARGEST_ENVELOPE: usize = 10_000;

impl Options {
    /// Checks what must hold between the settings.
    ///
    /// # Errors
    /// [`OptionsError`] names the inequality that does not hold.
    pub fn check(&self) -> Result<(), OptionsError> {
        let Limits { readings, source_readings, envelope_readings, .. } = self.limits;
        let limits = &self.limits;
        let burst = source_readings.burst.get() as usize;
        let ratio = self.sources.keep_ratio;
        let rules = [
            (readings >= 1, "readings must be at least 1".to_owned()),
            (
                burst >= readings,
                format!(
                    "source_readings.burst ({burst}) must be at least readings ({readings}): such a call could never be taken"
                ),
            ),
            (
                limits.readings_in_flight >= readings,
                format!(
                    "readings_in_flight ({}) must be at least readings ({readings})",
                    limits.readings_in_flight
                ),
            ),
            (
                limits.bytes_in_flight >= 2 * limits.body_bytes && limits.body_bytes >= 1,
                format!(
                    "bytes_in_flight ({}) must be at least 2 * body_bytes ({}), which is at least 1: a compressed body needs both",
                    limits.bytes_in_flight, limits.body_bytes
                ),
            ),
            (limits.connections >= 1, "connections must be at least 1".to_owned()),
            (
                (1..=LARGEST_ENVELOPE).contains(&envelope_readings),
                format!("envelope_readings ({envelope_readings}) must be 1 to {LARGEST_ENVELOPE}"),
            ),
            (
                (1..=100).contains(&limits.source_percent),
                format!("source_percent ({}) must be 1 to 100", limits.source_percent),
            ),
            (
                self.timeouts.idle <= self.timeouts.body,
                "timeouts.idle must be at most timeouts.body".to_owned(),
            ),
            ((0.0..=1.0).contains(&ratio), format!("keep_ratio ({ratio}) must be 0 to 1")),
            (!self.sources.every.is_zero(), "sources.every must not be 0".to_owned()),
            (!self.statistics.flush_every.is_zero(), "flush_every must not be 0".to_owned()),
            (
                self.statistics.message_bytes <= LONGEST_EXCERPT,
                format!(
                    "statistics.message_bytes ({}) must be at most {LONGEST_EXCERPT}",
                    self.statistics.message_bytes
                ),
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(OptionsError(broken)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_each_broken_inequality_is_named() {
        assert_eq!(Options::default().check(), Ok(()));
        type Break = fn(&mut Options);
        let cases: &[(Break, &str)] = &[
            (|o| o.limits.source_readings = Rate::new(1, 1), "source_readings.burst"),
            (|o| o.limits.readings_in_flight = 1, "readings_in_flight"),
            (|o| o.limits.bytes_in_flight = 1, "bytes_in_flight"),
            (|o| o.limits.connections = 0, "connections"),
            (|o| o.limits.source_percent = 0, "source_percent"),
            (|o| o.limits.source_percent = 101, "source_percent"),
            (|o| o.limits.envelope_readings = 0, "envelope_readings"),
            (|o| o.timeouts.idle = Duration::from_secs(3_600), "timeouts.idle"),
            (|o| o.sources.keep_ratio = 1.5, "keep_ratio"),
            (|o| o.statistics.message_bytes = 1 << 20, "message_bytes"),
        ];
        for (break_it, named) in cases {
            let mut options = Options::default();
            break_it(&mut options);
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(named), "{error} should name {named}");
        }
    }

    #[test]
    fn the_operators_token_is_not_shown() {
        let options = Options { operator_token: Some("hunter2".to_owned()), ..Options::default() };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
