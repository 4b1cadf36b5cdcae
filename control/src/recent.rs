//! What a topology did lately, from readings of its counters a second apart.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use galerna_engine::{ComponentMetrics, Metrics};
use tokio::time::Instant;

/// Rates are over about this time.
const WINDOW: Duration = Duration::from_secs(8);

/// What a component does a second, over the last seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Rates {
    /// Tuples executed by a bolt, emitted by a spout.
    pub(crate) done: f64,
    pub(crate) acked: f64,
    pub(crate) failed: f64,
    /// The share of its executors' time in which they were busy, 0 to 1.
    pub(crate) busy: f64,
}

/// The last readings.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    readings: VecDeque<(Instant, Metrics)>,
    /// By component: since when there was at each reading something that waits for it.
    waiting: HashMap<String, Instant>,
}

impl Recent {
    pub(crate) fn look(&mut self, now: Instant, metrics: Metrics) {
        for component in &metrics.components {
            if component.queued == 0 {
                self.waiting.remove(&component.id);
            } else {
                self.waiting.entry(component.id.clone()).or_insert(now);
            }
        }
        self.readings.push_back((now, metrics));
        while self.readings.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.readings.pop_front();
        }
    }

    /// The busy share of a component between the last two readings.
    pub(crate) fn last_busy(&self, component: &str) -> Option<f64> {
        let mut last = self.readings.iter().rev();
        let (now, before) = (last.next()?, last.next()?);
        let elapsed = now.0 - before.0;
        Some(rates(elapsed, before.1.component(component)?, now.1.component(component)?)?.busy)
    }

    /// The last reading.
    pub(crate) fn latest(&self) -> Option<&Metrics> {
        self.readings.back().map(|(_, metrics)| metrics)
    }

    /// How long something has been waiting for a component.
    pub(crate) fn waits_for(&self, component: &str, now: Instant) -> Option<Duration> {
        self.waiting.get(component).map(|since| now - *since)
    }

    /// What a component did a second since the oldest reading, now that its metrics are these; nothing before there is one that
    /// is old enough to tell.
    pub(crate) fn rates(&self, now: Instant, metrics: &ComponentMetrics) -> Option<Rates> {
        let (at, before) = self.readings.front()?;
        let elapsed = now - *at;
        if elapsed < Duration::from_millis(200) {
            return None;
        }
        rates(elapsed, before.component(&metrics.id)?, metrics)
    }
}

fn rates(elapsed: Duration, before: &ComponentMetrics, now: &ComponentMetrics) -> Option<Rates> {
    if elapsed.is_zero() {
        return None;
    }
    let seconds = elapsed.as_secs_f64();
    let each = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let done = |of: &ComponentMetrics| if of.kind == "spout" { of.emitted } else { of.executed };
    let available_ms = seconds * 1e3 * now.executors.max(1) as f64;
    Some(Rates {
        done: each(done(before), done(now)),
        acked: each(before.acked, now.acked),
        failed: each(before.failures(), now.failures()),
        busy: ((now.busy_ms - before.busy_ms) / available_ms).clamp(0.0, 1.0),
    })
}
