//! The sources that one task reads event time off: each task that sends to it is one.

use std::collections::BTreeMap;
use std::time::Duration;

use galerna_topology::{Anchor, Batch, Data, Emitter, Fault, Outputs, Sender, Timestamp};

use crate::source_clock::{EventTimeSettings, SourceClock};
use crate::store::caught;

/// What a tuple's time is read by.
pub(crate) type TimeOf<T> = std::sync::Arc<dyn Fn(&T) -> Timestamp + Send + Sync>;

/// What a tuple is computed by.
pub(crate) type KeyOf<T, K> = std::sync::Arc<dyn Fn(&T) -> K + Send + Sync>;

/// Times farther from 1970 than this, about 36 million years, are not reckoned with.
const FARTHEST: i64 = 1 << 60;

/// Reads a tuple's time.
///
/// # Errors
/// That the author's closure panicked, or gave a time that nothing can be reckoned with.
pub(crate) fn read_time<T>(time_of: &TimeOf<T>, tuple: &T) -> Result<Timestamp, Fault> {
    let at = caught(|| time_of(tuple))
        .map_err(|fault| Fault::permanent(format!("the timestamp closure {}", fault.reason())))?;
    if at.millis().unsigned_abs() > FARTHEST.unsigned_abs() {
        return Err(Fault::permanent(format!(
            "the timestamp closure gave {at}, which is no time: it is to give milliseconds since 1970"
        )));
    }
    Ok(at)
}

/// The sources of one task.
#[derive(Debug)]
pub(crate) struct Sources {
    settings: EventTimeSettings,
    clocks: BTreeMap<Sender, SourceClock>,
    /// Since when those are waited for of which nothing has been heard.
    started: Duration,
}

impl Sources {
    pub(crate) fn new(settings: EventTimeSettings, started: Duration) -> Self {
        Self { settings, clocks: BTreeMap::new(), started }
    }

    fn clock(&mut self, sender: Sender) -> &mut SourceClock {
        let started = self.started;
        self.clocks.entry(sender).or_insert_with(|| SourceClock::new(started))
    }

    /// What takes the times of the tuples of one batch of a sender.
    pub(crate) fn batch(
        &mut self,
        sender: Sender,
        now: Duration,
    ) -> impl FnMut(Timestamp) -> Result<(), Fault> {
        let settings = self.settings;
        let clock = self.clock(sender);
        move |at| match clock.observe(at, now, &settings) {
            Ok(_) => Ok(()),
            Err(implausible) => Err(Fault::permanent(implausible.to_string())),
        }
    }

    /// Says how far a source is.
    pub(crate) fn tell<O: Outputs>(&mut self, sender: Sender, now: Duration, out: &mut Emitter<O>) {
        let settings = self.settings;
        if let Some(watermark) = self.clock(sender).watermark(now, &settings) {
            out.set_watermark(sender, watermark);
        }
    }

    /// Says how far all sources are.
    pub(crate) fn tell_all<O: Outputs>(&mut self, now: Duration, out: &mut Emitter<O>) {
        let senders: Vec<Sender> = out.watermarks().senders().collect();
        for sender in senders {
            self.tell(sender, now, out);
        }
    }
}

/// The tuples of a batch with their times, each noted of the batch's sender where the task makes watermarks. Without a closure they have
/// the time `otherwise`. Tuples whose time is wrong fail.
pub(crate) fn with_times<T: Data>(
    batch: Batch<T>,
    time_of: Option<&TimeOf<T>>,
    otherwise: Timestamp,
    sources: Option<&mut Sources>,
    sender: Option<Sender>,
    now: Duration,
) -> Vec<(T, Timestamp, Anchor)> {
    let mut observe = sources.zip(sender).map(|(sources, sender)| sources.batch(sender, now));
    let (tuples, anchors) = batch.into_parts();
    let mut timed = Vec::with_capacity(tuples.len());
    for (tuple, anchor) in tuples.into_iter().zip(anchors.into_each()) {
        let at = time_of.map_or(Ok(otherwise), |time_of| read_time(time_of, &tuple));
        let observed = at.and_then(|at| match &mut observe {
            Some(observe) => observe(at).map(|()| at),
            None => Ok(at),
        });
        match observed {
            Ok(at) => timed.push((tuple, at, anchor)),
            Err(fault) => anchor.fail(fault),
        }
    }
    timed
}
