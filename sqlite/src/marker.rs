//! The lock file beside a store, and what it remembers of it.
//!
//! SQLite cannot tell a `-wal` file that is gone, or cut at its end, from one that held no more: it opens what is left, which
//! may be nothing, as if that were all. So every transaction counts one in the store, and the count is written here after
//! the commit, before the commit is acknowledged. A store that has counted less than this file says has lost something.
//!
//! The count is written without a sync: it has to survive `kill -9`, which the page cache does. After a power failure it may
//! be an earlier one, which only makes the check weaker.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::files::open_private;

/// How long to wait for a store that is being closed, by this process or by one that is about to end.
const CLOSING: Duration = Duration::from_secs(1);

/// Longer than any marker.
const LONGEST: usize = 128;

/// What is remembered of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The store's own id.
    pub(crate) store: u64,
    /// How many transactions it has had, at least.
    pub(crate) commits: u64,
    /// Whether it was closed in good order: then the `-wal` file holds nothing.
    pub(crate) closed: bool,
}

/// Held while the store is open.
#[derive(Debug)]
pub(crate) struct Marker(File);

impl Marker {
    /// Opens and locks the file; `None` when another process has it.
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing announces that another process has let go of a file lock"
    )]
    pub(crate) fn lock(path: &Path, shared: bool) -> io::Result<Option<Self>> {
        let file = open_private(path)?;
        let deadline = Instant::now() + CLOSING;
        loop {
            match if shared { file.try_lock_shared() } else { file.try_lock() } {
                Ok(()) => return Ok(Some(Self(file))),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(e),
            }
        }
    }

    /// What it says; `None` when nothing was written yet.
    ///
    /// # Errors
    /// `InvalidData` when it cannot be read.
    pub(crate) fn read(&self) -> io::Result<Option<Mark>> {
        let mut bytes = [0; LONGEST];
        let mut read = 0;
        while read < bytes.len() {
            match self.0.read_at(&mut bytes[read..], read as u64)? {
                0 => break,
                n => read += n,
            }
        }
        if read == 0 {
            return Ok(None);
        }
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it is not the lock file of a store");
        let text = std::str::from_utf8(&bytes[..read]).map_err(|_| wrong())?;
        let mut words = text.split_whitespace();
        let mark = (|| {
            (words.next()? == "galerna").then_some(())?;
            Some(Mark {
                store: u64::from_str_radix(words.next()?, 16).ok()?,
                commits: words.next()?.parse().ok()?,
                closed: words.next()? == "closed",
            })
        })();
        mark.map(Some).ok_or_else(wrong)
    }

    /// Always of the same length, so that it is replaced in place.
    pub(crate) fn write(&self, mark: Mark) -> io::Result<()> {
        let state = if mark.closed { "closed" } else { "open  " };
        let text = format!("galerna {:016x} {:020} {state}\n", mark.store, mark.commits);
        self.0.write_all_at(text.as_bytes(), 0)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let marker = Marker::lock(&folder.path().join("lock"), false).unwrap().unwrap();
        assert_eq!(marker.read().unwrap(), None);
        for mark in [
            Mark { store: 0, commits: 0, closed: false },
            Mark { store: u64::MAX, commits: u64::MAX, closed: true },
            Mark { store: 5, commits: 7, closed: false },
        ] {
            marker.write(mark).unwrap();
            assert_eq!(marker.read().unwrap(), Some(mark));
        }
    }

    #[test]
    fn anything_else_in_its_place_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for garbage in ["x", "galerna 5 five open", "\u{0}\u{0}", &"galerna ".repeat(100)] {
            let path = folder.path().join("lock");
            std::fs::write(&path, garbage).unwrap();
            let marker = Marker::lock(&path, false).unwrap().unwrap();
            assert_eq!(marker.read().unwrap_err().kind(), io::ErrorKind::InvalidData, "{garbage:?}");
        }
    }
}
