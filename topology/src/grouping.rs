//! How tuples of a stream are distributed over the tasks of a subscriber.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::lineage::{AckToken, Lineage, ShareRng, Span, Tokens};
use crate::outputs::{Data, copies};
use crate::runtime::{EdgeBatch, OutgoingBatch, Route, RouteSetup, Staged};
use crate::stable_hasher::{StableHasher, reduce};

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

/// The tasks of a subscriber, with a batch being filled for each.
struct Targets<T> {
    setup: RouteSetup,
    parts: Vec<EdgeBatch<T>>,
    /// By task: the last run of tuples that share a root of which it got one.
    runs: Vec<u64>,
    run: u64,
}

impl<T: Data> Targets<T> {
    fn new(setup: RouteSetup) -> Self {
        let parts = setup.targets.iter().map(|_| EdgeBatch::default()).collect();
        let runs = vec![0; setup.targets.len()];
        Self { setup, parts, runs, run: 0 }
    }

    fn len(&self) -> usize {
        self.parts.len()
    }

    fn batch(&self) -> usize {
        self.setup.batch.load(Ordering::Relaxed).max(1)
    }

    #[inline]
    fn push(&mut self, task: usize, value: T, token: AckToken, batch: usize, into: &mut Staged) {
        let part = &mut self.parts[task];
        part.values.push(value);
        part.lineage.push(token);
        if part.values.len() >= batch {
            self.send(task, into);
        }
    }

    #[inline(never)]
    fn send(&mut self, task: usize, into: &mut Staged) {
        let part = &mut self.parts[task];
        if part.values.is_empty() {
            return;
        }
        let rows = part.values.len() as u32;
        let mut tuples: Box<EdgeBatch<T>> = self.setup.pool.take();
        std::mem::swap(&mut *tuples, part);
        // What comes next has no run to go on with.
        self.runs[task] = 0;
        into.transferred += u64::from(rows);
        into.batches.push(OutgoingBatch { target: self.setup.targets[task], tuples, rows });
    }

    /// Sends all rows to one task, as they are if they fit in a batch.
    fn push_all(&mut self, task: usize, values: &mut Vec<T>, lineage: &mut Lineage, into: &mut Staged) {
        let batch = self.batch();
        if values.len() <= batch.max(2) * 2 {
            self.send(task, into);
            std::mem::swap(&mut self.parts[task].values, values);
            std::mem::swap(&mut self.parts[task].lineage, lineage);
            self.send(task, into);
        } else {
            for (value, token) in values.drain(..).zip(lineage.drain()) {
                self.push(task, value, token, batch, into);
            }
            self.send(task, into);
        }
    }

    /// Deals the rows out, each to the task chosen for it. Of a share that several rows hold together, each task gets
    /// one part for all that it gets of them.
    fn distribute(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        chosen: &[u32],
        shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        let batch = self.batch();
        let mut rows = values.drain(..).zip(chosen);
        for span in lineage.drain_spans() {
            match span {
                Span::Share(root, mut rest, count) => {
                    self.run += 1;
                    for (left, (value, &task)) in (0..count).rev().zip(rows.by_ref()) {
                        let task = task as usize;
                        // What is left over goes with the last row.
                        let known = self.runs[task] == self.run;
                        let share = match (left, known) {
                            (0, _) => rest,
                            (_, true) => 0,
                            (_, false) => shares.word(),
                        };
                        rest ^= share;
                        self.runs[task] = self.run;
                        let part = &mut self.parts[task];
                        part.values.push(value);
                        part.lineage.push_share(root, share, 1);
                        if part.values.len() >= batch {
                            self.send(task, into);
                        }
                    }
                }
                Span::Untracked(count) => {
                    for (value, &task) in rows.by_ref().take(count as usize) {
                        self.push(task as usize, value, AckToken::Untracked, batch, into);
                    }
                }
                Span::Whole(first, count) => {
                    for (at, (value, &task)) in (0..count).zip(rows.by_ref()) {
                        self.push(task as usize, value, AckToken::Whole(first.plus(at)), batch, into);
                    }
                }
                Span::Multi(list) => {
                    if let Some((value, &task)) = rows.next() {
                        self.push(task as usize, value, AckToken::Multi(list), batch, into);
                    }
                }
            }
        }
    }

    fn flush(&mut self, into: &mut Staged) {
        for task in 0..self.parts.len() {
            self.send(task, into);
        }
    }
}

