//! Lists on their way from bytes to entries, for fuzz targets.

use galerna_model::{Account, Source};

use crate::{DirectoryError, FileDirectory, Listing};

/// The accounts that a file of this name and with these bytes lists.
///
/// # Errors
/// As reading the file.
pub fn accounts(name: &str, bytes: &[u8]) -> Result<Listing<Account>, DirectoryError> {
    FileDirectory::new(name)?.list(bytes)
}

/// The sources that a file of this name and with these bytes lists.
///
/// # Errors
/// As reading the file.
pub fn sources(name: &str, bytes: &[u8]) -> Result<Listing<Source>, DirectoryError> {
    FileDirectory::new(name)?.list(bytes)
}
