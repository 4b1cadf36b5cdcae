//! What a schedule is told to be.

use std::fmt;
use std::time::Duration;

use galerna_model::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::calendar::{Calendar, zone};
use crate::{BadSchedule, DstGap, DstOverlap, Policy, duration_text};

/// The shortest interval.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest interval, pause or window: 100 years.
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Times before or after are not scheduled: 0001-01-01 and 9000-01-01, in UTC.
const TIMES: std::ops::Range<Timestamp> = Timestamp(-62_135_596_800_000)..Timestamp(221_845_392_000_000);

/// When a schedule occurs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// At the times of the day that an expression names.
    Cron(CronTiming),
    /// At the end of each interval, by elapsed time.
    Every(Interval),
    /// Once.
    At(Timestamp),
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(cron) => write!(f, "{} in {}", cron.expression, cron.timezone),
            Self::Every(every) => write!(f, "every {}", duration_text::format(every.interval)),
            Self::At(time) => write!(f, "once, at {time}"),
        }
    }
}

/// A cron expression, and how its times of the day become instants.
///
/// An expression with a `*` in its second, minute or hour goes by elapsed time: [`Self::dst_gap`] and [`Self::dst_overlap`] are
/// for fixed times only, such as `30 2 * * *`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CronTiming {
    /// Minute, hour, day of month, month, day of week; seconds may stand before them. When both days are restricted, either
    /// matches; `+` before the day of week demands both.
    pub expression: String,
    /// A name of the IANA database.
    #[serde(default = "utc")]
    pub timezone: String,
    /// Times that the clocks jump over.
    #[serde(default)]
    pub dst_gap: DstGap,
    /// Times that the clocks show twice.
    #[serde(default)]
    pub dst_overlap: DstOverlap,
}

/// An interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// How long it is, in whole milliseconds; at least a second.
    #[serde(with = "duration_text")]
    pub interval: Duration,
    /// Occurrences are whole intervals from here; 1970-01-01 UTC unless set.
    #[serde(default)]
    pub anchor: Timestamp,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// What a schedule is told to be: when it occurs, how it behaves, and what its firings carry.
///
/// ```
/// use galerna_schedules::Definition;
///
/// let nightly: Definition = serde_json::from_str(
///     r#"{"timing": {"cron": {"expression": "30 2 * * *", "timezone": "Europe/Berlin"}}, "payload": {"report": "usage"}}"#,
/// )?;
/// let after = galerna_model::Timestamp::parse("2026-03-28T12:00:00+01:00")?;
/// // On the 29th the clocks go from 2 to 3 o'clock.
/// let next: Vec<String> = nightly.compile()?.after(after).take(2).map(|time| time.to_string()).collect();
/// assert_eq!(next, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// When it occurs.
    pub timing: Timing,
    /// How it behaves.
    #[serde(default)]
    pub policy: Policy,
    /// What each firing carries.
    #[serde(default)]
    pub payload: Value,
    /// No occurrence before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// No occurrence from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_at: Option<Timestamp>,
    /// So many occurrences are fired; then it ends. Not counted are those that are triggered or backfilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// Dates in the schedule's time zone on which it does not occur, such as `2026-12-25`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

