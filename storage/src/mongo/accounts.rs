//! Accounts, sources and settings in MongoDB.

use async_trait::async_trait;
use bson::{Document, doc, rawdoc};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Mongo;
use super::commands::{STATEMENTS, Update};
use super::documents::{from_document, to_document};
use super::indexes::{ACCOUNTS, SETTINGS, SOURCES};
use crate::{Accounts, Result, Settings, Sources, StorageError};
use galerna_model::{Account, Source};

impl Mongo {
    /// Replaces documents by id, or inserts them.
    pub(super) async fn put_all<'a, T: Serialize + 'a>(
        &self,
        attempted: &str,
        collection: &str,
        records: impl Iterator<Item = (&'a str, &'a T)>,
    ) -> Result<()> {
        let mut updates = Vec::new();
        for (id, record) in records {
            updates.push(Update { q: rawdoc! { "_id": id }, u: to_document(id, record, &[])?, upsert: true });
        }
        for updates in updates.chunks(STATEMENTS) {
            self.update(attempted, collection, updates).await?;
        }
        Ok(())
    }

    /// All documents of a collection, by id.
    pub(super) async fn list_all<T: DeserializeOwned>(
        &self,
        attempted: &str,
        collection: &str,
    ) -> Result<Vec<T>> {
        let documents = self.collection::<Document>(collection);
        let find = documents.find(doc! {}).sort(doc! { "_id": 1 }).read_concern(self.settled());
        self.collect(attempted, find).await?.into_iter().map(from_document).collect()
    }
}

#[async_trait]
impl Accounts for Mongo {
    async fn list(&self) -> Result<Vec<Account>> {
        self.list_all("listing accounts", ACCOUNTS).await
    }

    async fn put(&self, accounts: &[Account]) -> Result<()> {
        self.put_all("storing accounts", ACCOUNTS, accounts.iter().map(|a| (a.id.as_str(), a))).await
    }
}

#[async_trait]
impl Sources for Mongo {
    async fn list(&self) -> Result<Vec<Source>> {
        self.list_all("listing sources", SOURCES).await
    }

    async fn put(&self, sources: &[Source]) -> Result<()> {
        self.put_all("storing sources", SOURCES, sources.iter().map(|s| (s.id.as_str(), s))).await
    }
}

/// A setting is kept as JSON text: any JSON value comes back as it went.
#[async_trait]
impl Settings for Mongo {
    async fn get(&self, key: &str) -> Result<Option<serde_json::Value>> {
        let attempted = "reading a setting";
        let settings = self.collection::<Document>(SETTINGS);
        let find = settings
            .find_one(doc! { "_id": key })
            .read_concern(self.linearizable())
            .max_time(super::commands::WRITE_TIME);
        let unreadable = |e: String| StorageError::Failed {
            attempted: attempted.to_owned(),
            cause: format!("setting `{key}` cannot be read: {e}"),
        };
        match self.in_time(attempted, find).await? {
            None => Ok(None),
            Some(setting) => {
                let text = setting.get_str("value").map_err(|e| unreadable(e.to_string()))?;
                serde_json::from_str(text).map(Some).map_err(|e| unreadable(e.to_string()))
            }
        }
    }

    async fn put(&self, key: &str, value: &serde_json::Value) -> Result<()> {
        let replacement = rawdoc! { "_id": key, "value": value.to_string() };
        let update = Update { q: rawdoc! { "_id": key }, u: replacement, upsert: true };
        self.update("storing a setting", SETTINGS, &[update]).await.map(|_| ())
    }
}
