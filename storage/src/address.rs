//! Where a store is, as one line of configuration.

use crate::mongo::MongoOptions;
use crate::{Result, StorageError, Store, mongo, sqlite};

/// Opens the store at this address, creating tables, collections and indexes that are missing.
///
/// - `embedded:/path/to/file.db` (or a relative path): SQLite, for one process;
/// - `mongodb://host:port/database?options`, `mongodb+srv://…`: MongoDB, for any number of processes; the database is
///   `galerna` when the address names none.
///
/// # Errors
/// [`StorageError::Invalid`] when the address is neither, or an embedded store is open already;
/// [`StorageError::Unavailable`] when MongoDB does not answer.
pub async fn open(url: &str) -> Result<Store> {
    match url.split_once(':') {
        Some(("embedded", path)) => {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(StorageError::Invalid(
                    "store address `embedded:` names no file; write for instance embedded:/var/lib/galerna/store.db"
                        .to_owned(),
                ));
            }
            sqlite::open(path).await
        }
        Some(("mongodb" | "mongodb+srv", _)) => mongo::connect(MongoOptions::new(url)).await,
        _ => Err(StorageError::Invalid(format!(
            "store address `{url}` is not known; write embedded:/path/to/file.db or mongodb://host:27017/galerna"
        ))),
    }
}
