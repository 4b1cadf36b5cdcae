//! One process per store.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait for a store that this process may be closing on another thread.
const CLOSING: Duration = Duration::from_secs(1);

/// Held while the store is open.
#[derive(Debug)]
pub(super) struct StoreLock(File);

impl StoreLock {
    /// Opens the file without locking it yet.
    pub(super) fn file(path: &Path) -> Result<Self, String> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        file.map(Self).map_err(|e| e.to_string())
    }

    /// Locks the file for as long as it is open.
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing announces that another process has let go of a file lock"
    )]
    pub(super) fn take(self) -> Result<Self, String> {
        let patience = Instant::now() + CLOSING;
        loop {
            match self.0.try_lock() {
                Ok(()) => return Ok(self),
                Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(
                        "another process has it open; several processes need RabbitMQ (amqp://…)".to_owned()
                    );
                }
                Err(TryLockError::Error(e)) => return Err(e.to_string()),
            }
        }
    }
}

/// The path of a companion file of the store.
pub(super) fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push("-");
    name.push(what);
    PathBuf::from(name)
}
