//! How tuples of a stream are distributed over the tasks of a subscriber.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::lineage::{Holding, Lineage, Rows, Shares};
use crate::outputs::{Data, copies};
use crate::runtime::{Parcel, Route, RouteSetup, Shipment, Shipments};

/// The kinds of grouping, as declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grouping {
    /// Evenly over the tasks, less to those that lag.
    Shuffle,
    /// By a key: equal keys to the same task, always.
    Fields,
    /// By a key, to the less loaded of the two tasks that the key may go to.
    PartialKey,
    /// A copy to every task.
    All,
    /// Everything to the task with index 0.
    Global,
    /// To a task in the same executor if there is one, else as shuffle.
    LocalOrShuffle,
    /// To the task that the emitter names.
    Direct,
    /// To the tasks that the author's own code chooses.
    Custom,
}

impl Grouping {
    /// The name, as printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shuffle => "shuffle",
            Self::Fields => "fields",
            Self::PartialKey => "partial key",
            Self::All => "all",
            Self::Global => "global",
            Self::LocalOrShuffle => "local or shuffle",
            Self::Direct => "direct",
            Self::Custom => "custom",
        }
    }
}

impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A grouping of the author's own.
///
/// Closures `FnMut(&T, usize, &mut Vec<usize>)` are such groupings.
pub trait CustomGrouping<T>: Send + 'static {
    /// Pushes onto `chosen` (which is empty) the indexes of the tasks that get a copy of `value`, out of
    /// `tasks` tasks. An index beyond the last task counts from the first again; none at all means that
    /// the tuple goes nowhere and is done. If it panics, the tuple fails and the same grouping is asked
    /// again for the next.
    fn choose(&mut self, value: &T, tasks: usize, chosen: &mut Vec<usize>);
}

impl<T, F: FnMut(&T, usize, &mut Vec<usize>) + Send + 'static> CustomGrouping<T> for F {
    fn choose(&mut self, value: &T, tasks: usize, chosen: &mut Vec<usize>) {
        self(value, tasks, chosen);
    }
}

/// FNV-1a with a final mix: the same on every machine and in every run, so that a key keeps its task.
#[derive(Debug, Clone, Copy)]
pub struct StableHasher(u64);

impl StableHasher {
    /// A fresh hasher.
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// The hash of a key.
    #[inline]
    pub fn hash<K: Hash + ?Sized>(key: &K) -> u64 {
        let mut hasher = Self::new();
        key.hash(&mut hasher);
        hasher.finish()
    }

    #[inline]
    fn word(&mut self, word: u64) {
        // Multiply and fold: eight bytes at a time, where FNV-1a takes one.
        let wide = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }
}

