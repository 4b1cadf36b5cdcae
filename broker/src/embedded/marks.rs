//! How far each queue has been delivered, as a crash would find it.
//!
//! A message that kills its consumer's process must not be delivered for ever, so that a delivery has to be on record before the
//! message is handed out. A transaction per delivery would cost what the group commit saves. Instead each queue has eight
//! bytes in a file beside the store: the highest sequence number handed out. They are written without a sync, since they
//! have to survive `kill -9` of the process, which the page cache does; after a power failure some deliveries may go
//! uncounted, which costs an extra delivery and nothing else. The first eight bytes are the id of the store that the file
//! belongs to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The marks of all queues.
#[derive(Debug)]
pub(super) struct Marks(Option<File>);

impl Marks {
    /// The marks of this store.
    ///
    /// # Errors
    /// `InvalidData` when the file is another store's.
    pub(super) fn open(path: &Path, store: u64) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        galerna_sqlite::restrict(path)?;
        let mut bytes = [0; 8];
        // Files of earlier versions have nothing there.
        let owner = file.read_exact_at(&mut bytes, 0).map_or(0, |()| u64::from_le_bytes(bytes));
        if owner != 0 && owner != store {
            let problem = "it belongs to another store; remove it: all it keeps is which messages were delivered before";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        file.write_all_at(&store.to_le_bytes(), 0)?;
        Ok(Self(Some(file)))
    }

    /// Marks that end with the process, for a store that does as well.
    pub(super) fn in_memory() -> Self {
        Self(None)
    }

    /// The highest sequence number handed out of this queue; 0 when none was.
    pub(super) fn read(&self, queue: i64) -> u64 {
        let mut bytes = [0; 8];
        match &self.0 {
            // Past the end of the file there are no marks yet.
            Some(file) if file.read_exact_at(&mut bytes, offset(queue)).is_ok() => u64::from_le_bytes(bytes),
            _ => 0,
        }
    }

    pub(super) fn write(&self, queue: i64, seq: u64) {
        if let Some(file) = &self.0
            && let Err(error) = file.write_all_at(&seq.to_le_bytes(), offset(queue))
        {
            // Costs a count after a crash; the delivery itself is unharmed.
            tracing::warn!(%error, "the delivery mark of a queue was not written");
        }
    }
}

fn offset(queue: i64) -> u64 {
    queue.unsigned_abs() * 8
}
