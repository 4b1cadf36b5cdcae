//! Declaring windows.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{Data, Timestamp};

use crate::aggregate::{Aggregate, Collect};
use crate::count_windows::CountWindows;
use crate::kept::KeptStore;
use crate::late::KeyName;
use crate::sessions::Sessions;
use crate::source_clock::EventTimeSettings;
use crate::sources::{KeyOf, TimeOf};
use crate::store::{Early, Hold, WindowStore};
use crate::time_windows::{Slices, TimeWindows};

/// A window may have so many panes at most.
pub(crate) const MOST_PANES: i64 = 100_000;

/// Which tuples go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Time { size: Duration, slide: Duration },
    Session { gap: Duration },
    Count { size: u64, slide: u64 },
}

/// What a window is not, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// A length, distance, gap or count of nothing.
    #[error("its {what} is {value}, which no tuple fits in: make it at least {least}")]
    Nothing {
        /// Which setting.
        what: &'static str,
        /// What it is.
        value: String,
        /// What it may be at least.
        least: &'static str,
    },
    /// Between two windows there is a stretch that is in none.
    #[error(
        "it slides by {slide} and is only {size} long, so that tuples between would be in no window: slide by at most its length, or \
         filter before it"
    )]
    Gaps {
        /// How long it is.
        size: String,
        /// By how much it slides.
        slide: String,
    },
    /// Length and slide have too small a part in common.
    #[error(
        "its length {size:?} and its slide {slide:?} have only {pane:?} in common, which makes {panes} panes a window of at most \
         {most}: choose a length that is a multiple of the slide"
    )]
    TooManyPanes {
        /// How long it is.
        size: Duration,
        /// By how much it slides.
        slide: Duration,
        /// The longest stretch that is in every window as a whole or not at all.
        pane: Duration,
        /// How many of these a window has.
        panes: i64,
        /// How many it may have.
        most: i64,
    },
    /// A window in state by a clock that begins anew with each process.
    #[error(
        "it is in state and by the topology's clock, which begins anew when the process does: give it an `event_time`, or do not keep \
         it in state"
    )]
    ClockInState,
    /// A setting that means nothing with the others.
    #[error("`{setting}` means nothing for a window {of}: leave it out")]
    Meaningless {
        /// The setting.
        setting: &'static str,
        /// What kind of window.
        of: &'static str,
    },
}

/// The milliseconds of a duration. Longer ones than can be reckoned with are cut.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(1 << 60)
}

fn short(what: &'static str, duration: Duration) -> Result<(), WindowError> {
    match millis(duration) {
        0 => Err(WindowError::Nothing { what, value: format!("{duration:?}"), least: "a millisecond" }),
        _ => Ok(()),
    }
}

/// Whether windows of this length can begin at these distances.
pub(crate) fn check_time(size: Duration, slide: Duration, most: i64) -> Result<(), WindowError> {
    short("length", size)?;
    short("slide", slide)?;
    if slide > size {
        return Err(WindowError::Gaps { size: format!("{size:?}"), slide: format!("{slide:?}") });
    }
    let panes = Slices::new(millis(size), millis(slide), 0).panes();
    if panes > most {
        let pane = Duration::from_millis((millis(size) / panes).unsigned_abs());
        return Err(WindowError::TooManyPanes { size, slide, pane, panes, most });
    }
    Ok(())
}

/// A window: which tuples of a key go together, when it emits, and what it makes of them.
///
/// ```
/// use std::time::Duration;
/// use galerna_windows::{Count, Window};
///
/// # #[derive(Clone)] struct Reading { device: String, at: i64 }
/// let hourly = Window::tumbling(Duration::from_secs(3_600))
///     .event_time(|reading: &Reading| reading.at)
///     .lag(Duration::from_secs(60))
///     .allowed_lateness(Duration::from_secs(600))
///     .by(|reading| reading.device.clone())
///     .aggregate(Count);
/// ```
///
/// A topology runs it with [`WindowTopology::window`](crate::WindowTopology::window).
pub struct Window<T, K = (), A = Collect> {
    pub(crate) kind: Kind,
    pub(crate) time_of: Option<TimeOf<T>>,
    pub(crate) makes_watermarks: Option<Duration>,
    pub(crate) sources: EventTimeSettings,
    pub(crate) key_of: KeyOf<T, K>,
    pub(crate) aggregate: Arc<A>,
    pub(crate) offset: Duration,
    pub(crate) allowed_lateness: Duration,
    pub(crate) early: Early,
    pub(crate) early_every: Option<Duration>,
    pub(crate) with_expired: bool,
    pub(crate) fire_at_drain: bool,
    pub(crate) ack_on_arrival: bool,
    pub(crate) late_names: Option<KeyName<K>>,
}

