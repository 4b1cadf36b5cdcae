//! The tasks of one subscription, and the batches that are being filled for them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use super::Weigh;
use crate::lineage::{AckToken, Lineage, ShareRng, Span, Tokens};
use crate::outputs::Data;
use crate::runtime::{Content, EdgeBatch, OutgoingBatch, RouteSetup, Signal, Staged};

/// A batch of tuples that weigh this much is large enough, however few they are.
const BATCH_BYTES: usize = 1 << 20;

/// The tasks of a subscriber, with a batch being filled for each.
pub(crate) struct Targets<T> {
    pub(super) setup: RouteSetup,
    pub(super) parts: Vec<EdgeBatch<T>>,
    /// What a tuple weighs, if not what its type has in itself.
    pub(super) weigh: Option<Weigh<T>>,
    /// By task: what the part being filled weighs, if `weigh` says.
    bytes: Vec<usize>,
    /// The most rows that [`BATCH_BYTES`] have room for.
    most_rows: usize,
    /// By task: the last run of tuples that share a root of which it got one.
    runs: Vec<u64>,
    run: u64,
}

impl<T: Data> Targets<T> {
    pub(super) fn new(mut setup: RouteSetup) -> Self {
        let parts = setup.targets.iter().map(|_| EdgeBatch::default()).collect();
        let tasks = setup.targets.len();
        let weigh = setup.weigh.take().and_then(|weigh| weigh.downcast_ref::<Weigh<T>>().cloned());
        let most_rows = (BATCH_BYTES / size_of::<T>().max(1)).max(1);
        Self { setup, parts, weigh, bytes: vec![0; tasks], most_rows, runs: vec![0; tasks], run: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn batch(&self) -> usize {
        self.setup.batch.load(Ordering::Relaxed).clamp(1, self.most_rows)
    }

    /// Appends rows to the batch of a task, and sends it when it is large enough.
    #[inline]
    pub(super) fn push(&mut self, task: usize, value: T, token: AckToken, batch: usize, into: &mut Staged) {
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
    pub(super) fn weigh(&mut self, task: usize, value: &T) {
        if let Some(weigh) = &self.weigh {
            // A weight is only for bounds: one that panics counts as what the type has in itself.
            let weighed = catch_unwind(AssertUnwindSafe(|| weigh(value)));
            self.bytes[task] = self.bytes[task].saturating_add(weighed.unwrap_or(size_of::<T>()));
        }
    }

    #[cold]
    pub(super) fn send_if_heavy(&mut self, task: usize, into: &mut Staged) {
        if self.bytes[task] >= BATCH_BYTES {
            self.send(task, into);
        }
    }

    #[inline(never)]
    pub(super) fn send(&mut self, task: usize, into: &mut Staged) {
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
    pub(super) fn push_all(
        &mut self,
        task: usize,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        into: &mut Staged,
    ) {
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
    pub(super) fn distribute(
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

    pub(super) fn flush(&mut self, into: &mut Staged) {
        for task in 0..self.parts.len() {
            self.send(task, into);
        }
    }

    /// Sends a signal to all tasks, behind their rows, if they are to have it.
    pub(super) fn signal(&mut self, signal: Signal, into: &mut Staged) {
        let wanted = match signal {
            Signal::Watermark(_) => self.setup.watermarks,
            Signal::Barrier(_) => self.setup.barriers,
        };
        if !wanted {
            return;
        }
        self.flush(into);
        let sender = self.setup.sender;
        let to_task = |&target| {
            let content = Content::Signal(signal);
            OutgoingBatch { target, sender, content, rows: 0, bytes: 0 }
        };
        into.batches.extend(self.setup.targets.iter().map(to_task));
    }
}

/// Chooses a task for each row of a batch. Rows for which that panics are lost, and leave the batch.
#[inline]
pub(super) fn choose<T>(
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
pub(super) fn each_row<T>(
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
