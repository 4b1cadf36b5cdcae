//! How tuples of a stream are distributed over the tasks of a subscriber.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::failure::Fault;
use crate::lineage::{AckToken, Lineage, ShareRng, Span, Tokens};
use crate::outputs::{Data, copies};
use crate::runtime::{Content, EdgeBatch, OutgoingBatch, Route, RouteSetup, Staged};
use crate::stable_hasher::{StableHasher, reduce};
use crate::watermark::Watermark;

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

/// A batch of tuples that weigh this much is large enough, however few they are.
const BATCH_BYTES: usize = 1 << 20;

/// What a tuple weighs, in bytes, as a user says.
pub(crate) type Weigh<T> = Arc<dyn Fn(&T) -> usize + Send + Sync>;

/// The tasks of a subscriber, with a batch being filled for each.
struct Targets<T> {
    setup: RouteSetup,
    parts: Vec<EdgeBatch<T>>,
    /// What a tuple weighs, if not what its type has in itself.
    weigh: Option<Weigh<T>>,
    /// By task: what the part being filled weighs, if `weigh` says.
    bytes: Vec<usize>,
    /// The most rows that [`BATCH_BYTES`] have room for.
    most_rows: usize,
    /// By task: the last run of tuples that share a root of which it got one.
    runs: Vec<u64>,
    run: u64,
}

impl<T: Data> Targets<T> {
    fn new(mut setup: RouteSetup) -> Self {
        let parts = setup.targets.iter().map(|_| EdgeBatch::default()).collect();
        let tasks = setup.targets.len();
        let weigh = setup.weigh.take().and_then(|weigh| weigh.downcast_ref::<Weigh<T>>().cloned());
        let most_rows = (BATCH_BYTES / size_of::<T>().max(1)).max(1);
        Self { setup, parts, weigh, bytes: vec![0; tasks], most_rows, runs: vec![0; tasks], run: 0 }
    }

    fn len(&self) -> usize {
        self.parts.len()
    }

    fn batch(&self) -> usize {
        self.setup.batch.load(Ordering::Relaxed).clamp(1, self.most_rows)
    }

    /// Appends rows to the batch of a task, and sends it when it is large enough.
    #[inline]
    fn push(&mut self, task: usize, value: T, token: AckToken, batch: usize, into: &mut Staged) {
        if self.weigh.is_some() {
            self.weigh(task, &value);
        }
        let part = &mut self.parts[task];
        part.values.push(value);
        part.lineage.push(token);
        if part.values.len() >= batch {
            self.send(task, into);
        } else if self.weigh.is_some() {
            self.send_if_heavy(task, into);
        }
    }

    #[cold]
    fn weigh(&mut self, task: usize, value: &T) {
        if let Some(weigh) = &self.weigh {
            // A weight is only for bounds: one that panics counts as what the type has in itself.
            let weighed = catch_unwind(AssertUnwindSafe(|| weigh(value)));
            self.bytes[task] = self.bytes[task].saturating_add(weighed.unwrap_or(size_of::<T>()));
        }
    }