impl<T, K, A> Clone for Window<T, K, A> {
    fn clone(&self) -> Self {
        Self {
            time_of: self.time_of.clone(),
            key_of: self.key_of.clone(),
            aggregate: self.aggregate.clone(),
            late_names: self.late_names.clone(),
            ..*self
        }
    }
}

impl<T, K, A> fmt::Debug for Window<T, K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<T: Data> Window<T, (), Collect> {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            time_of: None,
            makes_watermarks: None,
            sources: EventTimeSettings::default(),
            key_of: Arc::new(|_| ()),
            aggregate: Arc::new(Collect),
            offset: Duration::ZERO,
            allowed_lateness: Duration::ZERO,
            early: Early::Never,
            early_every: None,
            with_expired: false,
            fire_at_drain: false,
            ack_on_arrival: false,
            late_names: None,
        }
    }

    /// Windows of this length, one after the other: each tuple is in one of them.
    pub fn tumbling(size: Duration) -> Self {
        Self::new(Kind::Time { size, slide: size })
    }

    /// Windows of this length, of which one begins every `slide`: each tuple is in as many as overlap.
    pub fn sliding(size: Duration, slide: Duration) -> Self {
        Self::new(Kind::Time { size, slide })
    }

    /// Windows that last as long as tuples of the key come: one ends when no tuple has come for the `gap` since its last one. A tuple
    /// exactly at that end begins the next.
    pub fn session(gap: Duration) -> Self {
        Self::new(Kind::Session { gap })
    }

    /// Windows of so many tuples of the key, one after the other.
    pub fn count(tuples: u64) -> Self {
        Self::new(Kind::Count { size: tuples, slide: tuples })
    }

    /// Windows of the last `tuples` of the key, of which one ends with every `slide`th tuple. The first ones have fewer.
    pub fn sliding_count(tuples: u64, slide: u64) -> Self {
        Self::new(Kind::Count { size: tuples, slide })
    }
}

impl<T: Data, K, A> Window<T, K, A> {
    /// Works by event time: the time that the closure reads off each tuple, in milliseconds since 1970 where it is a number. Without
    /// this it works by the topology's clock.
    #[must_use]
    pub fn event_time<At: Into<Timestamp>>(mut self, at: impl Fn(&T) -> At + Send + Sync + 'static) -> Self {
        self.time_of = Some(Arc::new(move |tuple| at(tuple).into()));
        self
    }

    /// Reads off the tuples how far their senders are, and waits so long, in event time, for those that are behind: each task that
    /// sends to the window counts as a source. Without it the watermarks come from an [`EventTime`](crate::EventTime) bolt before it,
    /// which is better where a window has several tasks: each of them sees only its own keys.
    #[must_use]
    pub fn lag(mut self, lag: Duration) -> Self {
        self.makes_watermarks = Some(lag);
        self.sources.lag = lag;
        self
    }

    /// With [`lag`](Self::lag): how long a sender may be silent, by the topology's clock, until nobody waits for it; `None` means for
    /// ever. 60 s unless set.
    #[must_use]
    pub fn idle_after(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.sources.idle_after = silence.into();
        self
    }

    /// With [`lag`](Self::lag): how far a timestamp may be off the latest one of its sender. What is farther off fails. 3,650 days
    /// unless set.
    #[must_use]
    pub fn most_jump(mut self, jump: Duration) -> Self {
        self.sources.most_jump = jump;
        self
    }

    /// Windows begin at multiples of their slide since 1970-01-01 00:00 UTC, moved by this: days of a time zone, for example.
    #[must_use]
    pub fn offset(mut self, offset: Duration) -> Self {
        self.offset = offset;
        self
    }

