//! Where checkpoints are.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use galerna_state::{
    CheckpointError, CheckpointStore, FolderCheckpoints, MongoCheckpointOptions, MongoCheckpoints,
};
use galerna_test_servers::{Mongo, unique};

/// The topology's name.
pub(crate) const TOPOLOGY: &str = "killed";

/// A place, which processes are told of by a text.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Folder(PathBuf),
    Mongo { uri: String, database: String },
}

impl Place {
    /// A new folder.
    pub(crate) fn folder() -> Self {
        // Removed by `remove`, since processes that are killed remove nothing.
        Self::Folder(tempfile::tempdir().expect("a folder").keep())
    }

    /// A new database of the server for tests.
    pub(crate) async fn mongo() -> Self {
        Self::Mongo { uri: Mongo::shared().await.uri(), database: unique("killed") }
    }

    /// Another one of the same kind.
    pub(crate) fn another(&self) -> Self {
        match self {
            Self::Folder(_) => Self::folder(),
            Self::Mongo { uri, .. } => Self::Mongo { uri: uri.clone(), database: unique("killed") },
        }
    }

    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Folder(folder) => folder.to_str().expect("a name").to_owned(),
            Self::Mongo { uri, database } => format!("{uri} {database}"),
        }
    }

    pub(crate) fn from_text(text: &str) -> Self {
        match text.split_once(' ') {
            Some((uri, database)) => Self::Mongo { uri: uri.to_owned(), database: database.to_owned() },
            None => Self::Folder(text.into()),
        }
    }

    /// The checkpoints, once nobody else has them.
    pub(crate) async fn open(&self) -> Arc<dyn CheckpointStore> {
        match self {
            Self::Folder(folder) => {
                let begun = Instant::now();
                loop {
                    match FolderCheckpoints::open(folder, TOPOLOGY).await {
                        Err(CheckpointError::InUse { .. }) if begun.elapsed() < Duration::from_secs(60) => {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        opened => return Arc::new(opened.expect("opened")),
                    }
                }
            }
            Self::Mongo { uri, database } => {
                let options = MongoCheckpointOptions {
                    database: Some(database.clone()),
                    ..MongoCheckpointOptions::new(uri.clone())
                };
                Arc::new(MongoCheckpoints::connect(options, TOPOLOGY).await.expect("connected"))
            }
        }
    }

    pub(crate) fn remove(&self) {
        if let Self::Folder(folder) = self {
            drop(std::fs::remove_dir_all(folder));
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder(_) => "in a folder",
            Self::Mongo { .. } => "in MongoDB",
        })
    }
}
