//! In an SQLite file, for one process, which keeps all lists in memory too: they are read for each call and changed rarely.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use galerna_lock::RwLock;
use galerna_sqlite::{Format, Limits, OpenError, Plain, SqliteError, Tuning, Writer};
use rusqlite::{Connection, params};

use super::{Added, Contact, List, Lists, Removed};
use crate::store::StoreError;

/// Files of this store.
const FORMAT: Format = Format {
    what: "store of notification lists",
    application_id: 0x446f_774c, // DowL
    version: 1,
    tables: &["lists", "contacts"],
    bring_up,
    lock_suffix: "-lock",
    companions: &[],
    shared: false,
};

const TABLES: &str = "
CREATE TABLE lists (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE contacts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, list TEXT NOT NULL, key TEXT NOT NULL, address TEXT NOT NULL, UNIQUE (list, key)
);
";

fn bring_up(connection: &Connection, found: i64) -> rusqlite::Result<()> {
    if found == 0 { connection.execute_batch(TABLES) } else { Ok(()) }
}

/// What is committed.
type Kept = BTreeMap<String, Arc<List>>;

/// An open store.
#[derive(Clone)]
pub struct EmbeddedLists(Arc<Shared>);

struct Shared {
    writer: Writer<Plain>,
    kept: RwLock<Kept>,
    /// Held over a change and its coming into memory, so that changes come there in their order.
    changing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for EmbeddedLists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLists").finish_non_exhaustive()
    }
}

fn load(connection: &Connection, name: &str) -> rusqlite::Result<Option<List>> {
    if !connection.prepare_cached("SELECT 1 FROM lists WHERE name = ?1")?.exists([name])? {
        return Ok(None);
    }
    let sql = "SELECT address FROM contacts WHERE list = ?1 ORDER BY seq";
    let contacts =
        connection.prepare_cached(sql)?.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(Some(List { name: name.to_owned(), contacts }))
}

impl EmbeddedLists {
    /// Opens the file, which is created, with its folder, when missing. Blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let opened = FORMAT.open(path, &Tuning::default())?;
        let read = |connection: &Connection| -> rusqlite::Result<Kept> {
            let names: Vec<String> = connection
                .prepare("SELECT name FROM lists")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut kept = Kept::new();
            for name in names {
                if let Some(list) = load(connection, &name)? {
                    kept.insert(name, Arc::new(list));
                }
            }
            Ok(kept)
        };
        let kept = read(opened.connection())
            .map_err(|cause| OpenError::Sqlite { file: path.to_owned(), cause: cause.into() })?;
        drop(opened);
        let writer = Writer::open(&FORMAT, path, Limits::default())?;
        Ok(Self(Arc::new(Shared { writer, kept: RwLock::new(kept), changing: tokio::sync::Mutex::new(()) })))
    }

    /// Changes a list. It is done, and seen, whether or not the caller still waits.
    async fn change<T: Send + 'static>(
        &self,
        attempted: &'static str,
        name: &str,
        mut work: impl FnMut(&Connection, &str) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let changing = tokio::spawn(async move {
            let _one_at_a_time = shared.changing.lock().await;
            let changed = name.clone();
            let write = shared.writer.write(move |stored| {
                let outcome = work(stored.connection(), &changed)?;
                Ok((outcome, load(stored.connection(), &changed)?))
            });
            let (outcome, list) = write.await?;
            let mut kept = shared.kept.write();
            match list {
                Some(list) => drop(kept.insert(name, Arc::new(list))),
                None => drop(kept.remove(&name)),
            }
            Ok(outcome)
        });
        let changed = changing.await.unwrap_or_else(|_| Err(SqliteError::closed()));
        changed.map_err(|error| {
            let passes = error.is_transient();
            StoreError { attempted, passes, cause: error.cause }
        })
    }

    fn kept(&self, name: &str) -> Option<Arc<List>> {
        self.0.kept.read().get(name).cloned()
    }
}

fn has_contact(connection: &Connection, list: &str, key: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM contacts WHERE list = ?1 AND key = ?2")?.exists([list, key])
}

fn has_list(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM lists WHERE name = ?1")?.exists([name])
}

#[async_trait]
impl Lists for EmbeddedLists {
    async fn all(&self) -> Result<Vec<Arc<List>>, StoreError> {
        Ok(self.0.kept.read().values().cloned().collect())
    }

    async fn get(&self, name: &str) -> Result<Option<Arc<List>>, StoreError> {
        Ok(self.kept(name))
    }

    async fn create(&self, name: &str) -> Result<Added, StoreError> {
        if self.kept(name).is_some() {
            return Ok(Added::Exists);
        }
        self.change("adding a list", name, |connection, name| {
            let added = connection
                .prepare_cached("INSERT INTO lists (name) VALUES (?1) ON CONFLICT DO NOTHING")?
                .execute([name])?;
            Ok(if added == 1 { Added::Yes } else { Added::Exists })
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<bool, StoreError> {
        if self.kept(name).is_none() {
            return Ok(false);
        }
        self.change("removing a list", name, |connection, name| {
            connection.prepare_cached("DELETE FROM contacts WHERE list = ?1")?.execute([name])?;
            Ok(connection.prepare_cached("DELETE FROM lists WHERE name = ?1")?.execute([name])? == 1)
        })
        .await
    }

    async fn add(&self, list: &str, contact: &Contact) -> Result<Added, StoreError> {
        match self.kept(list) {
            None => return Ok(Added::NoList),
            Some(list) if list.has(contact.key()) => return Ok(Added::Exists),
            Some(_) => {}
        }
        let contact = contact.clone();
        self.change("adding a contact", list, move |connection, list| {
            if !has_list(connection, list)? {
                return Ok(Added::NoList);
            }
            let sql = "INSERT INTO contacts (list, key, address) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            let added =
                connection.prepare_cached(sql)?.execute(params![list, contact.key(), contact.address()])?;
            Ok(if added == 1 { Added::Yes } else { Added::Exists })
        })
        .await
    }

    async fn drop_contact(&self, list: &str, key: &str) -> Result<Removed, StoreError> {
        match self.kept(list) {
            None => return Ok(Removed::NoList),
            Some(list) if !list.has(key) => return Ok(Removed::Unknown),
            Some(_) => {}
        }
        let key = key.to_owned();
        self.change("removing a contact", list, move |connection, list| {
            if !has_contact(connection, list, &key)? {
                return Ok(if has_list(connection, list)? { Removed::Unknown } else { Removed::NoList });
            }
            let sql = "DELETE FROM contacts WHERE list = ?1 AND key = ?2";
            connection.prepare_cached(sql)?.execute([list, &key]).map(|_| Removed::Yes)
        })
        .await
    }

    async fn close(&self) {
        self.0.writer.close();
    }
}
