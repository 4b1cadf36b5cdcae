//! Accounts, sources and settings in SQLite.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::Sqlite;
use super::columns::{from_json, json, name};
use crate::{Accounts, Result, Settings, Sources};
use galerna_model::{Account, Source};

#[async_trait]
impl Accounts for Sqlite {
    async fn list(&self) -> Result<Vec<Account>> {
        self.read("listing accounts", |conn| {
            conn.prepare_cached("SELECT id, name, queue, active FROM accounts ORDER BY id")?
                .query_map([], |row| {
                    Ok(Account {
                        id: name(row, 0)?,
                        name: row.get(1)?,
                        queue: name(row, 2)?,
                        active: row.get(3)?,
                    })
                })?
                .collect()
        })
        .await
    }

    async fn put(&self, accounts: &[Account]) -> Result<()> {
        let accounts = accounts.to_vec();
        self.write("storing accounts", move |writer| {
            let mut put = writer.connection().prepare_cached(
                "INSERT OR REPLACE INTO accounts (id, name, queue, active) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for a in &accounts {
                put.execute(params![a.id.as_str(), a.name, a.queue.as_str(), a.active])?;
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Sources for Sqlite {
    async fn list(&self) -> Result<Vec<Source>> {
        self.read("listing sources", |conn| {
            conn.prepare_cached("SELECT id, account, token_hash, active FROM sources ORDER BY id")?
                .query_map([], |row| {
                    Ok(Source {
                        id: name(row, 0)?,
                        account: name(row, 1)?,
                        token_hash: row.get(2)?,
                        active: row.get(3)?,
                    })
                })?
                .collect()
        })
        .await
    }

    async fn put(&self, sources: &[Source]) -> Result<()> {
        let sources = sources.to_vec();
        self.write("storing sources", move |writer| {
            let mut put = writer.connection().prepare_cached(
                "INSERT OR REPLACE INTO sources (id, account, token_hash, active) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for s in &sources {
                put.execute(params![s.id.as_str(), s.account.as_str(), s.token_hash, s.active])?;
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Settings for Sqlite {
    async fn get(&self, key: &str) -> Result<Option<serde_json::Value>> {
        let key = key.to_owned();
        self.read("reading a setting", move |conn| {
            conn.prepare_cached("SELECT value FROM settings WHERE key = ?1")?
                .query_row([&key], |row| from_json(row, 0))
                .optional()
        })
        .await
    }

    async fn put(&self, key: &str, value: &serde_json::Value) -> Result<()> {
        let (key, value) = (key.to_owned(), value.clone());
        self.write("storing a setting", move |writer| {
            writer
                .connection()
                .prepare_cached("INSERT OR REPLACE INTO settings (key, value) VALUES (?1, ?2)")?
                .execute(params![key, json(&value)?])
                .map(|_| ())
        })
        .await
    }
}