impl Default for StableHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher for StableHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in chunks.by_ref() {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(word));
        }
        self.word(bytes.len() as u64);
    }

    #[inline]
    fn write_u8(&mut self, n: u8) {
        self.word(u64::from(n));
    }
    #[inline]
    fn write_u16(&mut self, n: u16) {
        self.word(u64::from(n));
    }
    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.word(u64::from(n));
    }
    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }
    #[inline]
    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        let mut z = self.0;
        z = (z ^ (z >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        z = (z ^ (z >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        z ^ (z >> 33)
    }
}

/// Maps a hash to one of `n` by multiplication (Lemire 2016), cheaper than a division.
#[inline]
fn reduce(hash: u64, n: usize) -> usize {
    ((u128::from(hash) * n as u128) >> 64) as usize
}

/// The tasks of a subscriber, with a batch being filled for each.
struct Targets<T> {
    setup: RouteSetup,
    parts: Vec<Option<Box<Parcel<T>>>>,
}

impl<T: Data> Targets<T> {
    fn new(setup: RouteSetup) -> Self {
        let parts = setup.targets.iter().map(|_| None).collect();
        Self { setup, parts }
    }

    fn len(&self) -> usize {
        self.parts.len()
    }

    fn batch(&self) -> usize {
        self.setup.batch.load(Ordering::Relaxed).max(1)
    }

    #[inline]
    fn push(&mut self, task: usize, value: T, holding: Holding, batch: usize, into: &mut Shipments) {
        let part = match &mut self.parts[task] {
            Some(part) => part,
            empty => empty.insert(self.setup.pool.take()),
        };
        part.values.push(value);
        part.lineage.push(holding);
        if part.values.len() >= batch {
            self.send(task, into);
        }
    }

    #[inline(never)]
    fn send(&mut self, task: usize, into: &mut Shipments) {
        if let Some(parcel) = self.parts[task].take() {
            let rows = parcel.values.len() as u32;
            into.transferred += u64::from(rows);
            into.ready.push(Shipment { target: self.setup.targets[task], parcel, rows });
        }
    }

    /// Sends all rows to one task, as they are if they fit in a batch.
    fn push_all(&mut self, task: usize, values: &mut Vec<T>, lineage: &mut Lineage, into: &mut Shipments) {
        let batch = self.batch();
        if values.len() <= batch.max(2) * 2 {
            self.send(task, into);
            let mut parcel: Box<Parcel<T>> = self.setup.pool.take();
            std::mem::swap(&mut parcel.values, values);
            std::mem::swap(&mut parcel.lineage, lineage);
            self.parts[task] = Some(parcel);
            self.send(task, into);
        } else {
            for (value, holding) in values.drain(..).zip(lineage.drain()) {
                self.push(task, value, holding, batch, into);
            }
            self.send(task, into);
        }
    }

    fn flush(&mut self, into: &mut Shipments) {
        for task in 0..self.parts.len() {
            self.send(task, into);
        }
    }
}

/// Distributes the rows of a batch one by one.
///
/// `give` runs the author's code before it takes the row's holding. So if that code panics, the holding is
/// still there to be failed, and the rows after it go on; that takes one catch for the batch and nothing for
/// a row.
#[inline]
fn each_row<T>(
    values: &mut Vec<T>,
    lineage: &mut Lineage,
    into: &mut Shipments,
    mut give: impl FnMut(T, &mut Rows<'_>, &mut Shipments),
) {
    let mut rows = values.drain(..);
    let mut holdings = lineage.drain();
    while let Err(panic) = catch_unwind(AssertUnwindSafe(|| {
        for value in rows.by_ref() {
            give(value, &mut holdings, into);
        }
    })) {
        into.lose(holdings.next().unwrap_or_default(), &*panic);
    }
}

/// Whole batches in turn, each to the task that has had the fewest rows, past those that lag.
pub(crate) struct Shuffle<T> {
    targets: Targets<T>,
    given: Vec<u64>,
    at: usize,
    // The task that is full while another has nothing to do, and since when.
    lagging: Option<(usize, Duration)>,
}

/// How long a task must have been full beside an idle one before shuffling goes past it. Shorter, and a
/// passing hiccup of the machine would unbalance what is even over time.
const LAG: Duration = Duration::from_millis(100);

impl<T: Data> Shuffle<T> {
    pub(crate) fn new(setup: RouteSetup) -> Self {
        let n = setup.targets.len();
        Self { given: vec![0; n], at: setup.offset % n.max(1), targets: Targets::new(setup), lagging: None }
    }

    fn choose(&mut self, rows: u64) -> usize {
        let n = self.given.len();
        if n == 1 {
            return 0;
        }
        // The fewest rows so far, starting after the last one chosen so that ties go round.
        let mut best = (self.at + 1) % n;
        for step in 2..=n {
            let other = (self.at + step) % n;
            if self.given[other] < self.given[best] {
                best = other;
            }
        }
        self.given[best] += rows;
        self.at = best;
        let setup = &self.targets.setup;
        if setup.loads.of(best) < setup.full_at {
            if self.lagging.is_some_and(|(task, _)| task == best) {
                self.lagging = None;
            }
            return best;
        }
        let Some(idle) = (0..n).find(|&task| setup.loads.of(task) == 0) else {
            self.lagging = None;
            return best;
        };
        let now = setup.clock.now();
        match self.lagging {
            // The laggard's turn counts as taken, or it would be flooded as soon as it moves again.
            Some((task, since)) if task == best && now.saturating_sub(since) >= LAG => idle,
            Some((task, _)) if task == best => best,
            _ => {
                self.lagging = Some((best, now));
                best
            }
        }
    }
}

impl<T: Data> Route<T> for Shuffle<T> {
    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        _shares: &mut Shares,
        into: &mut Shipments,
    ) {
        let batch = self.targets.batch();
        if self.given.len() == 1 || values.len() <= batch {
            let task = self.choose(values.len() as u64);
            self.targets.push_all(task, values, lineage, into);
            return;
        }
        // More than a batch: it is dealt out, or one task would get all of a large fan-out.
        let mut left = values.len();
        let mut rows = values.drain(..).zip(lineage.drain());
        while left > 0 {
            let now = left.min(batch);
            let task = self.choose(now as u64);
            for (value, holding) in rows.by_ref().take(now) {
                self.targets.push(task, value, holding, usize::MAX, into);
            }
            self.targets.send(task, into);
            left -= now;
        }
    }

    fn flush(&mut self, _into: &mut Shipments) {}
}

/// By key.
pub(crate) struct Fields<T, F> {
    targets: Targets<T>,
    key: F,
}

impl<T: Data, F> Fields<T, F> {
    pub(crate) fn new(setup: RouteSetup, key: F) -> Self {
        Self { targets: Targets::new(setup), key }
    }
}

impl<T: Data, F: Fn(&T) -> u64 + Send> Route<T> for Fields<T, F> {
    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        _shares: &mut Shares,
        into: &mut Shipments,
    ) {
        let n = self.targets.len();
        if n == 1 {
            self.targets.push_all(0, values, lineage, into);
            return;
        }
        let batch = self.targets.batch();
        let Self { targets, key } = self;
        each_row(values, lineage, into, |value, holdings, into| {
            let task = reduce(key(&value), n);
            targets.push(task, value, holdings.next().unwrap_or_default(), batch, into);
        });
    }

    fn flush(&mut self, into: &mut Shipments) {
        self.targets.flush(into);
    }
}

/// By key to one of two (Nasir et al., "The Power of Both Choices", ICDE 2015): each sender knows what it
/// has sent to each task itself, which suffices for balance.
pub(crate) struct PartialKey<T, F> {
    targets: Targets<T>,
    key: F,
    given: Vec<u64>,
}

impl<T: Data, F> PartialKey<T, F> {
    pub(crate) fn new(setup: RouteSetup, key: F) -> Self {
        Self { given: vec![0; setup.targets.len()], targets: Targets::new(setup), key }
    }
}

impl<T: Data, F: Fn(&T) -> u64 + Send> Route<T> for PartialKey<T, F> {
    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        _shares: &mut Shares,
        into: &mut Shipments,
    ) {
        let n = self.targets.len();
        let batch = self.targets.batch();
        let Self { targets, key, given } = self;
        each_row(values, lineage, into, |value, holdings, into| {
            let hash = key(&value);
            let first = reduce(hash, n);
            let mut second = reduce(StableHasher::hash(&hash), n);
            if second == first {
                second = (first + 1) % n;
            }
            let task = if given[second] < given[first] { second } else { first };
            given[task] += 1;
            targets.push(task, value, holdings.next().unwrap_or_default(), batch, into);
        });
    }

    fn flush(&mut self, into: &mut Shipments) {
        self.targets.flush(into);
    }
}

