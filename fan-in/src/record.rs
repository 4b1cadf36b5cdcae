//! What is stored of a fan-in, and its life as functions of the record and the time.

use std::collections::BTreeMap;

use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::FanInError;

/// As many parts has one fan-in at most: they are stored in one record.
pub const PARTS: usize = 10_000;

/// When a fan-in has what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// All parts are needed: one that fails ends it.
    All,
    /// So many are needed: it ends with the last of them, or when too many have failed.
    Quorum(usize),
    /// Whatever is there when all have been heard of, or at the deadline.
    BestEffort,
}

/// How a fan-in ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All parts are done.
    Complete,
    /// Not all are, and the policy has what it needs.
    Partial,
    /// So many failed that the policy can never have what it needs.
    Failed,
    /// The deadline passed before the policy had what it needs.
    TimedOut,
}

/// A record whose end does not follow from its parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id}: {done} done, {failed} failed of {all}, {end:?}")]
pub struct Violation {
    /// The fan-in.
    pub id: String,
    /// Parts that are done.
    pub done: usize,
    /// Parts that failed.
    pub failed: usize,
    /// All parts.
    pub all: usize,
    /// How it ended, if it has.
    pub end: Option<End>,
}

/// What is known of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Nothing yet.
    Waiting,
    /// What came of it.
    Done(Value),
    /// Why there is nothing.
    Failed(String),
}

/// What is asked for: made before the first part is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// A name that says what it is for, so that whoever begins again after a crash finds it: `charts/2026-05-01T12:00:00Z`.
    pub id: String,
    /// The names of the parts.
    pub parts: Vec<String>,
    /// When it has what it needs.
    pub policy: Policy,
    /// By then it has ended.
    pub deadline: Timestamp,
    /// What whoever hears of the end needs to know.
    pub payload: Value,
}

/// Who acts on the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The process.
    pub holder: String,
    /// Grows with each claim.
    pub epoch: u64,
    /// So long others leave it alone, each by its own clock.
    pub lease_ms: u64,
}

/// What is stored of a fan-in: one record, changed as a whole and only if it is still as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The name.
    pub id: String,
    /// Another with each change.
    #[serde(skip)]
    pub version: i64,
    /// When it was begun.
    pub created: Timestamp,
    /// When it has what it needs.
    pub policy: Policy,
    /// By then it has ended.
    pub deadline: Timestamp,
    /// What whoever hears of the end needs to know.
    pub payload: Value,
    /// The parts as they were when it ended, by their names.
    pub parts: BTreeMap<String, Part>,
    /// How it ended, and when. Set once.
    pub end: Option<(End, Timestamp)>,
    /// Parts that came again.
    pub duplicates: u64,
    /// Parts that came after the end.
    pub late: u64,
    /// Who acts on the end.
    pub claim: Option<Claim>,
    /// The last claim.
    pub epoch: u64,
    /// Somebody has acted on the end.
    pub settled: bool,
}

/// What became of a part that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// It counts; and by it the fan-in ended, or not.
    Counted(Option<End>),
    /// It was there already; the first stands.
    Duplicate,
    /// The fan-in had ended without it.
    Late,
}

impl Record {
    pub(crate) fn new(plan: Plan, now: Timestamp) -> Result<Self, FanInError> {
        let bad = |reason: String| FanInError::Bad { id: plan.id.clone(), reason };
        if plan.id.is_empty() || plan.id.len() > 512 {
            return Err(bad("a name has 1 to 512 bytes".to_owned()));
        }
        let named = plan.parts.len();
        let parts: BTreeMap<String, Part> =
            plan.parts.iter().map(|name| (name.clone(), Part::Waiting)).collect();
        if parts.is_empty() || parts.len() > PARTS {
            return Err(bad(format!("it has {} parts; 1 to {PARTS} are possible", parts.len())));
        }
        if parts.len() != named {
            return Err(bad("two parts have one name".to_owned()));
        }
        if let Policy::Quorum(needed) = plan.policy
            && (needed == 0 || needed > named)
        {
            return Err(bad(format!("a quorum of {needed} of {named} parts cannot be; take 1 to {named}")));
        }
        Ok(Self {
            id: plan.id,
            version: fastrand::i64(..),
            created: now,
            policy: plan.policy,
            deadline: plan.deadline,
            payload: plan.payload,
            parts,
            end: None,
            duplicates: 0,
            late: 0,
            claim: None,
            epoch: 0,
            settled: false,
        })
    }

    /// Parts that are done, and that failed.
    pub fn counts(&self) -> (usize, usize) {
        let done = self.parts.values().filter(|part| matches!(part, Part::Done(_))).count();
        let failed = self.parts.values().filter(|part| matches!(part, Part::Failed(_))).count();
        (done, failed)
    }

    /// Takes a part.
    pub(crate) fn report(&mut self, name: &str, part: Part, now: Timestamp) -> Result<Reported, FanInError> {
        // A part that comes at the deadline is late, whoever looks first.
        self.expire(now);
        let known = self
            .parts
            .get_mut(name)
            .ok_or_else(|| FanInError::UnknownPart { id: self.id.clone(), part: name.to_owned() })?;
        if *known != Part::Waiting {
            self.duplicates += 1;
            return Ok(Reported::Duplicate);
        }
        if self.end.is_some() {
            self.late += 1;
            return Ok(Reported::Late);
        }
        *known = part;
        let end = self.reached();
        self.end = end.map(|end| (end, now));
        Ok(Reported::Counted(end))
    }

    /// Ends it when the deadline has passed. Whether it did.
    pub(crate) fn expire(&mut self, now: Timestamp) -> bool {
        if self.end.is_some() || now < self.deadline {
            return false;
        }
        let (done, _) = self.counts();
        let end = if self.policy == Policy::BestEffort && done > 0 { End::Partial } else { End::TimedOut };
        self.end = Some((end, now));
        true
    }

    /// How it ends by what is there, before the deadline.
    fn reached(&self) -> Option<End> {
        let (done, failed) = self.counts();
        let all = self.parts.len();
        match self.policy {
            _ if done == all => Some(End::Complete),
            Policy::All => (failed > 0).then_some(End::Failed),
            Policy::Quorum(needed) if done >= needed => Some(End::Partial),
            Policy::Quorum(needed) => (all - failed < needed).then_some(End::Failed),
            Policy::BestEffort if done + failed < all => None,
            Policy::BestEffort => Some(if done > 0 { End::Partial } else { End::Failed }),
        }
    }

    /// What holds of every record: that how it ended, or that it has not, follows from its parts.
    ///
    /// # Errors
    /// That it does not.
    pub fn check(&self) -> Result<(), Violation> {
        let (done, failed) = self.counts();
        let all = self.parts.len();
        let sound = match (self.end.map(|(end, _)| end), self.policy) {
            (None, _) => self.claim.is_none() && !self.settled && self.reached().is_none(),
            (Some(End::Complete), _) => done == all,
            (Some(End::Partial), Policy::All) => false,
            (Some(End::Partial), Policy::Quorum(needed)) => done == needed && done < all,
            (Some(End::Partial), Policy::BestEffort) => done > 0 && done < all,
            (Some(End::Failed), _) => failed > 0 && done < all,
            (Some(End::TimedOut), _) => done < all,
        };
        if sound {
            Ok(())
        } else {
            let end = self.end.map(|(end, _)| end);
            Err(Violation { id: self.id.clone(), done, failed, all, end })
        }
    }
}
