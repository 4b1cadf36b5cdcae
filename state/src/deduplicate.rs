//! Which ids were seen, for a time.

use std::time::Duration;

use serde::Serialize;

use crate::{StateError, StateSpec, TaskState, ValueState};

/// Ids that were seen, each remembered for a time from when it was seen first. Exact: no id is taken for another. It takes
/// memory, and disk beyond the task's budget, for the ids of that time only.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// use galerna_state::{KeyGroups, SeenIds, StateOptions, TaskState};
///
/// # fn main() -> Result<(), galerna_state::StateError> {
/// # let options = StateOptions { budget_bytes: 1 << 20, spill: None, clock: Arc::new(|| 0) };
/// # let state = TaskState::new("deduplicate", 0, KeyGroups::all(), options)?;
/// let mut seen = SeenIds::new(&state, "seen", Duration::from_secs(3600))?;
/// assert!(seen.is_first(&("meter-1", 17))?);
/// assert!(!seen.is_first(&("meter-1", 17))?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SeenIds {
    seen: ValueState<()>,
}

impl SeenIds {
    /// Ids in the state `name` of a task, each remembered for `within`, at least a millisecond.
    ///
    /// # Errors
    /// As [`TaskState::value`].
    pub fn new(state: &TaskState, name: impl Into<String>, within: Duration) -> Result<Self, StateError> {
        Ok(Self { seen: state.value(StateSpec::new(name).time_to_live(within))? })
    }

    /// Whether an id was not seen within the time; it is remembered from now on.
    ///
    /// # Errors
    /// As [`ValueState::get`] and [`ValueState::set`]; the id is not remembered then.
    pub fn is_first<K: Serialize + ?Sized>(&mut self, id: &K) -> Result<bool, StateError> {
        if self.seen.contains(id)? {
            return Ok(false);
        }
        self.seen.set(id, &())?;
        Ok(true)
    }

    /// Forgets an id, so that it is first again.
    ///
    /// # Errors
    /// As [`ValueState::remove`].
    pub fn forget<K: Serialize + ?Sized>(&mut self, id: &K) -> Result<(), StateError> {
        self.seen.remove(id)
    }
}