/// A copy to every task.
pub(crate) struct All<T> {
    targets: Targets<T>,
}

impl<T: Data> All<T> {
    pub(crate) fn new(setup: RouteSetup) -> Self {
        Self { targets: Targets::new(setup) }
    }
}

impl<T: Data> Route<T> for All<T> {
    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        shares: &mut Shares,
        into: &mut Shipments,
    ) {
        for task in 1..self.targets.len() {
            let mut copied = copies(values, lineage, &mut Vec::new(), into);
            if values.is_empty() {
                return;
            }
            let mut copy = lineage.divide(shares);
            self.targets.push_all(task, &mut copied, &mut copy, into);
        }
        self.targets.push_all(0, values, lineage, into);
    }

    fn flush(&mut self, _into: &mut Shipments) {}
}

/// Everything to task 0.
pub(crate) struct Global<T> {
    targets: Targets<T>,
}

impl<T: Data> Global<T> {
    pub(crate) fn new(setup: RouteSetup) -> Self {
        Self { targets: Targets::new(setup) }
    }
}

impl<T: Data> Route<T> for Global<T> {
    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        _shares: &mut Shares,
        into: &mut Shipments,
    ) {
        self.targets.push_all(0, values, lineage, into);
    }

    fn flush(&mut self, _into: &mut Shipments) {}
}

/// To the task that the emitter named.
pub(crate) struct ByTask<T> {
    targets: Targets<T>,
}

impl<T: Data> ByTask<T> {
    pub(crate) fn new(setup: RouteSetup) -> Self {
        Self { targets: Targets::new(setup) }
    }
}

impl<T: Data> Route<T> for ByTask<T> {
    fn is_direct(&self) -> bool {
        true
    }

    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        tasks: &[usize],
        _shares: &mut Shares,
        into: &mut Shipments,
    ) {
        let (n, batch) = (self.targets.len(), self.targets.batch());
        for ((value, holding), task) in values.drain(..).zip(lineage.drain()).zip(tasks) {
            self.targets.push(task % n, value, holding, batch, into);
        }
    }

    fn flush(&mut self, into: &mut Shipments) {
        self.targets.flush(into);
    }
}

/// To the tasks that the author's code chooses.
pub(crate) struct Custom<T, G> {
    targets: Targets<T>,
    grouping: G,
    chosen: Vec<usize>,
    copies: Vec<T>,
}

impl<T: Data, G> Custom<T, G> {
    pub(crate) fn new(setup: RouteSetup, grouping: G) -> Self {
        Self { targets: Targets::new(setup), grouping, chosen: Vec::new(), copies: Vec::new() }
    }
}

impl<T: Data, G: CustomGrouping<T>> Route<T> for Custom<T, G> {
    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        shares: &mut Shares,
        into: &mut Shipments,
    ) {
        let (n, batch) = (self.targets.len(), self.targets.batch());
        let Self { targets, grouping, chosen, copies } = self;
        each_row(values, lineage, into, |value, holdings, into| {
            chosen.clear();
            // A copy that panicked leaves those made before it.
            copies.clear();
            grouping.choose(&value, n, chosen);
            let Some((&last, rest)) = chosen.split_last() else {
                drop(value);
                into.acked.push_settled(holdings.next().unwrap_or_default());
                return;
            };
            copies.extend(rest.iter().map(|_| value.clone()));
            let mut holding = holdings.next().unwrap_or_default();
            for (&task, copy) in rest.iter().zip(copies.drain(..)) {
                targets.push(task % n, copy, holding.divide(shares), batch, into);
            }
            targets.push(last % n, value, holding, batch, into);
        });
    }

    fn flush(&mut self, into: &mut Shipments) {
        self.targets.flush(into);
    }
}
