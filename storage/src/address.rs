//! Where a store is, as one line of configuration.

use crate::{Result, StorageError, Store};

/// Opens the store at this address, creating tables, collections and indexes that are missing.
///
/// - `embedded:/path/to/file.db` (or a relative path): SQLite, for one process;
/// - `mongodb://host:port/database?options`, `mongodb+srv://…`: MongoDB, for any number of processes; the database is
///   `galerna` when the address names none.
///
/// # Errors
/// [`StorageError::Invalid`] when the address is neither; [`StorageError::InUse`] when an embedded store is open already;
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
            embedded(path).await
        }
        Some(("mongodb" | "mongodb+srv", _)) => mongodb(url).await,
        _ => Err(StorageError::Invalid(format!(
            "store address `{url}` is not known; write embedded:/path/to/file.db or mongodb://host:27017/galerna"
        ))),
    }
}

#[cfg(feature = "embedded")]
async fn embedded(path: &str) -> Result<Store> {
    crate::sqlite::open(path).await
}

#[cfg(not(feature = "embedded"))]
async fn embedded(_path: &str) -> Result<Store> {
    Err(StorageError::Invalid(
        "an embedded store needs the feature `embedded` of galerna-storage, which this program was built without".to_owned(),
    ))
}

#[cfg(feature = "mongodb")]
async fn mongodb(url: &str) -> Result<Store> {
    crate::mongo::connect(crate::mongo::MongoOptions::new(url)).await
}

#[cfg(not(feature = "mongodb"))]
async fn mongodb(_url: &str) -> Result<Store> {
    Err(StorageError::Invalid(
        "MongoDB needs the feature `mongodb` of galerna-storage, which this program was built without"
            .to_owned(),
    ))
}
