//! What is kept, in one SQLite file: accounts, channels with their cursors, what came in and what became of it, posts, and notices.
//!
//! A channel's cursor is written in the transaction that also logs the statuses up to it and keeps the posts that they ask for. So after a
//! crash a channel goes on exactly where its effects end.

mod log;
mod notices;
mod posts;
mod record;
mod schema;

use std::path::Path;

use galerna_model::Timestamp;
use galerna_sqlite::{Limits, OpenError, Plain, SqliteError, Writer};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::channel::{Account, Channel};
use crate::status::StatusId;

pub use log::{LogEntry, LogQuery};
pub use notices::Notice;
pub use posts::{Post, PostEnd, PostState};
pub use record::{JudgedPage, Recorded};

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store failed while {attempted}: {cause}")]
pub struct StoreError {
    /// What was tried.
    pub attempted: &'static str,
    /// What SQLite said.
    pub cause: SqliteError,
}

/// A channel as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChannel {
    /// What it is told to be.
    pub channel: Channel,
    /// Whether it is on.
    pub on: bool,
    /// The last status whose effects are kept; none before it was on for the first time.
    pub cursor: Option<StatusId>,
    /// Statuses up to this one came before it was on, and are left alone.
    pub began: Option<StatusId>,
}

/// The store of this process; no other can have the file open.
#[derive(Debug)]
pub struct Store {
    writer: Writer<Plain>,
}

impl Store {
    /// Opens the file, which is created, with its folder, when missing. Blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { writer: Writer::open(&schema::FORMAT, path, Limits::default())? })
    }

    async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = self.writer.write(move |stored| work(stored.connection())).await;
        done.map_err(|cause| StoreError { attempted, cause })
    }

    /// Keeps an account, or replaces what is known of it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_account(&self, account: Account) -> Result<(), StoreError> {
        self.run("keeping an account", move |connection| {
            let sql = "INSERT INTO accounts (name, server, token) VALUES (?1, ?2, ?3)
                       ON CONFLICT DO UPDATE SET server = ?2, token = ?3";
            connection
                .prepare_cached(sql)?
                .execute([&account.name, &account.server, &account.token])
                .map(drop)
        })
        .await
    }

    /// All accounts, by their names.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.run("listing accounts", |connection| {
            let account =
                |row: &Row<'_>| Ok(Account { name: row.get(0)?, server: row.get(1)?, token: row.get(2)? });
            let sql = "SELECT name, server, token FROM accounts ORDER BY name";
            connection.prepare_cached(sql)?.query_map([], account)?.collect()
        })
        .await
    }

    /// Keeps a channel, or replaces its definition; where it stands is kept unless what it follows is another. A new one is off.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_channel(&self, channel: Channel) -> Result<StoredChannel, StoreError> {
        self.run("keeping a channel", move |connection| {
            let before = stored(connection, &channel.name)?;
            let same = before.as_ref().is_some_and(|before| {
                before.channel.source == channel.source && before.channel.account == channel.account
            });
            let sql = "INSERT INTO channels (name, definition, is_on) VALUES (?1, ?2, 0)
                       ON CONFLICT DO UPDATE SET definition = ?2, cursor = iif(?3, cursor, NULL), began = iif(?3, began, NULL)";
            let definition = serde_json::to_string(&channel).map_err(to_sql_error)?;
            connection.prepare_cached(sql)?.execute(params![channel.name, definition, same])?;
            stored(connection, &channel.name)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
        })
        .await
    }

    /// Switches a channel on or off. What it is now; none if there is no such channel.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn switch(&self, name: &str, on: bool) -> Result<Option<StoredChannel>, StoreError> {
        let name = name.to_owned();
        self.run("switching a channel", move |connection| {
            connection
                .prepare_cached("UPDATE channels SET is_on = ?2 WHERE name = ?1")?
                .execute(params![name, on])?;
            stored(connection, &name)
        })
        .await
    }

    /// Removes a channel; what it logged and posted stays. False if there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove_channel(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.run("removing a channel", move |connection| {
            Ok(connection.prepare_cached("DELETE FROM channels WHERE name = ?1")?.execute([&name])? == 1)
        })
        .await
    }

    /// A channel.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn channel(&self, name: &str) -> Result<Option<StoredChannel>, StoreError> {
        let name = name.to_owned();
        self.run("reading a channel", move |connection| stored(connection, &name)).await
    }

    /// All channels, by their names.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn channels(&self) -> Result<Vec<StoredChannel>, StoreError> {
        self.run("listing channels", |connection| {
            let sql = "SELECT definition, is_on, cursor, began FROM channels ORDER BY name";
            connection.prepare_cached(sql)?.query_map([], channel_of)?.collect()
        })
        .await
    }

    /// Says where a channel begins that was on for the first time.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn begin(&self, name: &str, cursor: StatusId) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.run("beginning a channel", move |connection| {
            let sql = "UPDATE channels SET cursor = ?2, began = ?2 WHERE name = ?1 AND cursor IS NULL";
            connection.prepare_cached(sql)?.execute([name.as_str(), cursor.as_str()]).map(drop)
        })
        .await
    }
}

fn stored(connection: &Connection, name: &str) -> rusqlite::Result<Option<StoredChannel>> {
    let sql = "SELECT definition, is_on, cursor, began FROM channels WHERE name = ?1";
    connection.prepare_cached(sql)?.query_row([name], channel_of).optional()
}

fn channel_of(row: &Row<'_>) -> rusqlite::Result<StoredChannel> {
    let definition = row.get_ref(0)?.as_str()?;
    Ok(StoredChannel {
        channel: serde_json::from_str(definition).map_err(|error| from_sql_error(0, error))?,
        on: row.get(1)?,
        cursor: row.get::<_, Option<String>>(2)?.map(StatusId::new),
        began: row.get::<_, Option<String>>(3)?.map(StatusId::new),
    })
}

fn from_sql_error(column: usize, error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

fn to_sql_error(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

fn millis(time: Timestamp) -> i64 {
    time.as_millis()
}
