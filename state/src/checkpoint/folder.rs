//! Checkpoints in a folder.
//!
//! `<number>-<task>-<component>.blocks` are the blocks of one task for one checkpoint, `<number>.manifest` is a committed
//! checkpoint, `<number>.manifest.new` one that was not committed, `lock` keeps a second process out.
//!
//! Each file of blocks is synced when it is put. To commit, the folder is synced, so that their names are durable too; then the
//! manifest is written under its temporary name, synced, renamed, and the folder is synced again. The rename is the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use galerna_lock::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    CheckpointEntry, CheckpointError, CheckpointId, CheckpointStore, Collected, DiskFiles, FileSystem,
    FolderLock, Manifest, StoredPart,
};
use crate::Part;

const MANIFEST: &str = ".manifest";
const UNCOMMITTED: &str = ".manifest.new";
const BLOCKS: &str = ".blocks";

/// The checkpoints of one topology in a folder of this machine.
pub struct FolderCheckpoints {
    folder: Arc<Folder>,
}

struct Folder {
    path: PathBuf,
    topology: String,
    files: Box<dyn FileSystem>,
    /// The checkpoint that was begun.
    begun: Mutex<Option<CheckpointId>>,
    /// Held until the end.
    _lock: FolderLock,
}

impl std::fmt::Debug for FolderCheckpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FolderCheckpoints")
            .field("folder", &self.folder.path)
            .field("topology", &self.folder.topology)
            .finish_non_exhaustive()
    }
}

impl FolderCheckpoints {
    /// Opens the folder, or creates it.
    ///
    /// # Errors
    /// [`CheckpointError::InUse`] when another process has it; [`CheckpointError::Foreign`] when it holds the checkpoints of
    /// another topology; [`CheckpointError::Corrupt`] when the last one is damaged; what the file system said.
    pub async fn open(
        folder: impl Into<PathBuf>,
        topology: impl Into<String>,
    ) -> Result<Self, CheckpointError> {
        Self::open_on(DiskFiles, folder, topology).await
    }

    /// The same on a given file system.
    ///
    /// # Errors
    /// See [`FolderCheckpoints::open`].
    pub async fn open_on(
        files: impl FileSystem,
        folder: impl Into<PathBuf>,
        topology: impl Into<String>,
    ) -> Result<Self, CheckpointError> {
        let (path, topology) = (folder.into(), topology.into());
        let open = move || {
            let place = path.display().to_string();
            let failed = |cause| CheckpointError::io("opening the folder of checkpoints", &place, cause);
            files.create_folder(&path).map_err(failed)?;
            let lock = files.lock(&path).map_err(failed)?;
            let lock = lock.ok_or_else(|| CheckpointError::InUse { place: place.clone() })?;
            // A commit may be visible whose process ended before its name was durable: nothing is to be built on it before.
            files.sync_folder(&path).map_err(failed)?;
            let folder =
                Folder { path, topology, files: Box::new(files), begun: Mutex::new(None), _lock: lock };
            match folder.latest() {
                Ok(Some(manifest)) if manifest.topology != folder.topology => {
                    Err(CheckpointError::Foreign { place, found: manifest.topology, wanted: folder.topology })
                }
                // Told by `latest`, so that an older one can be chosen.
                Ok(_) | Err(CheckpointError::Corrupt { .. } | CheckpointError::Newer { .. }) => {
                    Ok(Self { folder: Arc::new(folder) })
                }
                Err(error) => Err(error),
            }
        };
        blocking(open).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, CheckpointError> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let folder = Arc::clone(&self.folder);
        blocking(move || work(&folder)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CheckpointError> + Send + 'static,
) -> Result<T, CheckpointError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(cause) => Err(CheckpointError::Failed {
            attempted: "working on",
            place: "the folder of checkpoints".to_owned(),
            cause: cause.to_string(),
        }),
    }
}

/// The number at the start of a file's name.
fn number(name: &str) -> Option<CheckpointId> {
    let digits = name.get(..20)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok().map(CheckpointId))?
}

