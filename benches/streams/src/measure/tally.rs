//! Adding up results where they come out.

use std::marker::PhantomData;
use std::sync::Arc;

use galerna_lock::Mutex;
use galerna_topology::prelude::*;

use super::outcome::Outcome;
use super::wall_clock;

/// What came out, over all tasks. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<Total>>);

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Total {
    /// How many results.
    pub results: u64,
    /// The sum of their checksums.
    pub checksum: u64,
    /// How long each came after the end of its window, in microseconds, where that is measured.
    latencies: Vec<u64>,
}

impl Total {
    fn add(&mut self, mut other: Self) {
        self.results += other.results;
        self.checksum = self.checksum.wrapping_add(other.checksum);
        self.latencies.append(&mut other.latencies);
    }

    /// So long after the end of its window at most did this part of the results come, in milliseconds.
    pub fn latency(&self, part: f64) -> Option<f64> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * part) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).map(|micros| *micros as f64 / 1_000.0)
    }
}

impl Tally {
    /// What has come out by now of tasks that have ended.
    pub fn total(&self) -> Total {
        self.0.lock().clone()
    }

    /// A bolt that adds up, with so many tasks. `timed` measures how long results take, where events come at the time they say.
    pub fn of<T: Outcome + Send + 'static>(&self, timed: bool) -> TallyBolt<T> {
        TallyBolt { tally: self.clone(), own: Total::default(), timed, of: PhantomData }
    }
}

/// Adds up; the total gets it at the end.
#[derive(Debug)]
pub struct TallyBolt<T> {
    tally: Tally,
    own: Total,
    timed: bool,
    of: PhantomData<fn(T)>,
}

impl<T: Outcome + Send + 'static> Bolt for TallyBolt<T> {
    type Input = T;
    type Outputs = ();

    fn execute(&mut self, result: T, _: &mut Emitter<()>) -> Result<(), Fault> {
        if !result.counts() {
            return Ok(());
        }
        self.own.results += 1;
        self.own.checksum = self.own.checksum.wrapping_add(result.checksum());
        if let (true, Some(end)) = (self.timed, result.window_end()) {
            let late = wall_clock().as_micros() as i64 - end * 1_000;
            // What the end of the run completes comes before the end of its window.
            if let Ok(late) = u64::try_from(late) {
                self.own.latencies.push(late);
            }
        }
        Ok(())
    }

    fn close(&mut self, _: &mut Emitter<()>) {
        self.tally.0.lock().add(std::mem::take(&mut self.own));
    }
}
