//! What is stored, read from MongoDB with its driver.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bson::{Document, doc};
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::{Client, Collection};
use tokio::task::JoinHandle;

use crate::cluster::DATABASE;
use crate::load::Identity;

/// How often each reading is stored, as a majority has it.
pub(crate) struct Stored(HashMap<Identity, u64>);

fn readings(mongo: &Client) -> Collection<Document> {
    mongo.database(DATABASE).collection("readings")
}

impl Stored {
    pub(crate) async fn read(mongo: &Client) -> Result<Self> {
        let readings = readings(mongo);
        let find = readings.find(doc! {}).projection(doc! { "_id": 0, "source": 1, "device": 1, "ts": 1 });
        let mut found = find.read_concern(ReadConcern::majority()).await?;
        let mut stored: HashMap<Identity, u64> = HashMap::new();
        while found.advance().await? {
            let reading: Document = found.deserialize_current()?;
            let ts = reading.get_datetime("ts").context("a reading has no time")?.timestamp_millis();
            let text = |name: &str| reading.get_str(name).map(str::to_owned);
            let identity = (text("source")?, text("device")?, u64::try_from(ts / 1_000)?);
            *stored.entry(identity).or_default() += 1;
        }
        Ok(Self(stored))
    }

    /// How many of these there are.
    pub(crate) fn count(&self, of: &HashSet<Identity>) -> u64 {
        of.iter().filter(|reading| self.0.contains_key(*reading)).count() as u64
    }

    pub(crate) fn doubled(&self) -> u64 {
        self.0.values().map(|count| count - 1).sum()
    }

    /// What is stored and was never posted.
    pub(crate) fn unknown(&self, posted: &HashSet<Identity>) -> u64 {
        self.0.keys().filter(|reading| !posted.contains(*reading)).count() as u64
    }
}

/// How many readings there are, about: quick, and told by any member.
pub(crate) async fn estimate(mongo: &Client) -> Result<u64> {
    let nearest = SelectionCriteria::ReadPreference(ReadPreference::SecondaryPreferred { options: None });
    Ok(readings(mongo).estimated_document_count().selection_criteria(nearest).await?)
}

/// Watches how long it takes until something more is stored.
pub(crate) struct Growth {
    state: Arc<Mutex<(Instant, Duration)>>,
    task: JoinHandle<()>,
}

impl Growth {
    pub(crate) fn watch(mongo: Client) -> Self {
        let state = Arc::new(Mutex::new((Instant::now(), Duration::ZERO)));
        let kept = state.clone();
        let task = tokio::spawn(async move {
            let mut most = 0;
            loop {
                if let Ok(count) = estimate(&mongo).await
                    && count > most
                {
                    most = count;
                    let mut state = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    let now = Instant::now();
                    *state = (now, state.1.max(now - state.0));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { state, task }
    }

    /// The longest time without anything more stored, since this was called last.
    pub(crate) fn take_gap(&self) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.1).max(state.0.elapsed())
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.task.abort();
    }
}