/// What a part's file is called. A component's name that is no file name is told apart by its hash.
pub(super) fn blocks_name(id: CheckpointId, component: &str, task: u32) -> String {
    let plain: String = component
        .chars()
        .take(60)
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' })
        .collect();
    let suffix =
        if plain == component { String::new() } else { format!("-{:016x}", xxh3_64(component.as_bytes())) };
    format!("{:020}-{task:04}-{plain}{suffix}{BLOCKS}", id.0)
}

impl Folder {
    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let names = self.files.list(&self.path);
        names.map_err(|cause| CheckpointError::io("listing", self.path.display().to_string(), cause))
    }

    fn committed(&self) -> Result<Vec<CheckpointId>, CheckpointError> {
        let names = self.names()?;
        let manifests =
            names.iter().filter(|name| name.len() == 20 + MANIFEST.len() && name.ends_with(MANIFEST));
        let mut ids: Vec<_> = manifests.filter_map(|name| number(name)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn begin(&self) -> Result<CheckpointId, CheckpointError> {
        let last = self.names()?.iter().filter_map(|name| number(name)).max();
        let next = last.max(*self.begun.lock()).map_or(1, |last| last.0 + 1);
        let id = CheckpointId(next);
        *self.begun.lock() = Some(id);
        Ok(id)
    }

    fn check_begun(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        if *self.begun.lock() == Some(id) { Ok(()) } else { Err(CheckpointError::NotBegun { id }) }
    }

    /// Does something to a file; if that fails, what is there of the file is removed.
    fn or_remove(
        &self,
        attempted: &'static str,
        file: &Path,
        work: impl FnOnce(&dyn FileSystem) -> io::Result<()>,
    ) -> Result<(), CheckpointError> {
        work(&*self.files).map_err(|cause| {
            if let Err(error) = self.files.remove(file) {
                // It is collected later.
                tracing::debug!(%error, file = %file.display(), "a file that was not written whole was not removed");
            }
            CheckpointError::io(attempted, file.display().to_string(), cause)
        })
    }

    fn put(&self, id: CheckpointId, mut part: Part) -> Result<StoredPart, CheckpointError> {
        self.check_begun(id)?;
        let bytes = std::mem::take(&mut part.bytes);
        if bytes.is_empty() {
            return Ok(StoredPart::new(id, part, None));
        }
        let name = blocks_name(id, &part.component, part.task);
        let file = self.at(&name);
        self.or_remove("writing the checkpoint's", &file, |files| {
            files.write(&file, &bytes)?;
            files.sync_file(&file)
        })?;
        Ok(StoredPart::new(id, part, Some(name.into())))
    }

    fn commit(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let id = manifest.id;
        self.check_begun(id)?;
        let (new, file) =
            (self.at(&format!("{:020}{UNCOMMITTED}", id.0)), self.at(&format!("{:020}{MANIFEST}", id.0)));
        let bytes = manifest.encode().map_err(|problem| CheckpointError::Incomplete { id, problem })?;
        self.or_remove("writing the manifest", &new, |files| {
            files.sync_folder(&self.path)?;
            files.write(&new, &bytes)?;
            files.sync_file(&new)?;
            files.rename(&new, &file)
        })?;
        self.sync_folder("committing the checkpoint in")?;
        *self.begun.lock() = None;
        Ok(())
    }

    fn sync_folder(&self, attempted: &'static str) -> Result<(), CheckpointError> {
        let synced = self.files.sync_folder(&self.path);
        synced.map_err(|cause| CheckpointError::io(attempted, self.path.display().to_string(), cause))
    }

    fn load(&self, id: CheckpointId) -> Result<Manifest, CheckpointError> {
        let file = self.at(&format!("{:020}{MANIFEST}", id.0));
        let place = file.display().to_string();
        let bytes = self.files.read(&file).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => {
                CheckpointError::Unknown { id, place: self.path.display().to_string() }
            }
            _ => CheckpointError::io("reading", &place, cause),
        })?;
        let manifest = Manifest::decode(&bytes, &place)?;
        if manifest.id == id {
            return Ok(manifest);
        }
        let problem = format!("it is the manifest of checkpoint {}", manifest.id);
        Err(CheckpointError::Corrupt { place, problem })
    }

    fn latest(&self) -> Result<Option<Manifest>, CheckpointError> {
        self.committed()?.last().map(|id| self.load(*id)).transpose()
    }

    fn list(&self) -> Result<Vec<CheckpointEntry>, CheckpointError> {
        let ids = self.committed()?;
        Ok(ids.into_iter().map(|id| CheckpointEntry { id, manifest: self.load(id) }).collect())
    }

    fn read(&self, file: &str, offset: u64, length: u64) -> Result<Vec<u8>, CheckpointError> {
        let place = self.at(file).display().to_string();
        // Names come from a manifest, whose checksum is no proof of who wrote it.
        if number(file).is_none() || file.contains('/') || !file.ends_with(BLOCKS) {
            return Err(CheckpointError::Corrupt { place, problem: "it is no file of blocks".to_owned() });
        }
        let problem = match self.files.read_at(&self.at(file), offset, length) {
            Ok(bytes) => return Ok(bytes),
            Err(cause) => match cause.kind() {
                io::ErrorKind::NotFound => "it is missing",
                io::ErrorKind::UnexpectedEof => "it is cut short",
                _ => return Err(CheckpointError::io("reading", place, cause)),
            },
        };
        Err(CheckpointError::Corrupt { place, problem: problem.to_owned() })
    }

    fn remove(&self, name: &str) -> Result<(), CheckpointError> {
        match self.files.remove(&self.at(name)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(CheckpointError::io("removing", self.at(name).display().to_string(), cause))
            }
            _ => Ok(()),
        }
    }

    fn delete(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        if !self.committed()?.contains(&id) {
            return Err(CheckpointError::Unknown { id, place: self.path.display().to_string() });
        }
        self.remove(&format!("{:020}{MANIFEST}", id.0))?;
        self.sync_folder("deleting a checkpoint in")
    }

    fn collect(&self, keep: NonZeroUsize) -> Result<Collected, CheckpointError> {
        let ids = self.committed()?;
        let (old, kept) = ids.split_at(ids.len().saturating_sub(keep.get()));
        let kept: BTreeMap<CheckpointId, Manifest> =
            kept.iter().map(|id| Ok((*id, self.load(*id)?))).collect::<Result<_, CheckpointError>>()?;
        for id in old {
            self.remove(&format!("{:020}{MANIFEST}", id.0))?;
        }
        if !old.is_empty() {
            // First no manifest refers to the files, then they go.
            self.sync_folder("deleting checkpoints in")?;
        }
        let used: BTreeSet<Arc<str>> = kept.values().flat_map(Manifest::files).collect();
        let mut files = 0;
        for name in self.names()? {
            let is_ours = name.ends_with(BLOCKS) || name.ends_with(UNCOMMITTED);
            let Some(id) = number(&name).filter(|_| is_ours) else { continue };
            // Later ones may be on their way.
            if Some(id) <= ids.last().copied() && !used.contains(&*name) {
                self.remove(&name)?;
                files += 1;
            }
        }
        Ok(Collected { checkpoints: old.to_vec(), files })
    }
}

