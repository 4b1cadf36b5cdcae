//! How tuples of a stream are distributed over the tasks of a subscriber.

mod addressed;
mod by_key;
mod shuffle;
mod targets;

use std::fmt;
use std::sync::Arc;

pub(crate) use addressed::{All, Custom, Direct, Global};
pub(crate) use by_key::{Fields, PartialKey};
pub(crate) use shuffle::Shuffle;

use crate::lineage::{Lineage, ShareRng};
use crate::outputs::Data;
use crate::runtime::{Route, RouteSetup, Signal, Staged};
use targets::Targets;

/// So many groups the keys of a bolt that keeps state fall into. Each is one task's.
pub const KEY_GROUPS: usize = 4096;

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
    /// By a key, to the task that has the state of its key group.
    KeyGroup,
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
            Self::KeyGroup => "key group",
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

/// What a tuple weighs, in bytes, as a user says.
pub(crate) type Weigh<T> = Arc<dyn Fn(&T) -> usize + Send + Sync>;

/// A way to distribute rows over the tasks of a subscriber.
pub(crate) trait Distribute<T>: Send {
    /// See [`Route::is_direct`].
    fn is_direct(&self) -> bool {
        false
    }

    /// See [`Route::route`].
    fn distribute(
        &mut self,
        targets: &mut Targets<T>,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        tasks: &[usize],
        shares: &mut ShareRng,
        into: &mut Staged,
    );
}

/// The route to one subscription: its tasks, and how rows are distributed over them.
pub(crate) struct Grouped<T, G> {
    targets: Targets<T>,
    grouping: G,
}

impl<T: Data, G> Grouped<T, G> {
    pub(crate) fn new(setup: RouteSetup, grouping: G) -> Self {
        Self { targets: Targets::new(setup), grouping }
    }
}

impl<T: Data, G: Distribute<T>> Route<T> for Grouped<T, G> {
    fn is_direct(&self) -> bool {
        self.grouping.is_direct()
    }

    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        tasks: &[usize],
        shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        self.grouping.distribute(&mut self.targets, values, lineage, tasks, shares, into);
    }

    fn flush(&mut self, into: &mut Staged) {
        self.targets.flush(into);
    }

    fn signal(&mut self, signal: Signal, into: &mut Staged) {
        self.targets.signal(signal, into);
    }
}
