//! Alert rules, states and events in MongoDB.

use async_trait::async_trait;
use bson::{Document, RawDocumentBuf, doc, rawdoc};
use galerna_model::AccountId;

use super::Mongo;
use super::commands::{STATEMENTS, Update};
use super::documents::{date, from_document, to_document};
use super::indexes::{ALERT_EVENTS, ALERT_STATES, RULES};
use crate::{AlertStates, Result, Rules};
use galerna_model::{AlertEvent, AlertEventKind, AlertState, Rule};

#[async_trait]
impl Rules for Mongo {
    async fn list(&self) -> Result<Vec<Rule>> {
        self.list_all("listing alert rules", RULES).await
    }

    async fn put(&self, rule: &Rule) -> Result<()> {
        self.put_all("storing an alert rule", RULES, [(rule.id.as_str(), rule)].into_iter()).await
    }

    async fn delete(&self, id: &str) -> Result<bool> {
        let attempted = "deleting an alert rule";
        let delete = |collection: &'static str, filter: RawDocumentBuf| {
            let command = rawdoc! {
                "delete": collection,
                "deletes": [{ "q": filter, "limit": 0 }],
                "writeConcern": { "w": "majority", "j": true, "wtimeout": 5000 },
            };
            async move { self.command(attempted, command).await }
        };
        // The states first: were the rule gone and its states not, nobody would delete them.
        let quiet = rawdoc! { "_id.rule": id, "phase": { "$ne": "firing" } };
        delete(ALERT_STATES, quiet).await?;
        let reply = delete(RULES, rawdoc! { "_id": id }).await?;
        Ok(reply.get_i32("n").unwrap_or(0) > 0)
    }
}

fn state_id(state: &AlertState) -> Document {
    doc! { "rule": &state.rule, "source": state.source.as_str(), "device": &state.device }
}

#[async_trait]
impl AlertStates for Mongo {
    async fn load(&self, account: &AccountId) -> Result<Vec<AlertState>> {
        let states = self.collection::<Document>(ALERT_STATES);
        let find = states
            .find(doc! { "account": account.as_str() })
            .sort(doc! { "_id": 1 })
            .read_concern(self.settled());
        self.collect("loading alert states", find).await?.into_iter().map(from_document).collect()
    }

    async fn firing(&self, limit: usize) -> Result<Vec<AlertState>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let states = self.collection::<Document>(ALERT_STATES);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let find = states.find(doc! { "phase": "firing" }).sort(doc! { "since": -1 }).limit(limit);
        self.collect("listing what fires", find).await?.into_iter().map(from_document).collect()
    }

    async fn accounts(&self) -> Result<Vec<AccountId>> {
        let states = self.collection::<Document>(ALERT_STATES);
        let distinct = states.distinct("account", doc! {}).read_concern(self.settled());
        let found = self.in_time("listing the accounts of alert states", distinct).await?;
        let mut accounts: Vec<AccountId> =
            found.iter().filter_map(|account| AccountId::new(account.as_str()?).ok()).collect();
        accounts.sort();
        Ok(accounts)
    }

    async fn clear(&self, rule: &str) -> Result<()> {
        let command = rawdoc! {
            "delete": ALERT_STATES,
            "deletes": [{ "q": { "_id.rule": rule }, "limit": 0 }],
            "writeConcern": { "w": "majority", "j": true, "wtimeout": 5000 },
        };
        self.command("deleting alert states", command).await.map(|_| ())
    }

    async fn save(&self, states: &[AlertState]) -> Result<()> {
        for states in states.chunks(STATEMENTS) {
            let mut updates = Vec::with_capacity(states.len());
            for state in states {
                let id = state_id(state);
                let mut fields =
                    to_document(0, state, &["since", "last_seen", "not_before", "received", "heard_at"])?;
                fields.remove("_id");
                updates.push(Update {
                    q: doc! { "_id": id, "last_seen": { "$lte": date(state.last_seen) } },
                    u: doc! { "$set": fields },
                    upsert: true,
                });
            }
            // A duplicate id means that a later state is stored, or that another process stored the first one at the same
            // moment, which may be older than ours: the second try tells.
            for _ in 0..2 {
                let written = self.update("saving alert states", ALERT_STATES, &updates).await?;
                let mut index = 0..;
                updates.retain(|_| index.next().is_some_and(|i| written.refused.contains_key(&i)));
                if updates.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn record(&self, events: &[AlertEvent]) -> Result<usize> {
        let mut new = 0;
        for events in events.chunks(STATEMENTS) {
            let documents: Vec<Document> =
                events.iter().map(|e| to_document(e.id.as_str(), e, &["ts"])).collect::<Result<_>>()?;
            new += self.insert("recording alert events", ALERT_EVENTS, &documents).await?.n;
        }
        Ok(new)
    }

    async fn events(
        &self,
        account: Option<&AccountId>,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<AlertEvent>> {
        self.newest("listing alert events", ALERT_EVENTS, account, "ts", offset, limit).await
    }

    async fn count(&self, kind: AlertEventKind) -> Result<u64> {
        let kind = match kind {
            AlertEventKind::Raised => "raised",
            AlertEventKind::Resolved => "resolved",
        };
        let events = self.collection::<Document>(ALERT_EVENTS);
        self.in_time("counting alert events", events.count_documents(doc! { "kind": kind })).await
    }
}