/// Chooses a task for each row of a batch. Rows for which that panics are lost, and leave the batch.
#[inline]
fn choose<T>(
    values: &mut Vec<T>,
    lineage: &mut Lineage,
    chosen: &mut Vec<u32>,
    into: &mut Staged,
    mut task: impl FnMut(&T) -> usize,
) {
    chosen.clear();
    // One catch for the batch, and nothing for a row.
    while let Err(panic) = catch_unwind(AssertUnwindSafe(|| {
        chosen.extend(values[chosen.len()..].iter().map(|value| task(value) as u32));
    })) {
        let at = chosen.len();
        into.lose(lineage.remove(at), &*panic);
        let value = values.remove(at);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(move || drop(value))) {
            into.note(&*panic);
        }
    }
}

/// Distributes the rows of a batch one by one.
///
/// `give` runs the author's code before it takes the row's token. So if that code panics, the token is
/// still there to be failed, and the rows after it go on; that takes one catch for the batch and nothing for
/// a row.
#[inline]
fn each_row<T>(
    values: &mut Vec<T>,
    lineage: &mut Lineage,
    into: &mut Staged,
    mut give: impl FnMut(T, &mut Tokens<'_>, &mut Staged),
) {
    let mut rows = values.drain(..);
    let mut tokens = lineage.drain();
    while let Err(panic) = catch_unwind(AssertUnwindSafe(|| {
        for value in rows.by_ref() {
            give(value, &mut tokens, into);
        }
    })) {
        into.lose(tokens.next().unwrap_or_default(), &*panic);
    }
}

/// Whole batches in turn, each to the task that has had the fewest rows, past those that lag.
pub(crate) struct Shuffle<T> {
    targets: Targets<T>,
    sent: Vec<u64>,
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
        Self { sent: vec![0; n], at: setup.offset % n.max(1), targets: Targets::new(setup), lagging: None }
    }

    fn choose(&mut self, rows: u64) -> usize {
        let n = self.sent.len();
        if n == 1 {
            return 0;
        }
        // The fewest rows so far, starting after the last one chosen so that ties go round.
        let mut best = (self.at + 1) % n;
        for step in 2..=n {
            let other = (self.at + step) % n;
            if self.sent[other] < self.sent[best] {
                best = other;
            }
        }
        self.sent[best] += rows;
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
        _shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        let batch = self.targets.batch();
        if self.sent.len() == 1 || values.len() <= batch {
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
            for (value, token) in rows.by_ref().take(now) {
                self.targets.push(task, value, token, usize::MAX, into);
            }
            self.targets.send(task, into);
            left -= now;
        }
    }

    fn flush(&mut self, _into: &mut Staged) {}
}

/// By key.
pub(crate) struct Fields<T, F> {
    targets: Targets<T>,
    key: F,
    chosen: Vec<u32>,
}

impl<T: Data, F> Fields<T, F> {
    pub(crate) fn new(setup: RouteSetup, key: F) -> Self {
        Self { targets: Targets::new(setup), key, chosen: Vec::new() }
    }
}

impl<T: Data, F: Fn(&T) -> u64 + Send> Route<T> for Fields<T, F> {
    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        let n = self.targets.len();
        if n == 1 {
            self.targets.push_all(0, values, lineage, into);
            return;
        }
        let Self { targets, key, chosen } = self;
        choose(values, lineage, chosen, into, |value| reduce(key(value), n));
        targets.distribute(values, lineage, chosen, shares, into);
    }

    fn flush(&mut self, into: &mut Staged) {
        self.targets.flush(into);
    }
}

/// By key to one of two (Nasir et al., "The Power of Both Choices", ICDE 2015): each sender knows what it
/// has sent to each task itself, which suffices for balance.
pub(crate) struct PartialKey<T, F> {
    targets: Targets<T>,
    key: F,
    sent: Vec<u64>,
    chosen: Vec<u32>,
}

impl<T: Data, F> PartialKey<T, F> {
    pub(crate) fn new(setup: RouteSetup, key: F) -> Self {
        let sent = vec![0; setup.targets.len()];
        Self { targets: Targets::new(setup), key, sent, chosen: Vec::new() }
    }
}

impl<T: Data, F: Fn(&T) -> u64 + Send> Route<T> for PartialKey<T, F> {
    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        let n = self.targets.len();
        let Self { targets, key, sent, chosen } = self;
        choose(values, lineage, chosen, into, |value| {
            let hash = key(value);
            let first = reduce(hash, n);
            let mut second = reduce(StableHasher::hash(&hash), n);
            if second == first {
                second = (first + 1) % n;
            }
            let task = if sent[second] < sent[first] { second } else { first };
            sent[task] += 1;
            task
        });
        targets.distribute(values, lineage, chosen, shares, into);
    }

    fn flush(&mut self, into: &mut Staged) {
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
        shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        for task in 1..self.targets.len() {
            let mut copied = copies(values, lineage, &mut Vec::new(), into);
            if values.is_empty() {
                return;
            }
            let mut copy = lineage.split(shares);
            self.targets.push_all(task, &mut copied, &mut copy, into);
        }
        self.targets.push_all(0, values, lineage, into);
    }

    fn flush(&mut self, _into: &mut Staged) {}
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
        _shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        self.targets.push_all(0, values, lineage, into);
    }

    fn flush(&mut self, _into: &mut Staged) {}
}

