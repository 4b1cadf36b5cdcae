//! What can go wrong.

use galerna_topology::{Fault, FaultKind};

use crate::ScheduleId;

/// Why a definition, a name or a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadSchedule {
    /// The field, as it is written: `cron.timezone`.
    pub field: &'static str,
    /// What is wrong with it, and what to write instead.
    pub reason: String,
}

impl BadSchedule {
    pub(crate) fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It cannot be reached or did not answer in time: whether a write was done is not known. The call may be tried again.
    #[error("the store of schedules is unavailable while {attempted}: {cause}")]
    Unavailable {
        /// What was tried.
        attempted: String,
        /// What the store said.
        cause: String,
    },
    /// It refused or failed; trying again does not help.
    #[error("the store of schedules failed while {attempted}: {cause}")]
    Failed {
        /// What was tried.
        attempted: String,
        /// What the store said.
        cause: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// As what a component returns.
    pub fn into_fault(self) -> Fault {
        let kind = if self.is_transient() { FaultKind::Unavailable } else { FaultKind::Permanent };
        Fault::from(self).of_kind(kind)
    }
}

/// Why a schedule was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// What was asked for makes no sense.
    #[error(transparent)]
    Bad(#[from] BadSchedule),
    /// The name is taken.
    #[error("there is a schedule `{0}` already; edit it, or take another name")]
    Exists(ScheduleId),
    /// No schedule has this name.
    #[error("there is no schedule `{0}`")]
    NotFound(ScheduleId),
    /// It was edited since it was read.
    #[error("schedule `{id}` is at revision {current}, not {expected}; read it again, and edit that")]
    Edited {
        /// The schedule.
        id: ScheduleId,
        /// The revision that the edit began from.
        expected: u64,
        /// The revision it has.
        current: u64,
    },
    /// Others changed it again and again meanwhile.
    #[error("schedule `{0}` is being changed by others; try again")]
    Busy(ScheduleId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
