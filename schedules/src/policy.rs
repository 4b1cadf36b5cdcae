//! What is done when an occurrence meets an earlier firing, comes late, or falls on a change of the clocks.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::definition::LONGEST;
use crate::{BadSchedule, duration_text};

/// So late may an occurrence be noticed and still be on time: a little more than a process takes to look, to claim and to be
/// paused by its system meanwhile.
pub const ON_TIME: Duration = Duration::from_secs(5);

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident ($field:literal) { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them, the default first.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it is written in settings.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = BadSchedule;

            fn from_str(text: &str) -> Result<Self, BadSchedule> {
                Self::ALL.iter().copied().find(|choice| choice.name() == text).ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|choice| choice.name()).collect();
                    BadSchedule::new($field, format!("`{text}` is none of {}", names.join(", ")))
                })
            }
        }
    };
}

choice! {
    /// What becomes of an occurrence while an earlier firing of the schedule has not ended (it runs, waits to run, or waits
    /// to be tried again).
    Overlap("overlap") {
        /// It is skipped.
        #[default]
        Skip = "skip",
        /// One waits until the earlier one has ended; further ones are skipped.
        BufferOne = "buffer_one",
        /// Up to [`BUFFER`](crate::BUFFER) wait and run one after the other; further ones are skipped.
        BufferAll = "buffer_all",
        /// Those that wait are cancelled, one that runs is told to stop; the new one starts when that has ended.
        CancelOther = "cancel_other",
        /// It runs beside the others.
        AllowAll = "allow_all",
    }
}

choice! {
    /// What becomes of occurrences that nobody fired in time, within [`Policy::catchup_window`].
    Missed("missed") {
        /// The latest of them runs; those before it are recorded as missed.
        #[default]
        RunLatest = "run_latest",
        /// All are recorded as missed, but for those that are no more than [`ON_TIME`] late.
        Skip = "skip",
        /// All run, as far as the overlap policy lets them.
        RunAll = "run_all",
    }
}

choice! {
    /// What becomes of a fixed time of day that the clocks jump over.
    DstGap("cron.dst_gap") {
        /// It occurs at the first instant after the gap.
        #[default]
        Shift = "shift",
        /// It does not occur on that day.
        Skip = "skip",
    }
}

choice! {
    /// What becomes of a fixed time of day that the clocks show twice.
    DstOverlap("cron.dst_overlap") {
        /// It occurs the first time.
        #[default]
        First = "first",
        /// It occurs the second time.
        Last = "last",
        /// It occurs both times.
        Both = "both",
    }
}

/// How often, and after which pauses, a firing that failed is tried again. A permanent fault is never tried again; an
/// unavailable one is, and does not count as an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all; 1: never again, also when the process that had claimed it was lost.
    pub attempts: u32,
    /// The pause after the first failed attempt; it doubles with each, and up to a half of it is random.
    #[serde(with = "duration_text")]
    pub first: Duration,
    /// The longest pause.
    #[serde(with = "duration_text")]
    pub longest: Duration,
}

impl Default for Retry {
    /// 3 attempts, pauses of 1 s to 5 min.
    fn default() -> Self {
        Self { attempts: 3, first: Duration::from_secs(1), longest: Duration::from_secs(300) }
    }
}

impl Retry {
    /// The pause after `failed` attempts, with `chance` (any number) for its random part.
    pub(crate) fn pause(&self, failed: u32, chance: u64) -> Duration {
        let doublings = failed.saturating_sub(1).min(30);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        let half = u64::try_from(whole.as_millis() / 2).unwrap_or(u64::MAX - 1);
        whole - Duration::from_millis(chance % (half + 1))
    }

    fn check(&self) -> Result<(), BadSchedule> {
        if self.attempts == 0 {
            return Err(BadSchedule::new("retry.attempts", "0 attempts run nothing; write at least 1"));
        }
        if self.first.is_zero() || self.first > self.longest {
            return Err(BadSchedule::new(
                "retry.first",
                "the first pause is more than 0 and at most the longest",
            ));
        }
        Ok(())
    }
}

/// How a schedule behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// While an earlier firing has not ended.
    pub overlap: Overlap,
    /// When nobody looked in time.
    pub missed: Missed,
    /// Occurrences later than this are recorded as missed whatever [`Self::missed`] says. At least [`ON_TIME`].
    #[serde(with = "duration_text")]
    pub catchup_window: Duration,
    /// An occurrence becomes due so much after its nominal time at most; by how much is random, but the same for all
    /// processes. It never reaches the next occurrence.
    #[serde(with = "duration_text")]
    pub jitter: Duration,
    /// A firing that failed for good pauses the schedule.
    pub pause_on_failure: bool,
    /// When a firing fails.
    pub retry: Retry,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            overlap: Overlap::default(),
            missed: Missed::default(),
            catchup_window: Duration::from_secs(60),
            jitter: Duration::ZERO,
            pause_on_failure: false,
            retry: Retry::default(),
        }
    }
}

impl Policy {
    pub(crate) fn check(&self) -> Result<(), BadSchedule> {
        if self.catchup_window < ON_TIME {
            return Err(BadSchedule::new(
                "policy.catchup_window",
                format!(
                    "at least {}: so late may an occurrence be and still be on time",
                    duration_text::format(ON_TIME)
                ),
            ));
        }
        for (field, duration) in [
            ("policy.catchup_window", self.catchup_window),
            ("policy.jitter", self.jitter),
            ("retry.longest", self.retry.longest),
        ] {
            if duration > LONGEST {
                return Err(BadSchedule::new(field, "it is longer than 100 years"));
            }
        }
        self.retry.check()
    }
}
