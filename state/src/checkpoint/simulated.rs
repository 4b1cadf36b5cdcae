//! A file system in memory that loses power, fails and fills up when it is told to.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use galerna_lock::Mutex;

use super::{FileSystem, FolderLock};

/// What becomes, when the power fails, of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All is as it was last synced.
    Lost,
    /// All is as it was last written.
    Kept,
    /// Of each name and each file one or the other, of files also a part, or a part and then zeros; by this seed.
    Mixed(u64),
}

/// A file system in memory for tests. Clones are the same one. Operations that change something are counted from 1.
///
/// When syncing a file fails, what was written to it is never durable, however often it is synced after that, until it is written anew:
/// so systems do that drop what they could not write.
#[derive(Clone, Default)]
pub struct SimulatedFiles {
    disk: Arc<Mutex<Disk>>,
    /// The restart after which it is of use, if only until the next one.
    mounted: Option<u64>,
}

#[derive(Default)]
struct Inode {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Syncing it failed since it was written.
    dropped: bool,
}

#[derive(Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    synced: BTreeMap<PathBuf, usize>,
    operations: u64,
    /// The operation after which the power is off.
    off_after: Option<u64>,
    fails: BTreeMap<u64, io::ErrorKind>,
    room: Option<u64>,
    restarts: u64,
}

impl std::fmt::Debug for SimulatedFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let disk = self.disk.lock();
        f.debug_struct("SimulatedFiles")
            .field("names", &disk.names.keys().collect::<Vec<_>>())
            .field("operations", &disk.operations)
            .finish_non_exhaustive()
    }
}

impl SimulatedFiles {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same file system for a process that ends when the power fails: after the next restart all that it still does are errors.
    #[must_use]
    pub fn mount(&self) -> Self {
        let restarts = self.disk.lock().restarts;
        Self { disk: self.disk.clone(), mounted: Some(restarts) }
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// The power fails when this operation is done: all that follow are errors, until [`SimulatedFiles::restart`].
    pub fn lose_power_after(&self, operation: u64) {
        self.disk.lock().off_after = Some(operation);
    }

    /// This operation fails and does nothing; one that writes has written half.
    pub fn fail(&self, operation: u64, kind: io::ErrorKind) {
        self.disk.lock().fails.insert(operation, kind);
    }

    /// All files together have at most so many bytes; `None`: there is room for all.
    pub fn limit(&self, bytes: Option<u64>) {
        self.disk.lock().room = bytes;
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.disk.lock().bytes()
    }

    /// The power is back.
    pub fn restart(&self, unsynced: Unsynced) {
        let disk = &mut *self.disk.lock();
        let mut random = match unsynced {
            Unsynced::Mixed(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            _ => 1,
        };
        let mut draw = |n: u64| {
            // xorshift64*: Vigna 2016.
            random ^= random >> 12;
            random ^= random << 25;
            random ^= random >> 27;
            (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
        };
        let mut names = BTreeMap::new();
        let all =
            disk.names.keys().chain(disk.synced.keys()).cloned().collect::<std::collections::BTreeSet<_>>();
        for name in all {
            let keep = match unsynced {
                Unsynced::Lost => false,
                Unsynced::Kept => true,
                Unsynced::Mixed(_) => draw(2) == 0,
            };
            let from = if keep { &disk.names } else { &disk.synced };
            if let Some(inode) = from.get(&name) {
                names.insert(name, *inode);
            }
        }
        for inode in &mut disk.inodes {
            if inode.now != inode.synced {
                let part = draw(inode.now.len() as u64 + 1) as usize;
                match (unsynced, draw(4)) {
                    (Unsynced::Lost, _) | (Unsynced::Mixed(_), 0) => inode.now = inode.synced.clone(),
                    (Unsynced::Kept, _) | (Unsynced::Mixed(_), 1) => {}
                    (Unsynced::Mixed(_), 2) => inode.now.truncate(part),
                    (Unsynced::Mixed(_), _) => inode.now[part..].fill(0),
                }
            }
            inode.synced = inode.now.clone();
        }
        disk.names = names.clone();
        disk.synced = names;
        disk.off_after = None;
        disk.fails.clear();
        disk.restarts += 1;
    }

    /// The disk, if it has power and this process had it all the time.
    fn powered(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock();
        let restarted = self.mounted.is_some_and(|restarts| restarts != disk.restarts);
        if restarted || disk.off_after.is_some_and(|last| disk.operations >= last) {
            return Err(io::Error::other("the power is off"));
        }
        Ok(disk)
    }

    /// Changes a file behind everybody's back.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn damage(&self, file: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let disk = &mut *self.disk.lock();
        let inode = disk.inode(file)?;
        damage(&mut disk.inodes[inode].now);
        disk.inodes[inode].synced = disk.inodes[inode].now.clone();
        Ok(())
    }
}

impl Disk {
    fn bytes(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].now.len() as u64).sum()
    }

