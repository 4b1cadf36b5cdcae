//! Files and folders that only their owner can read.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Creates a folder, and those above it, for their owner alone (0700); those that exist stay as they are.
///
/// # Errors
/// What the file system said.
pub fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes a file's permissions from everybody but its owner (0600). A file that is not there is no error.
///
/// # Errors
/// What the file system said.
pub fn restrict(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if metadata.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    tracing::info!(file = %path.display(), "others could read the file; now only its owner can");
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
}

/// Opens a file for reading and writing, and creates it for its owner alone when it is missing.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    restrict(path)?;
    Ok(file)
}

/// The path of a companion: the name of the file and a suffix.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
