//! What is asked of a file system, and the system's own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Keeps others out of a folder until it is dropped.
pub type FolderLock = Box<dyn Send + Sync>;

/// What checkpoints in a folder ask of a file system: that what was synced is there after the power failed. Calls block.
pub trait FileSystem: Send + Sync + 'static {
    /// Creates a folder and those above it, for their owner alone; no error when it is there. Durable.
    ///
    /// # Errors
    /// What the system said.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// Locks a folder; `None` when another process has.
    ///
    /// # Errors
    /// What the system said.
    fn lock(&self, folder: &Path) -> io::Result<Option<FolderLock>>;

    /// Writes a file, in place of what it held. Neither its bytes nor its name are durable.
    ///
    /// # Errors
    /// What the system said; part of it may be written.
    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Makes the bytes of a file durable.
    ///
    /// # Errors
    /// What the system said; it is not known what of them is durable, then and later.
    fn sync_file(&self, file: &Path) -> io::Result<()>;

    /// Gives a file another name, that of another file too. Not durable.
    ///
    /// # Errors
    /// What the system said.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the system said.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Removes a file. Not durable.
    ///
    /// # Errors
    /// What the system said.
    fn remove(&self, file: &Path) -> io::Result<()>;

    /// A whole file.
    ///
    /// # Errors
    /// What the system said.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>>;

    /// Bytes of a file.
    ///
    /// # Errors
    /// `UnexpectedEof` when it is shorter, or what the system said.
    fn read_at(&self, file: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>>;

    /// The names in a folder.
    ///
    /// # Errors
    /// What the system said.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// The system's file system. Files are readable by their owner only.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskFiles;

impl FileSystem for DiskFiles {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
        if let Some(above) = above {
            self.create_folder(above)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
            created => created,
        }?;
        self.sync_folder(above.unwrap_or(Path::new(".")))
    }

    fn lock(&self, folder: &Path) -> io::Result<Option<FolderLock>> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(file)?.write_all(bytes)
    }

    fn sync_file(&self, file: &Path) -> io::Result<()> {
        File::open(file)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        std::fs::remove_file(file)
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(file)
    }

    fn read_at(&self, file: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(file)?;
        // Before room is made for what a damaged manifest asks for.
        if offset.checked_add(length).is_none_or(|end| file.metadata().is_ok_and(|m| end > m.len())) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let names =
            std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }
}
