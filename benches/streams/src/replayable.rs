//! A source that can be read again, as a log can: events by number, in parts of a fixed size with names of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use galerna_lock::Mutex;
use galerna_topology::{Data, Failed, Fault, Next, Output, Roots, Spout, TaskContext};

/// So many events are one root, as a consumer of a log gets them in one answer.
pub const EVENTS_A_ROOT: u64 = 500;

/// What a source makes, and how fast.
pub struct Source<T> {
    /// How many events there are.
    pub events: u64,
    /// How many a second; as fast as they are taken unless set.
    pub rate: Option<u64>,
    /// Makes the n-th.
    pub make: Arc<dyn Fn(u64) -> T + Send + Sync>,
    /// When it has begun to measure, which it does after a quarter of the events.
    pub progress: Arc<Progress>,
}

impl<T> Clone for Source<T> {
    fn clone(&self) -> Self {
        Self { make: self.make.clone(), progress: self.progress.clone(), ..*self }
    }
}

/// How far the tasks of a source are.
#[derive(Debug, Default)]
pub struct Progress {
    made: AtomicU64,
    failed: AtomicU64,
    warm: Mutex<Option<(Instant, u64)>>,
}

impl Progress {
    /// Since when it is measured, and how many events had been made by then.
    pub fn warm(&self) -> Option<(Instant, u64)> {
        *self.warm.lock()
    }

    /// How many parts have failed. Nothing in these queries does.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn note(&self, events: u64, of: u64) {
        let made = self.made.fetch_add(events, Ordering::Relaxed) + events;
        if made >= of / 4 && made - events < of / 4 {
            *self.warm.lock() = Some((Instant::now(), made));
        }
    }
}

/// One task of a source: every so manieth part of its events.
pub struct Replayable<T> {
    source: Source<T>,
    started: Instant,
    /// The number of the next part.
    next: u64,
    step: u64,
}

impl<T> Replayable<T> {
    /// A task of this source.
    pub fn new(source: Source<T>) -> Self {
        Self { source, started: Instant::now(), next: 0, step: 1 }
    }

    /// How many events a root has. At a fixed rate they are few, so that they come at their time.
    fn size(&self) -> u64 {
        self.source.rate.map_or(EVENTS_A_ROOT, |rate| (rate / 1_000).clamp(1, EVENTS_A_ROOT))
    }
}

impl<T> std::fmt::Debug for Replayable<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replayable").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<T: Data> Spout for Replayable<T> {
    type MessageId = u64;
    type Outputs = Output<T>;

    async fn open(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.next = context.task() as u64;
        self.step = context.tasks() as u64;
        self.started = Instant::now();
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let size = self.size();
        let (part, from) = (self.next, self.next * size);
        if from >= self.source.events {
            return Ok(Next::Done);
        }
        let upto = (from + size).min(self.source.events);
        if let Some(rate) = self.source.rate {
            let due = Duration::from_nanos((upto as u128 * 1_000_000_000 / u128::from(rate)) as u64);
            let early = due.saturating_sub(self.started.elapsed());
            if !early.is_zero() {
                return Ok(Next::After(early));
            }
        }
        let events = out.root_with_stable_id(part, part.to_string());
        for n in from..upto {
            events.emit((self.source.make)(n));
        }
        self.next += self.step;
        self.source.progress.note(upto - from, self.source.events);
        Ok(Next::Ready)
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        self.source.progress.failed.fetch_add(failed.len() as u64, Ordering::Relaxed);
    }
}
