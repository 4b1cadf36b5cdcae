//! The event time of one source, as its tuples tell it.

use std::time::Duration;

use galerna_topology::{Timestamp, Watermark};

/// How event time is read off tuples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTimeSettings {
    /// How far a tuple may be behind the latest one of its source and still come in time: the watermark of a source is its latest
    /// timestamp less this. 0 unless set.
    pub lag: Duration,
    /// How long a source may be silent until nobody waits for it any more; `None` means for ever. 60 s unless set.
    pub idle_after: Option<Duration>,
    /// How far a timestamp may be before or after the latest one of its source. What is farther off cannot be a time at all, and
    /// fails, until more of them in a row agree with each other than had come before: then it was those that were wrong. 3,650 days
    /// unless set.
    pub most_jump: Duration,
}

impl Default for EventTimeSettings {
    fn default() -> Self {
        Self {
            lag: Duration::ZERO,
            idle_after: Some(Duration::from_secs(60)),
            most_jump: Duration::from_secs(3_650 * 24 * 3_600),
        }
    }
}

/// A timestamp that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the timestamp {at} is {off:?} {} the latest of its source, {latest}, and at most {most:?} can be: correct the timestamp closure or \
     the sender's clock, or raise `most_jump`",
    if at < latest { "before" } else { "after" }
)]
pub struct Implausible {
    /// The timestamp.
    pub at: Timestamp,
    /// The latest timestamp of the source so far.
    pub latest: Timestamp,
    /// How far it is off.
    pub off: Duration,
    /// How far it may be off.
    pub most: Duration,
}

fn apart(one: Timestamp, other: Timestamp) -> Duration {
    if one < other { other.saturating_since(one) } else { one.saturating_since(other) }
}

/// What is known of one source: how far it has come, and whether it is silent.
#[derive(Debug, Clone)]
pub struct SourceClock {
    latest: Option<Timestamp>,
    /// How many timestamps agree with that.
    agreed: u64,
    /// Those since that do not, but with each other: the latest, and how many.
    others: Option<(Timestamp, u64)>,
    heard: Duration,
    idle: bool,
}

impl SourceClock {
    /// Of a source of which nothing has been heard since `now` of the topology's clock.
    pub fn new(now: Duration) -> Self {
        Self { latest: None, agreed: 0, others: None, heard: now, idle: false }
    }

    /// A tuple has come. Returns whether that may have moved the watermark.
    ///
    /// # Errors
    /// If its timestamp cannot be; then nothing has changed but that the source is not silent.
    #[inline]
    pub fn observe(
        &mut self,
        at: Timestamp,
        now: Duration,
        settings: &EventTimeSettings,
    ) -> Result<bool, Implausible> {
        self.heard = now;
        let Some(latest) = self.latest else {
            self.latest = Some(at);
            self.agreed = 1;
            return Ok(true);
        };
        let off = apart(at, latest);
        if off > settings.most_jump {
            return self.doubt(at, settings).ok_or(Implausible { at, latest, off, most: settings.most_jump });
        }
        self.agreed += 1;
        self.others = None;
        let moved = at > latest || self.idle;
        self.latest = Some(latest.max(at));
        Ok(moved)
    }

    /// A timestamp has come that does not agree with those before. Whether it was those that were wrong, or it is not known.
    #[cold]
    fn doubt(&mut self, at: Timestamp, settings: &EventTimeSettings) -> Option<bool> {
        let (latest, count) = match self.others {
            Some((latest, count)) if apart(at, latest) <= settings.most_jump => (latest.max(at), count + 1),
            _ => (at, 1),
        };
        self.others = Some((latest, count));
        if count <= self.agreed {
            return None;
        }
        *self = Self { latest: Some(latest), agreed: count, others: None, ..*self };
        Some(true)
    }

    /// What the source says now; nothing as long as it has said nothing and may still.
    pub fn watermark(&mut self, now: Duration, settings: &EventTimeSettings) -> Option<Watermark> {
        let silent = now.saturating_sub(self.heard);
        self.idle = settings.idle_after.is_some_and(|after| silent >= after);
        if self.idle {
            return Some(Watermark::Idle);
        }
        self.latest.map(|latest| Watermark::At(latest.saturating_sub(settings.lag)))
    }

