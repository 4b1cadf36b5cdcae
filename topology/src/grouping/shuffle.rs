//! Evenly over the tasks.

use std::time::Duration;

use super::Distribute;
use super::targets::Targets;
use crate::lineage::{AckToken, Lineage, ShareRng, Span};
use crate::outputs::Data;
use crate::runtime::{RouteSetup, Staged};

/// A few rows in turn to each task, past those that lag.
pub(crate) struct Shuffle {
    /// The task whose turn it is, how many rows it still gets, and to which task these go.
    at: usize,
    left: usize,
    to: usize,
    // The task that is full while another has nothing to do, and since when.
    lagging: Option<(usize, Duration)>,
}

/// How long a task must have been full beside an idle one before shuffling goes past it. Shorter, and a
/// passing pause of the machine would unbalance what is even over time.
const LAG: Duration = Duration::from_millis(100);
/// Rows given to all tasks together in a round. So few that over 10,000 rows no task has 1 % more than its share, and so many
/// that rows stay together where there are few tasks.
const ROUND: usize = 64;

impl Shuffle {
    pub(crate) fn new(setup: &RouteSetup) -> Self {
        let at = setup.offset % setup.targets.len().max(1);
        Self { at, left: 0, to: at, lagging: None }
    }

    /// Starts the turn of the next task.
    fn next_turn<T: Data>(&mut self, targets: &Targets<T>, batch: usize) {
        let n = targets.len();
        self.at = (self.at + 1) % n;
        self.left = if targets.setup.by_row { 1 } else { (ROUND / n).clamp(1, batch) };
        self.to = self.choose(targets, self.at);
    }

    /// The task that gets what is due to `next`.
    fn choose<T: Data>(&mut self, targets: &Targets<T>, next: usize) -> usize {
        let setup = &targets.setup;
        if setup.loads.of(next) < setup.full_at {
            if self.lagging.is_some_and(|(task, _)| task == next) {
                self.lagging = None;
            }
            return next;
        }
        let Some(idle) = (0..targets.len()).find(|&task| setup.loads.of(task) == 0) else {
            self.lagging = None;
            return next;
        };
        let now = setup.clock.now();
        match self.lagging {
            // The turn of the task that lags counts as taken, or it would be flooded as soon as it moves again.
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
    fn deal<T: Data>(
        &mut self,
        targets: &mut Targets<T>,
        mut rows: u32,
        limit: usize,
        values: &mut std::vec::Drain<'_, T>,
        into: &mut Staged,
        mut tokens: impl FnMut(&mut Lineage, u32),
    ) {
        while rows > 0 {
            if self.left == 0 {
                self.next_turn(targets, limit);
            }
            let now = rows.min(self.left as u32);
            let to = self.to;
            if targets.weigh.is_some() {
                let upcoming = &values.as_slice()[..now as usize];
                upcoming.iter().for_each(|value| targets.weigh(to, value));
            }
            let part = &mut targets.parts[to];
            part.values.extend(values.by_ref().take(now as usize));
            tokens(&mut part.lineage, now);
            if part.values.len() >= limit {
                targets.send(to, into);
            } else if targets.weigh.is_some() {
                targets.send_if_heavy(to, into);
            }
            self.left -= now as usize;
            rows -= now;
        }
    }
}

impl<T: Data> Distribute<T> for Shuffle {
    fn distribute(
        &mut self,
        targets: &mut Targets<T>,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        let n = targets.len();
        if n == 1 {
            targets.push_all(0, values, lineage, into);
            return;
        }
        // With many tasks, waiting until each has a full batch would hold back many times what one batch has.
        let limit = (targets.batch() * 4 / n).clamp(1, targets.batch());
        let mut rows = values.drain(..);
        for span in lineage.drain_spans() {
            match span {
                Span::Untracked(count) => {
                    self.deal(targets, count, limit, &mut rows, into, |lineage, now| {
                        lineage.push_untracked(now)
                    });
                }
                Span::Whole(first, count) => {
                    let mut at = 0;
                    self.deal(targets, count, limit, &mut rows, into, |lineage, now| {
                        lineage.push_whole(first.plus(at), now);
                        at += now;
                    });
                }
                Span::Share(root, mut rest, count) => {
                    let mut left = count;
                    self.deal(targets, count, limit, &mut rows, into, |lineage, now| {
                        left -= now;
                        // What is left over goes with the last.
                        let share = if left == 0 { rest } else { shares.word() };
                        rest ^= share;
                        lineage.push_share(root, share, now);
                    });
                }
                Span::Multi(list) => {
                    let mut list = Some(list);
                    self.deal(targets, 1, limit, &mut rows, into, |lineage, _| {
                        lineage.push(list.take().map_or(AckToken::Untracked, AckToken::Multi));
                    });
                }
            }
        }
    }
}
