//! Where a channel stands, for people and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use galerna_lock::Mutex;
use galerna_model::Timestamp;
use serde::Serialize;

use crate::meter::Meter;
use crate::status::StatusId;
use crate::store::Recorded;

/// What the task of a channel does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// The channel is off.
    Off,
    /// It opens its stream.
    Connecting,
    /// It fetches what came while it did not follow.
    CatchingUp,
    /// It follows its stream.
    Streaming,
    /// It asks for new statuses again and again, where there is no stream.
    Polling,
    /// The server wants no call until then.
    Limited {
        /// When it goes on.
        until: Timestamp,
    },
    /// The server refuses the account's token; it waits for another.
    Revoked,
    /// Something failed, and is tried again.
    Retrying {
        /// What went wrong.
        cause: String,
        /// When it is tried again.
        at: Timestamp,
    },
    /// It has ended, because trying again does not help; it is tried again when it is started.
    Failed {
        /// What went wrong.
        reason: String,
    },
}

impl Phase {
    /// The phase in a word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connecting => "connecting",
            Self::CatchingUp => "catching_up",
            Self::Streaming => "streaming",
            Self::Polling => "polling",
            Self::Limited { .. } => "limited",
            Self::Revoked => "revoked",
            Self::Retrying { .. } => "retrying",
            Self::Failed { .. } => "failed",
        }
    }
}

/// Counts of a channel since the start of the process.
#[derive(Debug, Default)]
pub struct Progress {
    passed: AtomicU64,
    blocked: AtomicU64,
    duplicates: AtomicU64,
    cuts: AtomicU64,
    failures: AtomicU64,
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Shown {
    phase: Phase,
    since: Timestamp,
    last: Option<StatusId>,
    last_at: Option<Timestamp>,
    rate: Meter,
}

impl Default for Shown {
    fn default() -> Self {
        Self { phase: Phase::Off, since: Timestamp(0), last: None, last_at: None, rate: Meter::default() }
    }
}

/// The counts at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgressView {
    /// What its task does.
    #[serde(flatten)]
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// The last status that was recorded.
    pub last: Option<StatusId>,
    /// When it was recorded.
    pub last_at: Option<Timestamp>,
    /// Statuses that passed.
    pub passed: u64,
    /// Statuses that were blocked.
    pub blocked: u64,
    /// Statuses that came again, and were left out.
    pub duplicates: u64,
    /// How often its stream was cut.
    pub cuts: u64,
    /// How often something failed.
    pub failures: u64,
    /// New statuses in the last minute.
    pub per_minute: u64,
}

impl Progress {
    /// Says what the task does now.
    pub fn enter(&self, phase: Phase, now: Timestamp) {
        let mut shown = self.shown.lock();
        if shown.phase != phase {
            shown.since = now;
            shown.phase = phase;
        }
    }

    /// What the task does.
    pub fn phase(&self) -> Phase {
        self.shown.lock().phase.clone()
    }

    /// Counts what was recorded.
    pub fn count(&self, recorded: &Recorded, last: Option<&StatusId>, now: Timestamp) {
        self.passed.fetch_add(recorded.passed, Ordering::Relaxed);
        self.blocked.fetch_add(recorded.blocked, Ordering::Relaxed);
        self.duplicates.fetch_add(recorded.duplicates, Ordering::Relaxed);
        let new = recorded.passed + recorded.blocked;
        if new > 0 {
            let mut shown = self.shown.lock();
            shown.rate.add(u32::try_from(new).unwrap_or(u32::MAX));
            shown.last = last.cloned();
            shown.last_at = Some(now);
        }
    }

    /// Counts a stream that was cut.
    pub fn count_cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failure.
    pub fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// All of it at this moment.
    pub fn view(&self) -> ProgressView {
        let mut shown = self.shown.lock();
        ProgressView {
            phase: shown.phase.clone(),
            since: shown.since,
            last: shown.last.clone(),
            last_at: shown.last_at,
            passed: self.passed.load(Ordering::Relaxed),
            blocked: self.blocked.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            cuts: self.cuts.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            per_minute: shown.rate.last_minute(),
        }
    }
}
