//! What the author of a component measures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use galerna_lock::Mutex;

use crate::watermark::Timestamp;

/// A count that only grows. Clones are the same count.
#[derive(Debug, Clone, Default)]
pub struct Counter {
    count: Arc<AtomicU64>,
}

impl Counter {
    /// So many more.
    pub fn add(&self, more: u64) {
        self.count.fetch_add(more, Ordering::Relaxed);
    }

    /// The count now.
    pub fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down. Clones are the same value.
#[derive(Debug, Clone, Default)]
pub struct Gauge {
    bits: Arc<AtomicU64>,
}

impl Gauge {
    /// The value from now on.
    pub fn set(&self, value: f64) {
        self.bits.store(value.to_bits(), Ordering::Relaxed);
    }

    /// The value now; 0 before it was set.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.bits.load(Ordering::Relaxed))
    }
}

/// The counters and gauges that one task has made, by name. They survive its instance.
#[derive(Debug, Default)]
pub struct TaskMetrics {
    // Locked when one is made or read, never when it is counted up or set.
    counters: Mutex<BTreeMap<String, Counter>>,
    gauges: Mutex<BTreeMap<String, Gauge>>,
    watermark: Mutex<Option<WatermarkState>>,
}

/// A task, by the id of its component and its index.
pub type TaskName = (Arc<str>, usize);

/// How far a task is in event time, and why not farther.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatermarkState {
    /// Its own watermark, if all that are waited for have said something.
    pub at: Option<Timestamp>,
    /// The greatest watermark of a task that sends to it.
    pub latest: Option<Timestamp>,
    /// Which of these tasks holds it back.
    pub held_by: Option<TaskName>,
    /// Those that are idle, so that nobody waits for them.
    pub idle: Vec<TaskName>,
}

impl TaskMetrics {
    /// The counter of this name.
    pub fn counter(&self, name: &str) -> Counter {
        let mut counters = self.counters.lock();
        counters.entry(name.to_owned()).or_default().clone()
    }

    /// The gauge of this name.
    pub fn gauge(&self, name: &str) -> Gauge {
        let mut gauges = self.gauges.lock();
        gauges.entry(name.to_owned()).or_default().clone()
    }

    /// How far the task is in event time; nothing if no watermarks have come.
    pub fn watermark(&self) -> Option<WatermarkState> {
        self.watermark.lock().clone()
    }

    pub(crate) fn set_watermark(&self, state: WatermarkState) {
        *self.watermark.lock() = Some(state);
    }

    /// All counts now.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let counters = self.counters.lock();
        counters.iter().map(|(name, counter)| (name.clone(), counter.get())).collect()
    }

    /// All values of gauges now.
    pub fn values(&self) -> BTreeMap<String, f64> {
        let gauges = self.gauges.lock();
        gauges.iter().map(|(name, gauge)| (name.clone(), gauge.get())).collect()
    }
}
