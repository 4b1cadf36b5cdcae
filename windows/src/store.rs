//! The windows of one task: what all kinds of them have in common.

use std::panic::{AssertUnwindSafe, catch_unwind};

use galerna_topology::{Fault, Timestamp};

use crate::result::{Firing, WindowResult};

/// What windows hold on to for the tuples in them, until they have fired: anchors, or nothing.
pub(crate) trait Hold: Default + Send {
    /// Takes over what `other` holds.
    fn merge(&mut self, other: Self);
    /// Whether it holds nothing.
    fn is_empty(&self) -> bool;
}

/// Where windows put what comes out.
pub(crate) trait WindowSink<K, R, H> {
    /// A result, and what its tuples hold.
    fn fire(&mut self, result: WindowResult<K, R>, held: &[&H]);
    /// Tuples that are in no window any more that has to fire.
    fn release(&mut self, held: H);
    /// Tuples whose aggregate panicked.
    fn fail(&mut self, held: H, fault: Fault);
}

/// A tuple that comes too late for all of its windows, given back with what it holds.
#[derive(Debug)]
pub(crate) struct TooLate<T, H> {
    pub(crate) tuple: T,
    pub(crate) held: H,
}

/// The windows of one task, by key.
pub(crate) trait WindowStore<K, T, R, H>: Send {
    /// Takes a tuple in.
    ///
    /// # Errors
    /// The tuple, if it is late for all of its windows.
    fn add(
        &mut self,
        key: &K,
        tuple: T,
        at: Timestamp,
        held: H,
        sink: &mut dyn WindowSink<K, R, H>,
    ) -> Result<(), TooLate<T, H>>;
    /// Nothing earlier than `watermark` is to be expected: fires what is complete by that.
    fn advance(&mut self, watermark: Timestamp, sink: &mut dyn WindowSink<K, R, H>);
    /// Fires the windows for which tuples have come late.
    fn fire_late(&mut self, sink: &mut dyn WindowSink<K, R, H>);
    /// Fires the open windows that have changed since the last time.
    fn fire_early(&mut self, sink: &mut dyn WindowSink<K, R, H>);
    /// Fires what is left and forgets it.
    fn fire_all(&mut self, firing: Firing, sink: &mut dyn WindowSink<K, R, H>);
    /// Forgets everything. Returns what the tuples in it hold.
    fn take_all(&mut self) -> Vec<H>;
    /// How many accumulators are kept.
    fn len(&self) -> usize;
}

/// When windows fire before they are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Early {
    #[default]
    Never,
    /// Whenever so many more tuples have come.
    Tuples(u64),
    /// At times, if tuples have come since.
    Times,
}

/// What is kept of some tuples of one key.
#[derive(Debug, Clone)]
pub(crate) struct Part<A, H> {
    pub(crate) accumulator: A,
    pub(crate) tuples: u64,
    pub(crate) held: H,
    pub(crate) kept: Kept<A>,
}

/// What is known of a part of windows in state.
#[derive(Debug, Clone)]
pub(crate) struct Kept<A> {
    /// The state has it, in this or an older form.
    pub(crate) in_state: bool,
    /// It is in the list of those that have changed since they were written.
    pub(crate) changed: bool,
    /// The batch that changed it last.
    pub(crate) batch: u64,
    /// What it was before that batch, and how many tuples it had; nothing if there was none.
    pub(crate) before: Option<(A, u64)>,
}

impl<A> Default for Kept<A> {
    fn default() -> Self {
        Self { in_state: false, changed: false, batch: 0, before: None }
    }
}

impl<A, H: Hold> Part<A, H> {
    pub(crate) fn new(accumulator: A) -> Self {
        Self { accumulator, tuples: 0, held: H::default(), kept: Kept::default() }
    }

    /// What it holds, which it does not any more.
    pub(crate) fn take_held(&mut self) -> H {
        std::mem::take(&mut self.held)
    }
}

/// Runs the author's code: a panic is a fault.
pub(crate) fn caught<R>(run: impl FnOnce() -> R) -> Result<R, Fault> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| Fault::panicked(&*panic))
}

/// The greatest common divisor.
pub(crate) const fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Numbers of tuples.
    impl Hold for Vec<usize> {
        fn merge(&mut self, mut other: Self) {
            self.append(&mut other);
        }

        fn is_empty(&self) -> bool {
            self.is_empty()
        }
    }

    /// Writes down what comes.
    #[derive(Debug)]
    pub(crate) struct Written<K, R> {
        pub(crate) results: Vec<WindowResult<K, R>>,
        /// What the tuples of each result held.
        pub(crate) anchored: Vec<Vec<usize>>,
        pub(crate) released: Vec<usize>,
        pub(crate) failed: Vec<(usize, String)>,
    }

    impl<K, R> Default for Written<K, R> {
        fn default() -> Self {
            Self { results: Vec::new(), anchored: Vec::new(), released: Vec::new(), failed: Vec::new() }
        }
    }

    impl<K, R> WindowSink<K, R, Vec<usize>> for Written<K, R> {
        fn fire(&mut self, result: WindowResult<K, R>, held: &[&Vec<usize>]) {
            for tuple in held.iter().flat_map(|held| held.iter()) {
                assert!(!self.released.contains(tuple), "{tuple} was released before");
            }
            self.results.push(result);
            let mut held: Vec<usize> = held.iter().flat_map(|held| held.iter().copied()).collect();
            held.sort_unstable();
            self.anchored.push(held);
        }

        fn release(&mut self, held: Vec<usize>) {
            self.released.extend(held);
        }

        fn fail(&mut self, held: Vec<usize>, fault: Fault) {
            self.failed.extend(held.into_iter().map(|tuple| (tuple, fault.reason().to_owned())));
        }
    }
}