#[async_trait]
impl CheckpointStore for FolderCheckpoints {
    async fn begin(&self) -> Result<CheckpointId, CheckpointError> {
        self.run(Folder::begin).await
    }

    async fn put(&self, checkpoint: CheckpointId, part: Part) -> Result<StoredPart, CheckpointError> {
        self.run(move |folder| folder.put(checkpoint, part)).await
    }

    async fn commit(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let manifest = manifest.clone();
        self.run(move |folder| folder.commit(&manifest)).await
    }

    async fn latest(&self) -> Result<Option<Manifest>, CheckpointError> {
        self.run(Folder::latest).await
    }

    async fn load(&self, id: CheckpointId) -> Result<Manifest, CheckpointError> {
        self.run(move |folder| folder.load(id)).await
    }

    async fn list(&self) -> Result<Vec<CheckpointEntry>, CheckpointError> {
        self.run(Folder::list).await
    }

    async fn read(&self, file: &str, offset: u64, length: u64) -> Result<Vec<u8>, CheckpointError> {
        let file = file.to_owned();
        self.run(move |folder| folder.read(&file, offset, length)).await
    }

    async fn delete(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        self.run(move |folder| folder.delete(id)).await
    }

    async fn collect(&self, keep: NonZeroUsize) -> Result<Collected, CheckpointError> {
        self.run(move |folder| folder.collect(keep)).await
    }
}
