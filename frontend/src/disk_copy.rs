//! The list of sources on disk, so that a frontend can start while the API of the sources is down.
//!
//! One JSON file, replaced whole by a rename, readable by its owner alone (0600), in a folder that is made for its owner alone (0700). It holds hashes of tokens, never a token.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use galerna_directory::TokenHash;
use galerna_model::{AccountId, QueueName, SourceId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::sources::{KnownSource, Table};

const VERSION: u32 = 1;
/// The largest copy that is read: a million sources.
const MAX_BYTES: u64 = 512 << 20;

#[derive(Serialize, Deserialize)]
struct Copy {
    version: u32,
    read: Timestamp,
    sources: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    id: SourceId,
    account: AccountId,
    queue: QueueName,
    token_hash: String,
}

/// Replaces the copy; a crash at any point leaves the old one or the new one.
pub(crate) async fn save(path: PathBuf, table: Arc<Table>) -> io::Result<()> {
    on_blocking_thread(move || write(&path, &table)).await
}

/// Reads the copy; `None` when there is none yet.
pub(crate) async fn load(path: PathBuf) -> io::Result<Option<Table>> {
    on_blocking_thread(move || match File::open(&path) {
        Ok(file) => read(file).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    })
    .await
}

async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn write(path: &Path, table: &Table) -> io::Result<()> {
    let entries = table.sources.values().map(|known| Entry {
        id: known.id.clone(),
        account: known.account.clone(),
        queue: known.queue.clone(),
        token_hash: known.token.to_string(),
    });
    let copy = Copy { version: VERSION, read: table.read, sources: entries.collect() };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut made = fs::DirBuilder::new();
    made.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut made, 0o700);
    made.create(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    let written = (|| {
        let mut file = BufWriter::new(private(&temporary)?);
        serde_json::to_writer(&mut file, &copy)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // Whatever is left of it is of no use; that it cannot be removed changes nothing.
        drop(fs::remove_file(&temporary));
    }
    written
}

fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn read(file: File) -> io::Result<Table> {
    let copy: Copy = serde_json::from_reader(BufReader::new(file.take(MAX_BYTES)))?;
    if copy.version != VERSION {
        let problem = format!("it has version {}, this build reads version {VERSION}", copy.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut sources = HashMap::with_capacity(copy.sources.len());
    for entry in copy.sources {
        let token = TokenHash::parse(&entry.token_hash)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("source `{}`: {e}", entry.id)))?;
        let Entry { id, account, queue, .. } = entry;
        sources.insert(id.clone(), Arc::new(KnownSource { id, account, queue, token }));
    }
    Ok(Table { sources, read: copy.read })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_that_is_cut_off_or_of_another_version_is_an_error_and_no_copy_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/for it/sources.json");
        assert!(load(path.clone()).await.unwrap().is_none());
        let known = KnownSource {
            id: SourceId::new("s").unwrap(),
            account: AccountId::new("a").unwrap(),
            queue: QueueName::new("q").unwrap(),
            token: TokenHash::of("t"),
        };
        let sources = HashMap::from([(known.id.clone(), Arc::new(known.clone()))]);
        save(path.clone(), Arc::new(Table { sources, read: Timestamp(7) })).await.unwrap();
        let loaded = load(path.clone()).await.unwrap().unwrap();
        assert_eq!(loaded.read, Timestamp(7));
        assert_eq!(*loaded.sources[&known.id], known);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
        #[cfg(unix)]
        for (part, mode) in [("made", 0o700), ("made/for it", 0o700), ("made/for it/sources.json", 0o600)] {
            use std::os::unix::fs::PermissionsExt;
            let found = fs::metadata(folder.path().join(part)).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{part}");
        }

        let text = fs::read_to_string(&path).unwrap();
        for broken in [&text[..text.len() / 2], &text.replace("\"version\":1", "\"version\":9"), ""] {
            fs::write(&path, broken).unwrap();
            assert!(load(path.clone()).await.is_err(), "{broken}");
        }
    }
}
