//! The bolt that says how far a stream is in event time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{Batch, BatchBolt, Data, Emitter, Fault, Output, Sender, TaskContext, Timestamp};

use crate::source_clock::EventTimeSettings;
use crate::sources::{Sources, TimeOf, read_time};

/// Passes tuples on, and says to all behind it how far they are in event time: so the bolt to put behind a source. Each task that
/// sends to it counts as a source of its own.
///
/// A tuple whose time cannot be read, or cannot be, fails and goes no farther.
///
/// ```
/// use std::time::Duration;
/// use galerna_windows::EventTime;
///
/// # #[derive(Clone)] struct Reading { at: i64 }
/// let clocked = EventTime::of(|reading: &Reading| reading.at)
///     .lag(Duration::from_secs(30))
///     .idle_after(Duration::from_secs(120));
/// ```
pub struct EventTime<T> {
    time_of: TimeOf<T>,
    pub(crate) settings: EventTimeSettings,
    pub(crate) interval: Duration,
}

impl<T> Clone for EventTime<T> {
    fn clone(&self) -> Self {
        Self { time_of: self.time_of.clone(), ..*self }
    }
}

impl<T> fmt::Debug for EventTime<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventTime").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<T: Data> EventTime<T> {
    /// By the time that the closure reads off each tuple, in milliseconds since 1970 where it is a number.
    pub fn of<At: Into<Timestamp>>(at: impl Fn(&T) -> At + Send + Sync + 'static) -> Self {
        Self {
            time_of: Arc::new(move |tuple| at(tuple).into()),
            settings: EventTimeSettings::default(),
            interval: Duration::from_millis(50),
        }
    }

    /// How far a tuple may be behind the latest one of its source and still come in time. 0 unless set.
    #[must_use]
    pub fn lag(mut self, lag: Duration) -> Self {
        self.settings.lag = lag;
        self
    }

    /// How long a source may be silent, by the topology's clock, until nobody waits for it; `None` means for ever. 60 s unless set.
    #[must_use]
    pub fn idle_after(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.settings.idle_after = silence.into();
        self
    }

    /// How far a timestamp may be off the latest one of its source. What is farther off fails. 3,650 days unless set.
    #[must_use]
    pub fn most_jump(mut self, jump: Duration) -> Self {
        self.settings.most_jump = jump;
        self
    }

    /// How often it says how far it is, at most. 50 ms unless set; at least 1 ms.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(1));
        self
    }
}

/// One task of it.
pub(crate) struct EventTimeBolt<T> {
    of: EventTime<T>,
    sources: Sources,
    /// Who has sent since it was said how far they are.
    moved: Vec<Sender>,
    /// When to say so again.
    next: Duration,
}

impl<T: Data> EventTimeBolt<T> {
    pub(crate) fn new(of: EventTime<T>) -> Self {
        let sources = Sources::new(of.settings, Duration::ZERO);
        Self { of, sources, moved: Vec::new(), next: Duration::ZERO }
    }
}

impl<T: Data> BatchBolt for EventTimeBolt<T> {
    type Input = T;
    type Outputs = Output<T>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.sources = Sources::new(self.of.settings, context.now());
        Ok(())
    }

    fn execute(&mut self, batch: Batch<T>, out: &mut Emitter<Output<T>>) {
        let now = out.context().now();
        let Some(sender) = out.sender() else { return };
        {
            let mut observe = self.sources.batch(sender, now);
            batch.each(out, |tuple, out| {
                observe(read_time(&self.of.time_of, &tuple)?)?;
                out.emit(tuple);
                Ok(())
            });
        }
        if !self.moved.contains(&sender) {
            self.moved.push(sender);
        }
        if now >= self.next {
            self.next = now.saturating_add(self.of.interval);
            for sender in std::mem::take(&mut self.moved) {
                self.sources.tell(sender, now, out);
            }
        }
    }

    fn tick(&mut self, out: &mut Emitter<Output<T>>) -> Result<(), Fault> {
        let now = out.context().now();
        self.moved.clear();
        self.sources.tell_all(now, out);
        Ok(())
    }
}