impl Definition {
    /// Occurs at these times, with the defaults of everything else.
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            policy: Policy::default(),
            payload: Value::Null,
            start_at: None,
            end_at: None,
            remaining: None,
            exclude: Vec::new(),
        }
    }

    /// Occurs as a cron expression says, in a time zone.
    pub fn cron(expression: impl Into<String>, timezone: impl Into<String>) -> Self {
        Self::new(Timing::Cron(CronTiming {
            expression: expression.into(),
            timezone: timezone.into(),
            dst_gap: DstGap::default(),
            dst_overlap: DstOverlap::default(),
        }))
    }

    /// Occurs at whole intervals since 1970-01-01 UTC.
    pub fn every(interval: Duration) -> Self {
        Self::new(Timing::Every(Interval { interval, anchor: Timestamp(0) }))
    }

    /// Occurs once.
    pub fn at(time: Timestamp) -> Self {
        Self::new(Timing::At(time))
    }

    /// The same with another policy.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The same with a payload.
    #[must_use]
    pub fn payload(mut self, payload: Value) -> Self {
        self.payload = payload;
        self
    }

    /// Checks it, and makes of it what finds occurrences.
    ///
    /// # Errors
    /// [`BadSchedule`] names the first field that is wrong.
    pub fn compile(&self) -> Result<Occurrences, BadSchedule> {
        self.policy.check()?;
        if self.remaining == Some(0) {
            return Err(BadSchedule::new(
                "remaining",
                "0 firings are none; leave it out, or write at least 1",
            ));
        }
        let anchored = match &self.timing {
            Timing::Every(every) => Some(every.anchor),
            Timing::At(time) => Some(*time),
            Timing::Cron(_) => None,
        };
        for (field, time) in [("start_at", self.start_at), ("end_at", self.end_at), ("timing", anchored)] {
            if time.is_some_and(|time| !TIMES.contains(&time)) {
                return Err(BadSchedule::new(field, "a time of the years 1 to 8999 is needed"));
            }
        }
        if let (Some(start), Some(end)) = (self.start_at, self.end_at)
            && end <= start
        {
            return Err(BadSchedule::new("end_at", format!("{end} is not after start_at, {start}")));
        }
        let rule = match &self.timing {
            Timing::Cron(cron) => Rule::Cron(Box::new(Calendar::new(
                &cron.expression,
                &cron.timezone,
                cron.dst_gap,
                cron.dst_overlap,
            )?)),
            Timing::Every(every) => {
                let whole = u64::try_from(every.interval.as_millis()).unwrap_or(u64::MAX);
                if !(SHORTEST..=LONGEST).contains(&every.interval)
                    || every.interval != Duration::from_millis(whole)
                {
                    return Err(BadSchedule::new(
                        "every.interval",
                        "an interval is 1s to 100 years, in whole milliseconds",
                    ));
                }
                let every_ms = i64::try_from(whole)
                    .map_err(|_| BadSchedule::new("every.interval", "it is longer than time is counted"))?;
                Rule::Every { every: every_ms, anchor: every.anchor.as_millis() }
            }
            Timing::At(time) => Rule::At(*time),
        };
        let mut exclude = Vec::with_capacity(self.exclude.len());
        for text in &self.exclude {
            exclude.push(text.parse::<Date>().map_err(|_| {
                BadSchedule::new("exclude", format!("`{text}` is no date; write for instance 2026-12-25"))
            })?);
        }
        exclude.sort_unstable();
        let zone = match &rule {
            Rule::Cron(calendar) => calendar.zone().clone(),
            Rule::Every { .. } | Rule::At(_) => zone("UTC")?,
        };
        let found = Occurrences { rule, zone, exclude, start: self.start_at, end: self.end_at };
        if matches!(found.rule, Rule::Cron(_))
            && found.next_after(Timestamp(0)).is_none()
            && self.end_at.is_none()
        {
            return Err(BadSchedule::new("cron.expression", "it never occurs"));
        }
        Ok(found)
    }

    /// How long the policy lets an occurrence be late, in milliseconds.
    pub(crate) fn window_ms(&self) -> i64 {
        millis(self.policy.catchup_window)
    }
}

/// A duration in milliseconds, saturating.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[derive(Debug, Clone)]
enum Rule {
    Cron(Box<Calendar>),
    Every { every: i64, anchor: i64 },
    At(Timestamp),
}

/// The occurrences of a [`Definition`]: their nominal times, which name them.
#[derive(Debug, Clone)]
pub struct Occurrences {
    rule: Rule,
    zone: jiff::tz::TimeZone,
    /// In order.
    exclude: Vec<Date>,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

impl Occurrences {
    /// The first occurrence after an instant, if there is one.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let mut after = match self.start {
            Some(start) => after.max(start.plus_millis(-1)),
            None => after,
        };
        loop {
            let found = match &self.rule {
                Rule::Cron(calendar) => calendar.next_after(after)?,
                Rule::Every { every, anchor } => {
                    let passed = after.as_millis().checked_sub(*anchor)?.div_euclid(*every);
                    Timestamp(anchor.checked_add(every.checked_mul(passed.checked_add(1)?)?)?)
                }
                Rule::At(time) => Some(*time).filter(|time| *time > after)?,
            };
            if self.end.is_some_and(|end| found >= end) || found >= TIMES.end {
                return None;
            }
            match self.end_of_excluded(found) {
                None => return Some(found),
                Some(midnight) => after = midnight.plus_millis(-1).max(found),
            }
        }
    }

    /// All after an instant, in order.
    pub fn after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next_after(after), |last| self.next_after(*last))
    }

    /// The end of the date of an instant, when that is excluded.
    fn end_of_excluded(&self, time: Timestamp) -> Option<Timestamp> {
        if self.exclude.is_empty() {
            return None;
        }
        let zoned = jiff::Timestamp::from_millisecond(time.as_millis()).ok()?.to_zoned(self.zone.clone());
        self.exclude.binary_search(&zoned.date()).ok()?;
        let midnight = zoned.tomorrow().and_then(|day| day.start_of_day());
        Some(midnight.map_or(time, |midnight| Timestamp(midnight.timestamp().as_millisecond())))
    }
}
