//! Firings: what an occurrence becomes.

use std::fmt;

use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Overlap, ScheduleId};

/// Why there is a firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Its time came.
    Planned,
    /// Somebody asked for it; numbered within the schedule.
    Triggered(u64),
    /// Somebody asked for the occurrences of a time that had passed; numbered within the schedule.
    Backfilled(u64),
}

/// The identity of a firing: it is the same whoever fires it, and however often it is tried. As text it is a good id for a
/// message, by which its receiver can tell a second delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FiringId {
    /// The schedule.
    pub schedule: ScheduleId,
    /// The nominal time: when it occurs by the schedule, without jitter.
    pub nominal: Timestamp,
    /// Why it is.
    pub origin: Origin,
}

impl fmt::Display for FiringId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.schedule, self.nominal)?;
        match self.origin {
            Origin::Planned => Ok(()),
            Origin::Triggered(number) => write!(f, "#triggered-{number}"),
            Origin::Backfilled(number) => write!(f, "#backfilled-{number}"),
        }
    }
}

/// A firing that a process has claimed, and is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Firing {
    /// Its identity.
    pub id: FiringId,
    /// When it became due: the nominal time and its jitter, or the end of a pause.
    pub due: Timestamp,
    /// Attempts, this one included.
    pub attempt: u32,
    /// Grows with each claim of the schedule: whoever has seen a higher one of the same firing can refuse this.
    pub epoch: u64,
    /// What the schedule carries.
    pub payload: Value,
}

/// Who runs a firing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The process, by a name that no other has had.
    pub holder: String,
    /// Which claim of the schedule it is.
    pub epoch: u64,
    /// How often it was renewed.
    pub renewal: u64,
    /// So long after its last renewal others may take the firing over, by the clock of one that watches.
    pub lease_ms: u64,
    /// When it was made, by the holder's wall clock; nothing is decided by it.
    pub since: Timestamp,
}

/// A firing that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFiring {
    /// Its nominal time.
    pub nominal: Timestamp,
    /// Why it is.
    pub origin: Origin,
    /// Not before.
    pub due: Timestamp,
    /// By which policy it is.
    pub overlap: Overlap,
    /// Attempts begun.
    pub attempts: u32,
    /// Who runs it; none while it waits.
    pub claim: Option<Claim>,
    /// It is to stop, for a later one.
    pub cancelled: bool,
    /// Why the last attempt failed.
    pub fault: Option<String>,
}

impl OpenFiring {
    pub(crate) fn claimed_with(&self, epoch: u64) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.epoch == epoch)
    }
}

/// Why an occurrence was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// An earlier firing had not ended.
    Overlap,
    /// As many waited as may.
    BufferFull,
    /// The schedule was paused.
    Paused,
}

/// Why an occurrence was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Miss {
    /// Nobody looked within the catch-up window.
    CatchupWindow,
    /// Nobody looked in time, and the policy runs none that is late.
    Late,
    /// Nobody looked in time, and the policy runs only the latest.
    LaterOne,
}

/// Why a firing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fail {
    /// By a permanent fault.
    Permanent,
    /// The attempts were used up.
    Attempts,
    /// The process that ran the last attempt was lost: whether it was done is not known.
    Lost,
}

/// Why a firing was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancel {
    /// A later one took its place.
    Replaced,
    /// The schedule was removed.
    Removed,
}

/// What became of an occurrence or of a firing that was asked for: each has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "snake_case")]
pub enum Outcome {
    /// It ran to its end.
    Done,
    /// It ran, and failed for good.
    Failed(Fail),
    /// It was not run, by the policy or an operator.
    Skipped(Skip),
    /// It was not run, because nobody looked in time.
    Missed(Miss),
    /// It was not run, or was told to stop.
    Cancelled(Cancel),
}

impl Outcome {
    /// `done`, `failed`, `skipped`, `missed` or `cancelled`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped",
            Self::Missed(_) => "missed",
            Self::Cancelled(_) => "cancelled",
        }
    }

    /// Why, in a word; none of what is done.
    pub const fn reason(self) -> Option<&'static str> {
        Some(match self {
            Self::Done => return None,
            Self::Failed(Fail::Permanent) => "permanent",
            Self::Failed(Fail::Attempts) => "attempts",
            Self::Failed(Fail::Lost) => "lost",
            Self::Skipped(Skip::Overlap) => "overlap",
            Self::Skipped(Skip::BufferFull) => "buffer_full",
            Self::Skipped(Skip::Paused) => "paused",
            Self::Missed(Miss::CatchupWindow) => "catchup_window",
            Self::Missed(Miss::Late) => "late",
            Self::Missed(Miss::LaterOne) => "later_one",
            Self::Cancelled(Cancel::Replaced) => "replaced",
            Self::Cancelled(Cancel::Removed) => "removed",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.reason().map_or(Ok(()), |reason| write!(f, ".{reason}"))
    }
}

/// The end of an occurrence or of a firing, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its identity.
    #[serde(flatten)]
    pub id: FiringId,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// Attempts begun.
    pub attempts: u32,
    /// Why the last attempt failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}
