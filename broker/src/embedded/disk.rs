//! Whether the disk takes messages.

use std::time::{Duration, Instant};

use galerna_lock::Mutex;
use galerna_sqlite::{Job, SqliteError, SqliteErrorKind};

use super::EmbeddedSession;
use super::jobs::{Again, Open, Reply, answer};
use super::tables::Tables;

/// A disk that was full is tried again no more often than this.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What the last writes have shown.
#[derive(Debug, Default)]
pub(super) struct Disk(Mutex<Option<Full>>);

#[derive(Debug)]
struct Full {
    reason: String,
    probed: Instant,
}

impl Disk {
    /// Takes in how a write of new messages went.
    pub(super) fn note(&self, result: &Result<(), SqliteError>) {
        match result {
            Ok(()) => *self.0.lock() = None,
            Err(error) if error.kind == SqliteErrorKind::DiskFull => {
                *self.0.lock() = Some(Full { reason: error.cause.clone(), probed: Instant::now() });
            }
            Err(_) => {}
        }
    }

    /// Why it takes none.
    pub(super) fn full(&self) -> Option<String> {
        self.0.lock().as_ref().map(|full| full.reason.clone())
    }

    /// Whether it is time to try a full one again; who is told so does it.
    pub(super) fn wants_probe(&self) -> bool {
        let mut full = self.0.lock();
        match full.as_mut() {
            Some(full) if full.probed.elapsed() >= PROBE_EVERY => {
                full.probed = Instant::now();
                true
            }
            _ => false,
        }
    }
}

/// Writes something, or removes it again.
pub(super) struct Probe {
    pub(super) remove: bool,
    pub(super) reply: Reply<()>,
}

impl Job<EmbeddedSession> for Probe {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        if self.remove { tables.clear_probe() } else { tables.probe() }
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        answer(self.reply, result);
        None
    }

    fn alone(&self) -> bool {
        true
    }
}
