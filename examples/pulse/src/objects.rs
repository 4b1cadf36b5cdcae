//! Where posts and charts are kept.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload, RetryConfig};

/// An operation on the object store that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The address is none.
    #[error("objects cannot be kept in `{0}`; name a folder, or a bucket as in s3://charts")]
    Address(String),
    /// The folder cannot be made.
    #[error("the folder {0} cannot be made: {1}")]
    Folder(String, std::io::Error),
    /// The store does not do it.
    #[error("{attempted} {path}: {cause}")]
    Store {
        /// What was tried.
        attempted: &'static str,
        /// On which object.
        path: String,
        /// Why not.
        cause: object_store::Error,
    },
}

/// Where posts and charts are kept: a folder, or a bucket of S3.
#[derive(Clone)]
pub struct Objects(Arc<dyn ObjectStore>);

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Objects {
    /// A folder, which is made if need be, or `s3://BUCKET`: then region, endpoint and keys are those of the variables `AWS_REGION`,
    /// `AWS_ENDPOINT`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    ///
    /// # Errors
    /// When the folder cannot be made or the settings of the bucket are not whole.
    pub fn open(address: &str) -> Result<Self, ObjectError> {
        let wrong = |cause| ObjectError::Store { attempted: "opening", path: address.to_owned(), cause };
        if let Some(bucket) = address.strip_prefix("s3://") {
            galerna_tls::install_default_provider();
            let endpoint = std::env::var("AWS_ENDPOINT").unwrap_or_default();
            let client = ClientOptions::new()
                .with_timeout(Duration::from_secs(10))
                .with_allow_http(endpoint.starts_with("http:"));
            // The topology tries again by itself.
            let retry = RetryConfig {
                max_retries: 2,
                retry_timeout: Duration::from_secs(15),
                ..RetryConfig::default()
            };
            let bucket = AmazonS3Builder::from_env()
                .with_bucket_name(bucket.trim_end_matches('/'))
                .with_client_options(client);
            return Ok(Self(Arc::new(bucket.with_retry(retry).build().map_err(wrong)?)));
        }
        if address.contains("://") || address.is_empty() {
            return Err(ObjectError::Address(address.to_owned()));
        }
        std::fs::create_dir_all(address).map_err(|error| ObjectError::Folder(address.to_owned(), error))?;
        let folder = LocalFileSystem::new_with_prefix(address).map_err(wrong)?;
        Ok(Self(Arc::new(folder.with_fsync(true))))
    }

    /// Keeps an object, unless there is one of this name: what is there stays as it is. Whether it was kept.
    ///
    /// # Errors
    /// When the store fails; then whether it was kept is not known.
    pub async fn create(&self, path: &Path, bytes: Bytes) -> Result<bool, ObjectError> {
        match self.0.put_opts(path, PutPayload::from_bytes(bytes), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(cause) => Err(ObjectError::Store { attempted: "writing", path: path.to_string(), cause }),
        }
    }

    /// Reads an object; none when it is not there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read(&self, path: &Path) -> Result<Option<Bytes>, ObjectError> {
        let failed = |cause| ObjectError::Store { attempted: "reading", path: path.to_string(), cause };
        match self.0.get(path).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(cause) => Err(failed(cause)),
        }
    }

    /// The names of the objects under a folder, in order.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, ObjectError> {
        let listed: Result<Vec<_>, _> = self
            .0
            .list(Some(&Path::from(folder)))
            .map_ok(|object| object.location.to_string())
            .try_collect()
            .await;
        let mut names = listed.map_err(|cause| ObjectError::Store {
            attempted: "listing",
            path: folder.to_owned(),
            cause,
        })?;
        names.sort_unstable();
        Ok(names)
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove(&self, name: &str) -> Result<(), ObjectError> {
        match self.0.delete(&Path::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(cause) => Err(ObjectError::Store { attempted: "removing", path: name.to_owned(), cause }),
        }
    }
}