    /// Counts an operation; the error that it is to fail with.
    fn operate(&mut self) -> Option<io::ErrorKind> {
        self.operations += 1;
        self.fails.get(&self.operations).copied()
    }

    fn operate_or_fail(&mut self) -> io::Result<()> {
        self.operate().map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn inode(&self, file: &Path) -> io::Result<usize> {
        self.names.get(file).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl FileSystem for SimulatedFiles {
    fn create_folder(&self, _folder: &Path) -> io::Result<()> {
        self.powered()?.operate_or_fail()
    }

    fn lock(&self, _folder: &Path) -> io::Result<Option<FolderLock>> {
        Ok(Some(Box::new(())))
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let disk = &mut *self.powered()?;
        let mut failure = disk.operate();
        let inode = match disk.names.get(file) {
            Some(inode) => *inode,
            None => {
                disk.inodes.push(Inode::default());
                disk.names.insert(file.to_owned(), disk.inodes.len() - 1);
                disk.inodes.len() - 1
            }
        };
        disk.inodes[inode].now.clear();
        disk.inodes[inode].dropped = false;
        let mut written = if failure.is_some() { bytes.len() / 2 } else { bytes.len() };
        if let Some(room) = disk.room {
            let left = room.saturating_sub(disk.bytes()) as usize;
            if left < written {
                written = left;
                failure = failure.or(Some(io::ErrorKind::StorageFull));
            }
        }
        disk.inodes[inode].now.extend_from_slice(&bytes[..written]);
        failure.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn sync_file(&self, file: &Path) -> io::Result<()> {
        let disk = &mut *self.powered()?;
        let failure = disk.operate();
        let inode = disk.inode(file)?;
        let inode = &mut disk.inodes[inode];
        if let Some(kind) = failure {
            inode.dropped = true;
            return Err(kind.into());
        }
        if !inode.dropped {
            inode.synced = inode.now.clone();
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let disk = &mut *self.powered()?;
        disk.operate_or_fail()?;
        let inode = disk.inode(from)?;
        disk.names.remove(from);
        disk.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let disk = &mut *self.powered()?;
        disk.operate_or_fail()?;
        let inside = |name: &Path| name.parent() == Some(folder);
        disk.synced.retain(|name, _| !inside(name));
        let now =
            disk.names.iter().filter(|(name, _)| inside(name)).map(|(name, inode)| (name.clone(), *inode));
        let now: Vec<_> = now.collect();
        disk.synced.extend(now);
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let disk = &mut *self.powered()?;
        disk.operate_or_fail()?;
        disk.names.remove(file).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let disk = self.powered()?;
        Ok(disk.inodes[disk.inode(file)?].now.clone())
    }

    fn read_at(&self, file: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let disk = self.powered()?;
        let bytes = &disk.inodes[disk.inode(file)?].now;
        let end = offset.checked_add(length).and_then(|end| usize::try_from(end).ok());
        let part = end.and_then(|end| bytes.get(offset as usize..end));
        part.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let disk = self.powered()?;
        let names = disk.names.keys().filter(|name| name.parent() == Some(folder));
        Ok(names
            .filter_map(|name| name.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }
}
