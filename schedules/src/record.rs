//! What is stored of a schedule.

use std::collections::BTreeMap;

use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Definition, OpenFiring, Outcome, Overlap, ScheduleId};

/// An occurrence to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upcoming {
    /// Its nominal time.
    pub nominal: Timestamp,
    /// Not before: the nominal time and the jitter.
    pub due: Timestamp,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub note: String,
}

/// What is stored of a schedule: its definition, and where it stands. One record, changed as a whole and only if it is still as
/// it was read ([`Self::version`]); so whatever is decided of an occurrence is decided once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The name.
    pub id: ScheduleId,
    /// Another with each change, and never one that the record has had before.
    #[serde(skip)]
    pub version: i64,
    /// When it was added.
    pub created: Timestamp,
    /// What it is told to be.
    pub definition: Definition,
    /// How often the definition was edited.
    pub revision: u64,
    /// Set while it is paused.
    pub paused: Option<Paused>,
    /// All occurrences up to here are decided; it never goes back.
    pub decided: Timestamp,
    /// The first that is not. None when there will be no more.
    pub next: Option<Upcoming>,
    /// How many more are fired, if that is limited.
    pub remaining: Option<u64>,
    /// The last claim; grows with each.
    pub epoch: u64,
    /// The last number given to a firing that somebody asked for.
    pub number: u64,
    /// Firings that have not ended, in the order in which they were admitted.
    pub open: Vec<OpenFiring>,
    /// How many ended, by outcome and reason: `skipped.overlap`.
    pub counts: BTreeMap<String, u64>,
}

impl Record {
    /// Whether a waiting firing may be claimed once it is due: those of `allow_all` always, others when they are the first.
    pub(crate) fn may_start(&self, index: usize) -> bool {
        let firing = &self.open[index];
        firing.claim.is_none() && (index == 0 || firing.overlap == Overlap::AllowAll)
    }

    /// When there is something to do. None while there is not, unless a claim is lost.
    pub fn wake(&self) -> Option<Timestamp> {
        let waiting =
            (0..self.open.len()).filter(|index| self.may_start(*index)).map(|index| self.open[index].due);
        waiting.chain(self.next.map(|next| next.due)).min()
    }

    /// How many firings are claimed.
    pub fn running(&self) -> usize {
        self.open.iter().filter(|firing| firing.claim.is_some()).count()
    }

    /// How many ended so.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.counts.get(&outcome.to_string()).copied().unwrap_or(0)
    }
}