    /// For how long after its end, in event time, a window still takes tuples that come late, each of which makes it emit anew. 0
    /// unless set. What comes later than that goes to the late output.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.allowed_lateness = lateness;
        self
    }

    /// Emits what there is so far whenever the window of a key has got so many more tuples.
    #[must_use]
    pub fn early_after(mut self, tuples: u64) -> Self {
        self.early = Early::Tuples(tuples);
        self
    }

    /// Emits what there is so far at this interval of the topology's clock, for windows that have got tuples since.
    #[must_use]
    pub fn early_every(mut self, interval: Duration) -> Self {
        self.early = Early::Times;
        self.early_every = Some(interval);
        self
    }

    /// Results say too what the aggregate makes of the tuples that have left since the window before, in sliding windows.
    #[must_use]
    pub fn with_expired(mut self) -> Self {
        self.with_expired = true;
        self
    }

    /// When the topology drains, windows that are not complete emit what they have, as [`Firing::AtEnd`](crate::Firing::AtEnd). Unless
    /// set, their tuples fail, so that a spout that keeps what failed brings them again at the next start. Windows of a stream that
    /// has ended are complete.
    #[must_use]
    pub fn fire_at_drain(mut self) -> Self {
        self.fire_at_drain = true;
        self
    }

    /// Acks tuples as they come, not when their windows have fired: no root waits for a window, and what is in open windows is lost
    /// when the process ends.
    #[must_use]
    pub fn ack_on_arrival(mut self) -> Self {
        self.ack_on_arrival = true;
        self
    }

    /// What to compute: each key has windows of its own.
    #[must_use]
    pub fn by<Key>(self, key: impl Fn(&T) -> Key + Send + Sync + 'static) -> Window<T, Key, A> {
        Window {
            kind: self.kind,
            time_of: self.time_of,
            makes_watermarks: self.makes_watermarks,
            sources: self.sources,
            key_of: Arc::new(key),
            aggregate: self.aggregate,
            offset: self.offset,
            allowed_lateness: self.allowed_lateness,
            early: self.early,
            early_every: self.early_every,
            with_expired: self.with_expired,
            fire_at_drain: self.fire_at_drain,
            ack_on_arrival: self.ack_on_arrival,
            late_names: None,
        }
    }

    /// What to make of the tuples. Unless set, all of them come out as a `Vec`.
    #[must_use]
    pub fn aggregate<B: Aggregate<T>>(self, aggregate: B) -> Window<T, K, B> {
        Window {
            kind: self.kind,
            time_of: self.time_of,
            makes_watermarks: self.makes_watermarks,
            sources: self.sources,
            key_of: self.key_of,
            aggregate: Arc::new(aggregate),
            offset: self.offset,
            allowed_lateness: self.allowed_lateness,
            early: self.early,
            early_every: self.early_every,
            with_expired: self.with_expired,
            fire_at_drain: self.fire_at_drain,
            ack_on_arrival: self.ack_on_arrival,
            late_names: self.late_names,
        }
    }

    /// Counts late tuples in the metrics also by key, by the names that the closure gives: the first 100 keys for themselves, the
    /// others together. After [`by`](Self::by).
    #[must_use]
    pub fn count_late_by(mut self, name: impl Fn(&K) -> String + Send + Sync + 'static) -> Self {
        self.late_names = Some(Arc::new(name));
        self
    }

    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// A length of nothing, gaps between windows, settings that exclude each other.
    pub fn check(&self) -> Result<(), WindowError> {
        let few = |what, count: u64| match count {
            0 => Err(WindowError::Nothing { what, value: "0".to_owned(), least: "1" }),
            _ => Ok(()),
        };
        match self.kind {
            Kind::Time { size, slide } => check_time(size, slide, MOST_PANES)?,
            Kind::Session { gap } => short("gap", gap)?,
            Kind::Count { size, slide } => {
                few("count", size)?;
                few("slide", slide)?;
                if slide > size {
                    return Err(WindowError::Gaps {
                        size: format!("{size} tuples"),
                        slide: format!("{slide} tuples"),
                    });
                }
            }
        }
        if let Early::Tuples(0) = self.early {
            few("`early_after`", 0)?;
        }
        if let Some(every) = self.early_every {
            short("`early_every`", every)?;
        }
        let counts = matches!(self.kind, Kind::Count { .. });
        let by_clock = self.time_of.is_none();
        let meaningless = [
            (counts && !self.allowed_lateness.is_zero(), "allowed_lateness", "by count"),
            (counts && self.makes_watermarks.is_some(), "lag", "by count"),
            (by_clock && !self.allowed_lateness.is_zero(), "allowed_lateness", "by processing time"),
            (by_clock && self.makes_watermarks.is_some(), "lag", "by processing time"),
            (
                self.with_expired && matches!(self.kind, Kind::Session { .. }),
                "with_expired",
                "by session, which has no window before it",
            ),
        ];
        match meaningless.into_iter().find(|(wrong, ..)| *wrong) {
            Some((_, setting, of)) => Err(WindowError::Meaningless { setting, of }),
            None => Ok(()),
        }
    }

    /// What keeps it from being in state, if anything does.
    pub(crate) fn check_in_state(&self) -> Result<(), WindowError> {
        let counts = matches!(self.kind, Kind::Count { .. });
        let meaningless = [
            (self.fire_at_drain, "fire_at_drain", "in state, where they go on after a restart"),
            (self.ack_on_arrival, "ack_on_arrival", "in state, whose tuples a checkpoint acks"),
        ];
        match meaningless.into_iter().find(|(wrong, ..)| *wrong) {
            Some((_, setting, of)) => Err(WindowError::Meaningless { setting, of }),
            None if !counts && self.time_of.is_none() => Err(WindowError::ClockInState),
            None => Ok(()),
        }
    }

    /// Whether it needs watermarks.
    pub(crate) fn works_by_event_time(&self) -> bool {
        self.time_of.is_some() && !matches!(self.kind, Kind::Count { .. })
    }

    /// For how long it keeps a tuple at least, as far as that can be said.
    pub(crate) fn holds_for(&self) -> Option<Duration> {
        let stretch = match self.kind {
            Kind::Time { size, .. } => size,
            Kind::Session { gap } => gap,
            Kind::Count { .. } => return None,
        };
        (!self.ack_on_arrival).then(|| stretch.saturating_add(self.sources.lag))
    }

    /// How many tuples it keeps at least until more come.
    pub(crate) fn holds(&self) -> Option<usize> {
        match self.kind {
            Kind::Count { size, .. } if !self.ack_on_arrival => usize::try_from(size).ok(),
            _ => None,
        }
    }

    /// How often it has to look at the clock, if at all.
    pub(crate) fn tick(&self) -> Option<Duration> {
        let fine = |time: Duration| (time / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let by_clock = self.time_of.is_none();
        let windows = match self.kind {
            Kind::Time { slide, .. } if by_clock => Some(fine(slide)),
            Kind::Session { gap } if by_clock => Some(fine(gap)),
            _ => None,
        };
        let idle = self.makes_watermarks.and(self.sources.idle_after).map(fine);
        [windows, idle, self.early_every].into_iter().flatten().min()
    }
}

