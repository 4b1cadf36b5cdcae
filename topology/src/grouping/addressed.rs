//! To all tasks, to the first, or to those that the author or the emitter names.

use super::targets::{Targets, each_row};
use super::{CustomGrouping, Distribute};
use crate::failure::Fault;
use crate::lineage::{Lineage, ShareRng};
use crate::outputs::{Data, copies};
use crate::runtime::Staged;

/// A copy to every task.
pub(crate) struct All;

impl<T: Data> Distribute<T> for All {
    fn distribute(
        &mut self,
        targets: &mut Targets<T>,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        for task in 1..targets.len() {
            let mut copied = copies(values, lineage, &mut Vec::new(), into);
            if values.is_empty() {
                return;
            }
            let mut copy = lineage.split(shares);
            targets.push_all(task, &mut copied, &mut copy, into);
        }
        targets.push_all(0, values, lineage, into);
    }
}

/// Everything to task 0.
pub(crate) struct Global;

impl<T: Data> Distribute<T> for Global {
    fn distribute(
        &mut self,
        targets: &mut Targets<T>,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        _shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        targets.push_all(0, values, lineage, into);
    }
}

/// To the task that the emitter named.
pub(crate) struct Direct;

impl<T: Data> Distribute<T> for Direct {
    fn is_direct(&self) -> bool {
        true
    }

    fn distribute(
        &mut self,
        targets: &mut Targets<T>,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        tasks: &[usize],
        _shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        let (n, batch) = (targets.len(), targets.batch());
        for ((value, token), task) in values.drain(..).zip(lineage.drain()).zip(tasks) {
            if *task < n {
                targets.push(*task, value, token, batch, into);
            } else {
                let subscriber = &targets.setup.subscriber;
                let fault = format!("emitted to task {task} of `{subscriber}`, which has {n} tasks (from 0)");
                into.reject(token, Fault::permanent(fault));
            }
        }
    }
}

/// To the tasks that the author's code chooses.
pub(crate) struct Custom<T, G> {
    grouping: G,
    chosen: Vec<usize>,
    copies: Vec<T>,
}

impl<T, G> Custom<T, G> {
    pub(crate) fn new(grouping: G) -> Self {
        Self { grouping, chosen: Vec::new(), copies: Vec::new() }
    }
}

impl<T: Data, G: CustomGrouping<T>> Distribute<T> for Custom<T, G> {
    fn distribute(
        &mut self,
        targets: &mut Targets<T>,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        let (n, batch) = (targets.len(), targets.batch());
        let Self { grouping, chosen, copies } = self;
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
}
