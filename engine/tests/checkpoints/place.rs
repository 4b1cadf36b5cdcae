//! Where checkpoints are. Sentences of `on_both!` are run with a folder and with MongoDB.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use galerna_state::{
    CheckpointError, CheckpointStore, FolderCheckpoints, MongoCheckpointOptions, MongoCheckpoints,
};
use galerna_test_servers::{Mongo, unique};
use tempfile::TempDir;

/// How long a test waits for something, in real time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) enum Place {
    Folder(TempDir),
    Mongo {
        options: MongoCheckpointOptions,
        /// Who had them last.
        last: Mutex<Weak<MongoCheckpoints>>,
    },
}

impl Place {
    pub(crate) async fn folder() -> Self {
        Self::Folder(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) async fn mongo() -> Self {
        Self::on(Mongo::shared().await)
    }

    /// A new database on a server.
    pub(crate) fn on(server: &Mongo) -> Self {
        let database = Some(unique("checkpoints"));
        let options = MongoCheckpointOptions { database, ..MongoCheckpointOptions::new(server.uri()) };
        Self::Mongo { options, last: Mutex::default() }
    }

    /// The checkpoints of the topology `words`, once nobody else has them.
    pub(crate) async fn open(&self) -> Arc<dyn CheckpointStore> {
        let begun = Instant::now();
        let wait = || async {
            assert!(begun.elapsed() < PATIENCE, "somebody has the checkpoints still");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        match self {
            Self::Folder(folder) => loop {
                match FolderCheckpoints::open(folder.path(), "words").await {
                    Err(CheckpointError::InUse { .. }) => wait().await,
                    opened => return Arc::new(opened.expect("opened")),
                }
            },
            Self::Mongo { last, .. } => {
                while last.lock().unwrap().strong_count() > 0 {
                    wait().await;
                }
                self.open_beside().await
            }
        }
    }

    /// In MongoDB, the same while others have them.
    pub(crate) async fn open_beside(&self) -> Arc<dyn CheckpointStore> {
        let Self::Mongo { options, last } = self else { panic!("a folder is of one process") };
        let store = Arc::new(MongoCheckpoints::connect(options.clone(), "words").await.expect("connected"));
        *last.lock().unwrap() = Arc::downgrade(&store);
        store
    }
}

/// Runs each of these functions, which take a place, with a folder and with MongoDB.
macro_rules! on_both {
    ($($sentence:ident)*) => {
        mod in_a_folder {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    super::$sentence(&crate::place::Place::folder().await).await;
                }
            )*
        }
        mod in_mongodb {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    super::$sentence(&crate::place::Place::mongo().await).await;
                }
            )*
        }
    };
}

pub(crate) use on_both;