    #[cold]
    fn send_if_heavy(&mut self, task: usize, into: &mut Staged) {
        if self.bytes[task] >= BATCH_BYTES {
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
        let bytes = match &self.weigh {
            Some(_) => std::mem::take(&mut self.bytes[task]),
            None => part.values.len() * size_of::<T>(),
        };
        let mut tuples: Box<EdgeBatch<T>> = self.setup.pool.take();
        std::mem::swap(&mut *tuples, part);
        // What comes next has no run to go on with.
        self.runs[task] = 0;
        into.transferred += u64::from(rows);
        let (target, sender) = (self.setup.targets[task], self.setup.sender);
        let content = Content::Rows(tuples);
        into.batches.push(OutgoingBatch { target, sender, content, rows, bytes });
    }

    /// Sends all rows to one task, as they are if they fit in a batch.
    fn push_all(&mut self, task: usize, values: &mut Vec<T>, lineage: &mut Lineage, into: &mut Staged) {
        let batch = self.batch();
        if values.len() <= batch.max(2) * 2 && self.weigh.is_none() {
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
        let weighs = self.weigh.is_some();
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
                        if weighs {
                            self.weigh(task, &value);
                        }
                        let part = &mut self.parts[task];
                        part.values.push(value);
                        part.lineage.push_share(root, share, 1);
                        if part.values.len() >= batch {
                            self.send(task, into);
                        } else if weighs {
                            self.send_if_heavy(task, into);
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

    /// Sends a watermark to all tasks, behind their rows.
    fn send_watermark(&mut self, watermark: Watermark, into: &mut Staged) {
        if !self.setup.watermarks {
            return;
        }
        self.flush(into);
        let sender = self.setup.sender;
        let to_task = |&target| {
            let content = Content::Watermark(watermark);
            OutgoingBatch { target, sender, content, rows: 0, bytes: 0 }
        };
        into.batches.extend(self.setup.targets.iter().map(to_task));
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

/// A few rows in turn to each task, past those that lag.
pub(crate) struct Shuffle<T> {
    targets: Targets<T>,
    /// The task whose turn it is, how many rows it still gets, and to which task these go.
    at: usize,
    left: usize,
    to: usize,
    // The task that is full while another has nothing to do, and since when.
    lagging: Option<(usize, Duration)>,
}

/// How long a task must have been full beside an idle one before shuffling goes past it. Shorter, and a
/// passing hiccup of the machine would unbalance what is even over time.
const LAG: Duration = Duration::from_millis(100);
/// Rows given to all tasks together in a round. So few that over 10,000 rows no task has 1 % more than its share, and so many
/// that rows stay together where there are few tasks.
const ROUND: usize = 64;

impl<T: Data> Shuffle<T> {
    pub(crate) fn new(setup: RouteSetup) -> Self {
        let n = setup.targets.len().max(1);
        let at = setup.offset % n;
        Self { at, left: 0, to: at, targets: Targets::new(setup), lagging: None }
    }

    /// Starts the turn of the next task.
    fn next_turn(&mut self, batch: usize) {
        let n = self.targets.len();
        self.at = (self.at + 1) % n;
        self.left = if self.targets.setup.by_row { 1 } else { (ROUND / n).clamp(1, batch) };
        self.to = self.choose(self.at);
    }

    /// The task that gets what is due to `next`.
    fn choose(&mut self, next: usize) -> usize {
        let setup = &self.targets.setup;
        if setup.loads.of(next) < setup.full_at {
            if self.lagging.is_some_and(|(task, _)| task == next) {
                self.lagging = None;
            }
            return next;
        }
        let Some(idle) = (0..self.targets.len()).find(|&task| setup.loads.of(task) == 0) else {
            self.lagging = None;
            return next;
        };
        let now = setup.clock.now();
        match self.lagging {
            // The laggard's turn counts as taken, or it would be flooded as soon as it moves again.
            Some((task, since)) if task == next && now.saturating_sub(since) >= LAG => idle,
            Some((task, _)) if task == next => next,
            _ => {
                self.lagging = Some((next, now));
                next
            }
        }
    }

    /// Deals out so many rows that follow one another. `tokens` appends what so many of them hold.
    #[inline]
    fn deal(
        &mut self,
        mut rows: u32,
        limit: usize,
        values: &mut std::vec::Drain<'_, T>,
        into: &mut Staged,
        mut tokens: impl FnMut(&mut Lineage, u32),
    ) {
        while rows > 0 {
            if self.left == 0 {
                self.next_turn(limit);
            }
            let now = rows.min(self.left as u32);
            let to = self.to;
            if self.targets.weigh.is_some() {
                let upcoming = &values.as_slice()[..now as usize];
                upcoming.iter().for_each(|value| self.targets.weigh(to, value));
            }
            let part = &mut self.targets.parts[to];
            part.values.extend(values.by_ref().take(now as usize));
            tokens(&mut part.lineage, now);
            if part.values.len() >= limit {
                self.targets.send(to, into);
            } else if self.targets.weigh.is_some() {
                self.targets.send_if_heavy(to, into);
            }
            self.left -= now as usize;
            rows -= now;
        }
    }
}

impl<T: Data> Route<T> for Shuffle<T> {
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
        // With many tasks, waiting until each has a full batch would hold back many times what one batch has.
        let limit = (self.targets.batch() * 4 / n).clamp(1, self.targets.batch());
        let mut rows = values.drain(..);
        for span in lineage.drain_spans() {
            match span {
                Span::Untracked(count) => {
                    self.deal(count, limit, &mut rows, into, |lineage, now| lineage.push_untracked(now));
                }
                Span::Whole(first, count) => {
                    let mut at = 0;
                    self.deal(count, limit, &mut rows, into, |lineage, now| {
                        lineage.push_whole(first.plus(at), now);
                        at += now;
                    });
                }
                Span::Share(root, mut rest, count) => {
                    let mut left = count;
                    self.deal(count, limit, &mut rows, into, |lineage, now| {
                        left -= now;
                        // What is left over goes with the last.
                        let share = if left == 0 { rest } else { shares.word() };
                        rest ^= share;
                        lineage.push_share(root, share, now);
                    });
                }
                Span::Multi(list) => {
                    let mut list = Some(list);
                    self.deal(1, limit, &mut rows, into, |lineage, _| {
                        lineage.push(list.take().map_or(AckToken::Untracked, AckToken::Multi));
                    });
                }
            }
        }
    }

    fn flush(&mut self, into: &mut Staged) {
        self.targets.flush(into);
    }

    fn watermark(&mut self, watermark: Watermark, into: &mut Staged) {
        self.targets.send_watermark(watermark, into);
    }
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

    fn watermark(&mut self, watermark: Watermark, into: &mut Staged) {
        self.targets.send_watermark(watermark, into);
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

    fn watermark(&mut self, watermark: Watermark, into: &mut Staged) {
        self.targets.send_watermark(watermark, into);
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

    fn watermark(&mut self, watermark: Watermark, into: &mut Staged) {
        self.targets.send_watermark(watermark, into);
    }
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

    fn watermark(&mut self, watermark: Watermark, into: &mut Staged) {
        self.targets.send_watermark(watermark, into);
    }
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
            if *task < n {
                self.targets.push(*task, value, token, batch, into);
            } else {
                let subscriber = &self.targets.setup.subscriber;
                let fault = format!("emitted to task {task} of `{subscriber}`, which has {n} tasks (from 0)");
                into.reject(token, Fault::permanent(fault));
            }
        }
    }

    fn flush(&mut self, into: &mut Staged) {
        self.targets.flush(into);
    }

    fn watermark(&mut self, watermark: Watermark, into: &mut Staged) {
        self.targets.send_watermark(watermark, into);
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

    fn watermark(&mut self, watermark: Watermark, into: &mut Staged) {
        self.targets.send_watermark(watermark, into);
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
            sender: 0,
            subscriber: "fields".into(),
            by_row: false,
            watermarks: false,
            weigh: None,
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
                let Content::Rows(rows) = batch.content else { panic!("nobody sends watermarks") };
                let tuples = rows.downcast::<EdgeBatch<u64>>().expect("tuples of numbers");
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
