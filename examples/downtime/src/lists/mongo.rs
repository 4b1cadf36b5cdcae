//! In MongoDB, for any number of processes.
//!
//! A list is one document, and each change one guarded update of it: so a standalone server serves as well as a replica set. Writes
//! are acknowledged by a majority and journaled.

use std::future::IntoFuture;
use std::sync::Arc;

use async_trait::async_trait;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use galerna_mongo::CallError;
use mongodb::Collection;
use mongodb::error::Error;
use serde::{Deserialize, Serialize};

use super::{Added, Contact, List, Lists, Removed};
use crate::store::StoreError;

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    #[serde(rename = "_id")]
    name: String,
    contacts: Vec<StoredContact>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredContact {
    key: String,
    address: String,
}

impl From<Stored> for Arc<List> {
    fn from(stored: Stored) -> Self {
        let contacts = stored.contacts.into_iter().map(|contact| contact.address).collect();
        Self::new(List { name: stored.name, contacts })
    }
}

/// An open store: the collection `notification_lists` of a database.
#[derive(Debug, Clone)]
pub struct MongoLists {
    lists: Collection<Stored>,
}

fn failed(attempted: &'static str) -> impl Fn(CallError) -> StoreError {
    move |error| StoreError { attempted, passes: error.is_transient(), cause: error.to_string() }
}

async fn in_time<T>(
    attempted: &'static str,
    call: impl IntoFuture<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    galerna_mongo::in_time(call).await.map_err(failed(attempted))
}

impl MongoLists {
    /// Connects by a URL such as `mongodb://host/database`.
    ///
    /// # Errors
    /// When the URL is wrong or names no database, or the server does not answer.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let attempted = "opening MongoDB";
        galerna_tls::install_default_provider();
        let database = galerna_mongo::connect_named(url).await.map_err(failed(attempted))?;
        let lists = galerna_mongo::durable(&database, "notification_lists");
        in_time(attempted, database.run_command(doc! { "ping": 1 })).await?;
        Ok(Self { lists })
    }

    async fn find(&self, attempted: &'static str, name: &str) -> Result<Option<Stored>, StoreError> {
        in_time(attempted, self.lists.find_one(doc! { "_id": name })).await
    }

    /// Whether a document was there that the update is for.
    async fn update(
        &self,
        attempted: &'static str,
        filter: Document,
        update: Document,
    ) -> Result<bool, StoreError> {
        Ok(in_time(attempted, self.lists.update_one(filter, update)).await?.matched_count == 1)
    }
}

#[async_trait]
impl Lists for MongoLists {
    async fn all(&self) -> Result<Vec<Arc<List>>, StoreError> {
        let attempted = "reading lists";
        let found = async {
            self.lists.find(doc! {}).sort(doc! { "_id": 1 }).await?.try_collect::<Vec<Stored>>().await
        };
        Ok(in_time(attempted, found).await?.into_iter().map(Into::into).collect())
    }

    async fn get(&self, name: &str) -> Result<Option<Arc<List>>, StoreError> {
        Ok(self.find("reading a list", name).await?.map(Into::into))
    }

    async fn create(&self, name: &str) -> Result<Added, StoreError> {
        let list = Stored { name: name.to_owned(), contacts: Vec::new() };
        match galerna_mongo::in_time(self.lists.insert_one(&list)).await {
            Ok(_) => Ok(Added::Yes),
            Err(error) if error.is_duplicate() => Ok(Added::Exists),
            Err(error) => Err(failed("adding a list")(error)),
        }
    }

    async fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let removed = self.lists.delete_one(doc! { "_id": name });
        Ok(in_time("removing a list", removed).await?.deleted_count == 1)
    }

    async fn add(&self, list: &str, contact: &Contact) -> Result<Added, StoreError> {
        let attempted = "adding a contact";
        let free = doc! { "_id": list, "contacts.key": { "$ne": contact.key() } };
        let push = doc! { "$push": { "contacts": { "key": contact.key(), "address": contact.address() } } };
        if self.update(attempted, free, push).await? {
            return Ok(Added::Yes);
        }
        Ok(if self.find(attempted, list).await?.is_some() { Added::Exists } else { Added::NoList })
    }

    async fn drop_contact(&self, list: &str, key: &str) -> Result<Removed, StoreError> {
        let attempted = "removing a contact";
        let there = doc! { "_id": list, "contacts.key": key };
        if self.update(attempted, there, doc! { "$pull": { "contacts": { "key": key } } }).await? {
            return Ok(Removed::Yes);
        }
        Ok(if self.find(attempted, list).await?.is_some() { Removed::Unknown } else { Removed::NoList })
    }

    async fn close(&self) {}
}