/// To the task that the emitter named.
pub(crate) struct DirectRoute<T> {
    targets: Targets<T>,
}

impl<T: Data> DirectRoute<T> {
    pub(crate) fn new(setup: RouteSetup) -> Self {
        Self { targets: Targets::new(setup) }
    }
}

impl<T: Data> Route<T> for DirectRoute<T> {
    fn is_direct(&self) -> bool {
        true
    }

    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        tasks: &[usize],
        _shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        let (n, batch) = (self.targets.len(), self.targets.batch());
        for ((value, token), task) in values.drain(..).zip(lineage.drain()).zip(tasks) {
            self.targets.push(task % n, value, token, batch, into);
        }
    }

    fn flush(&mut self, into: &mut Staged) {
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
        shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        let (n, batch) = (self.targets.len(), self.targets.batch());
        let Self { targets, grouping, chosen, copies } = self;
        each_row(values, lineage, into, |value, tokens, into| {
            chosen.clear();
            // A copy that panicked leaves those made before it.
            copies.clear();
            grouping.choose(&value, n, chosen);
            let Some((&last, rest)) = chosen.split_last() else {
                drop(value);
                into.acked.push_settled(tokens.next().unwrap_or_default());
                return;
            };
            copies.extend(rest.iter().map(|_| value.clone()));
            let mut token = tokens.next().unwrap_or_default();
            for (&task, copy) in rest.iter().zip(copies.drain(..)) {
                targets.push(task % n, copy, token.split(shares), batch, into);
            }
            targets.push(last % n, value, token, batch, into);
        });
    }

    fn flush(&mut self, into: &mut Staged) {
        self.targets.flush(into);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::context::Clock;
    use crate::lineage::RootId;
    use crate::runtime::{BatchPool, BoxFuture, Loads};

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Duration {
            Duration::ZERO
        }

        fn sleep_until(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn what_rows_hold_together_is_dealt_to_the_tasks_that_get_them() {
        let setup = |batch| RouteSetup {
            targets: vec![0, 1, 2],
            loads: Loads::new(3),
            pool: BatchPool::default(),
            batch: Arc::new(AtomicUsize::new(batch)),
            full_at: 100,
            clock: Arc::new(Still),
            offset: 0,
        };
        let root = |n| RootId::new(0, n);
        let mut shares = ShareRng::new(7);
        for batch in [1, 2, 3, 5, 1_000] {
            let mut route = Fields::new(setup(batch), |n: &u64| StableHasher::hash(n));
            let mut into = Staged::default();
            let mut held: BTreeMap<RootId, u64> = BTreeMap::new();
            for round in 0..40 {
                // Rows of few roots, in runs of one to nine, and some that nobody waits for.
                let (mut values, mut lineage) = (Vec::new(), Lineage::new());
                for run in 0..12_u64 {
                    let (of, rows, share) =
                        (root((run * run + round) % 5), 1 + (run * 7 + round) % 9, shares.word());
                    if run % 5 == 4 {
                        lineage.push_untracked(rows as u32);
                    } else {
                        lineage.push_share(of, share, rows as u32);
                        *held.entry(of).or_default() ^= share;
                    }
                    values.extend((0..rows).map(|n| round * 1_000 + run * 10 + n));
                }
                route.route(&mut values, &mut lineage, &[], &mut shares, &mut into);
            }
            route.flush(&mut into);
            for batch in into.batches {
                let tuples = batch.tuples.downcast::<EdgeBatch<u64>>().expect("a tuples of numbers");
                assert_eq!(
                    (tuples.values.len(), tuples.lineage.rows()),
                    (batch.rows as usize, batch.rows as usize)
                );
                assert!(
                    tuples.values.iter().all(|n| reduce(StableHasher::hash(n), 3) == batch.target as usize)
                );
                for span in tuples.lineage.spans() {
                    if let Span::Share(root, share, _) = span {
                        assert_ne!(*share, 0, "who holds nothing is not waited for");
                        *held.entry(*root).or_default() ^= share;
                    }
                }
            }
            assert!(held.values().all(|left| *left == 0), "batches of {batch}: all is dealt, and no more");
        }
    }
}