impl<T: Data, K: Data + Eq + Hash, A: Aggregate<T>> Window<T, K, A> {
    /// The windows of one task, whose parts can be written to its state.
    pub(crate) fn open_kept(&self) -> Box<dyn KeptStore<K, T, A::Output, A::Accumulator>> {
        let (aggregate, lateness) = (self.aggregate.clone(), millis(self.allowed_lateness));
        let expired = self.with_expired;
        let mut store: Box<dyn KeptStore<K, T, A::Output, A::Accumulator>> = match self.kind {
            Kind::Time { size, slide } => {
                let slices = Slices::new(millis(size), millis(slide), millis(self.offset));
                Box::new(TimeWindows::new(slices, aggregate, lateness, self.early, expired))
            }
            Kind::Session { gap } => Box::new(Sessions::new(millis(gap), aggregate, lateness, self.early)),
            Kind::Count { size, slide } => {
                Box::new(CountWindows::new(size, slide, aggregate, self.early, expired))
            }
        };
        store.note_changes();
        store
    }

    /// The windows of one task.
    pub(crate) fn open<H: Hold + 'static>(&self) -> Box<dyn WindowStore<K, T, A::Output, H>> {
        let (aggregate, lateness) = (self.aggregate.clone(), millis(self.allowed_lateness));
        let expired = self.with_expired;
        match self.kind {
            Kind::Time { size, slide } => {
                let slices = Slices::new(millis(size), millis(slide), millis(self.offset));
                Box::new(TimeWindows::new(slices, aggregate, lateness, self.early, expired))
            }
            Kind::Session { gap } => Box::new(Sessions::new(millis(gap), aggregate, lateness, self.early)),
            Kind::Count { size, slide } => {
                Box::new(CountWindows::new(size, slide, aggregate, self.early, expired))
            }
        }
    }
}