    /// The latest timestamp so far.
    pub fn latest(&self) -> Option<Timestamp> {
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn settings() -> EventTimeSettings {
        EventTimeSettings { lag: secs(5), idle_after: Some(secs(30)), most_jump: secs(3_600) }
    }

    #[test]
    fn the_watermark_follows_the_latest_tuple_by_the_lag_and_never_goes_back() {
        let (mut source, settings) = (SourceClock::new(secs(0)), settings());
        assert_eq!(source.watermark(secs(0), &settings), None);
        for (at, watermark) in [(100_000, 95_000), (98_000, 95_000), (101_500, 96_500), (101_500, 96_500)] {
            source.observe(Timestamp::from_millis(at), secs(1), &settings).expect("it can be");
            let expected = Watermark::At(Timestamp::from_millis(watermark));
            assert_eq!(source.watermark(secs(1), &settings), Some(expected), "after {at}");
        }
    }

    #[test]
    fn a_silent_source_is_idle_until_it_speaks() {
        let (mut source, settings) = (SourceClock::new(secs(10)), settings());
        assert_eq!(source.watermark(secs(39), &settings), None, "it may still say something");
        assert_eq!(source.watermark(secs(40), &settings), Some(Watermark::Idle));
        assert!(source.observe(Timestamp::from_millis(7_000), secs(41), &settings).expect("it can be"));
        assert_eq!(source.watermark(secs(41), &settings), Some(Watermark::At(Timestamp::from_millis(2_000))));
        assert_eq!(source.watermark(secs(71), &settings), Some(Watermark::Idle));
        // A tuple that is no later shows all the same that the source is there.
        assert!(source.observe(Timestamp::from_millis(6_000), secs(72), &settings).expect("it can be"));
        assert_eq!(source.watermark(secs(72), &settings), Some(Watermark::At(Timestamp::from_millis(2_000))));
    }

    #[test]
    fn without_a_limit_a_source_is_waited_for_for_ever() {
        let settings = EventTimeSettings { idle_after: None, ..settings() };
        assert_eq!(SourceClock::new(secs(0)).watermark(secs(1_000_000), &settings), None);
    }

    #[test]
    fn a_timestamp_that_cannot_be_changes_nothing_and_says_what_to_do() {
        let (mut source, settings) = (SourceClock::new(secs(0)), settings());
        let century = 100 * 365 * 24 * 3_600 * 1_000;
        let now = Timestamp::from_millis(1_800_000_000_000);
        source.observe(now, secs(1), &settings).expect("it can be");
        for wrong in [now.millis() - century, now.millis() + century, i64::MIN, i64::MAX] {
            let error = source.observe(Timestamp::from_millis(wrong), secs(2), &settings).unwrap_err();
            assert_eq!(error.latest, now);
            assert_eq!(source.latest(), Some(now));
        }
        let error =
            source.observe(Timestamp::from_millis(1_799_990_000_000), secs(2), &settings).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the timestamp 1799990000000 ms is 10000s before the latest of its source, 1800000000000 ms, and at most 3600s can be: \
             correct the timestamp closure or the sender's clock, or raise `most_jump`"
        );
    }

    #[test]
    fn a_first_timestamp_that_is_wrong_is_not_believed_for_ever() {
        let (mut source, settings) = (SourceClock::new(secs(0)), settings());
        let of = |millis| Timestamp::from_millis(millis);
        let mut observe = |at| source.observe(of(at), secs(1), &settings).is_ok();
        // A device whose clock is not set yet, and then is.
        assert_eq!(
            [0, 1_800_000_000_000, 1_800_000_001_000, 1_800_000_000_500].map(&mut observe),
            [true, false, true, true]
        );
        // The more have come, the more it takes to say otherwise, and they have to agree.
        let later = 1_900_000_000_000;
        assert_eq!([later, later + 1, 0, later, later + 1, later + 2].map(&mut observe), [false; 6]);
        assert!(observe(1_800_000_002_000));
        assert_eq!([later, later + 1, later + 2, later + 3].map(&mut observe), [false; 4]);
        assert!(observe(later + 4));
        assert_eq!(source.latest(), Some(of(later + 4)));
    }
}
