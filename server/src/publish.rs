//! Readings from a file on their way to the queues of their accounts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::BufRead;

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use bytes::Bytes;
use galerna_broker::{Broker, BrokerError};
use galerna_model::envelope::{DecodeLimits, JSON_CONTENT_TYPE, decode_within};
use galerna_model::{
    Account, AccountId, Clock, Decoded, Envelope, Message, QueueName, Reading, SourceId, SystemClock,
};
use galerna_storage::{QueueRecord, QueueState, Store};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::routes::describe_broker_error;
use crate::intervals::Imported;

/// Readings in one message.
pub const BATCH: usize = 200;
/// Messages confirmed together.
const WINDOW: usize = 256;
/// Wrong lines that are shown; the others are counted.
pub(crate) const SHOWN: usize = 10;

/// What was published, by account.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// What each account got.
    pub accounts: BTreeMap<AccountId, Sent>,
    /// Lines that could not be read, and readings that could not be published.
    pub refused: u64,
    /// What was wrong with the first of them.
    pub problems: Vec<String>,
    /// Rows whose value is empty: the meter has no reading there, so none was published.
    #[serde(default)]
    pub without_value: u64,
    /// What importing intervals of meters did.
    #[serde(flatten)]
    pub imported: Imported,
}

/// What one account got.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Sent {
    /// Its queue.
    pub queue: String,
    /// Messages that the broker confirmed.
    pub messages: u64,
    /// Readings in them.
    pub readings: u64,
}

impl Summary {
    /// Counts what was not published, and keeps what was wrong with the first.
    pub fn refuse(&mut self, how_many: usize, problem: String) {
        self.refused += how_many as u64;
        if self.problems.len() < SHOWN {
            self.problems.push(problem);
        }
    }

    /// The queues that got something.
    pub fn queues(&self) -> Vec<QueueName> {
        self.accounts.values().filter_map(|sent| QueueName::new(&sent.queue).ok()).collect()
    }

    /// Readings that the broker confirmed.
    pub fn readings(&self) -> u64 {
        self.accounts.values().map(|sent| sent.readings).sum()
    }

    /// Adds what another call published.
    pub fn add(&mut self, part: Self) {
        for (account, sent) in part.accounts {
            let all = self.accounts.entry(account).or_default();
            all.queue = sent.queue;
            all.messages += sent.messages;
            all.readings += sent.readings;
        }
        self.refused += part.refused;
        self.without_value += part.without_value;
        self.imported.add(part.imported);
        let room = SHOWN.saturating_sub(self.problems.len());
        self.problems.extend(part.problems.into_iter().take(room));
    }
}

/// Who owns what: the queues that there are, and the known sources.
pub struct Directory {
    queues: HashMap<AccountId, QueueName>,
    owners: HashMap<SourceId, AccountId>,
    /// Where to make what is missing; `None` when accounts come from elsewhere.
    makes: Option<Store>,
}

impl Directory {
    /// Reads it from the store. With `makes`, an account that has no queue gets one, named as the account: right where
    /// the store is the list of accounts.
    pub async fn read(store: &Store, makes: bool) -> galerna_storage::Result<Self> {
        let queues = store.queues.all().await?;
        let sources = store.sources.list().await?;
        Ok(Self {
            queues: queues
                .into_iter()
                .filter(|q| q.state != QueueState::Deleting)
                .map(|q| (q.account, q.queue))
                .collect(),
            owners: sources.into_iter().map(|s| (s.id, s.account)).collect(),
            makes: makes.then(|| store.clone()),
        })
    }

    /// The queue of an account; the inner error is the account's own.
    async fn queue(
        &mut self,
        account: &AccountId,
        broker: &dyn Broker,
    ) -> anyhow::Result<Result<QueueName, String>> {
        if let Some(queue) = self.queues.get(account) {
            return Ok(Ok(queue.clone()));
        }
        let Some(store) = &self.makes else {
            let mut known: Vec<&str> = self.queues.keys().map(AccountId::as_str).collect();
            known.sort_unstable();
            let more = known.len().saturating_sub(SHOWN);
            known.truncate(SHOWN);
            let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
            let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
            return Ok(Err(format!("account `{account}` has no queue; those that have: {known}{tail}")));
        };
        let queue = match QueueName::new(account.as_str()) {
            Ok(queue) => queue,
            Err(e) => return Ok(Err(e.to_string())),
        };
        let new =
            Account { id: account.clone(), name: account.to_string(), queue: queue.clone(), active: true };
        store.accounts.put(&[new]).await.context("cannot make the account")?;
        broker.declare(&queue).await.context("cannot make the account's queue")?;
        let record = QueueRecord::new(queue.clone(), account.clone(), SystemClock.now());
        store.queues.create(&[record]).await.context("cannot make the queue's state")?;
        tracing::info!(%account, "a new account has its queue");
        self.queues.insert(account.clone(), queue.clone());
        Ok(Ok(queue))
    }
}

/// Whose readings a file holds, when the file does not say.
#[derive(Debug, Clone, Default)]
pub struct Owner {
    /// The account.
    pub account: Option<AccountId>,
    /// The source.
    pub source: Option<SourceId>,
}

/// Takes readings as they come out of a file.
#[async_trait]
pub trait Target: Send {
    /// Takes readings of one account and source, as far as the file names them. It may keep them until [`flush`](Self::flush).
    ///
    /// # Errors
    /// When they cannot be sent; what is wrong with the readings themselves is counted in the [`summary`](Self::summary).
    async fn send(
        &mut self,
        account: Option<AccountId>,
        source: Option<SourceId>,
        readings: Vec<Reading>,
    ) -> anyhow::Result<()>;

    /// Sends what is kept.
    ///
    /// # Errors
    /// When it cannot be sent.
    async fn flush(&mut self) -> anyhow::Result<()>;

    /// What was published so far.
    fn summary(&mut self) -> &mut Summary;
}

/// Readings on their way to the queues.
pub struct Outgoing<'a> {
    broker: &'a dyn Broker,
    directory: Directory,
    owner: Owner,
    plain_json: bool,
    window: Vec<(QueueName, Message)>,
    /// Account and readings of each message of the window.
    in_window: Vec<(AccountId, u64)>,
    summary: Summary,
    /// Begins the ids of the messages.
    name: String,
    made: u64,
}

impl<'a> Outgoing<'a> {
    /// On the way to the queues of `broker`; `name` begins the ids of the messages.
    pub fn new(
        broker: &'a dyn Broker,
        directory: Directory,
        owner: Owner,
        plain_json: bool,
        name: &str,
    ) -> Self {
        Self {
            broker,
            directory,
            owner,
            plain_json,
            window: Vec::with_capacity(WINDOW),
            in_window: Vec::with_capacity(WINDOW),
            summary: Summary::default(),
            name: name.replace(char::is_whitespace, "_"),
            made: 0,
        }
    }

    /// Whose the readings are that do not say.
    pub fn default_owner(&self) -> &Owner {
        &self.owner
    }

    /// Whether readings of this account can be published; makes its queue where that is the caller's affair. The inner error says
    /// why not.
    pub(crate) async fn accepts(&mut self, account: &AccountId) -> anyhow::Result<Result<(), String>> {
        Ok(self.directory.queue(account, self.broker).await?.map(drop))
    }

    /// Whose readings they are: as they say, as the caller said, or by their source.
    fn owner(
        &self,
        account: Option<AccountId>,
        source: Option<SourceId>,
    ) -> Result<(AccountId, SourceId), String> {
        let account = account.or_else(|| self.owner.account.clone());
        let source = source.or_else(|| self.owner.source.clone());
        let account = match (account, &source) {
            (Some(account), _) => account,
            (None, Some(source)) => match self.directory.owners.get(source) {
                Some(owner) => owner.clone(),
                // Where nobody registered sources, an account's one concentrator has the account's name.
                None => AccountId::new(source.as_str()).map_err(|e| e.to_string())?,
            },
            (None, None) => return Err("the readings name no account; add --account".to_owned()),
        };
        let account = AccountId::for_customer(account.as_str()).map_err(|e| e.to_string())?;
        let source = match source {
            Some(source) => SourceId::for_customer(source.as_str()).map_err(|e| e.to_string())?,
            None => SourceId::new(account.as_str()).map_err(|e| e.to_string())?,
        };
        Ok((account, source))
    }
}

#[async_trait]
impl Target for Outgoing<'_> {
    async fn send(
        &mut self,
        account: Option<AccountId>,
        source: Option<SourceId>,
        readings: Vec<Reading>,
    ) -> anyhow::Result<()> {
        if readings.is_empty() {
            return Ok(());
        }
        let found = match self.owner(account, source) {
            Ok((account, source)) => {
                self.directory.queue(&account, self.broker).await?.map(|queue| (account, source, queue))
            }
            Err(problem) => Err(problem),
        };
        let (account, source, queue) = match found {
            Ok(found) => found,
            Err(problem) => {
                let did = &readings[0].did;
                let problem = format!("{} readings, the first of device `{did}`: {problem}", readings.len());
                self.summary.refuse(readings.len(), problem);
                return Ok(());
            }
        };
        for batch in readings.chunks(BATCH) {
            self.made += 1;
            let envelope = Envelope {
                id: format!("{}-{}-{}", self.name, std::process::id(), self.made),
                account: account.clone(),
                source: source.clone(),
                received: SystemClock.now(),
                readings: batch.to_vec(),
            };
            let message = if self.plain_json {
                let Envelope { id, received, readings, .. } = &envelope;
                let body = json!({ "id": id, "account": account, "source": source, "received": received, "readings": readings });
                Message {
                    body: Bytes::from(body.to_string()),
                    content_type: JSON_CONTENT_TYPE.to_owned(),
                    id: id.clone(),
                }
            } else {
                envelope.encode()
            };
            self.window.push((queue.clone(), message));
            self.in_window.push((account.clone(), batch.len() as u64));
            if self.window.len() >= WINDOW {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        if self.window.is_empty() {
            return Ok(());
        }
        let queues: Vec<String> = self.window.iter().map(|(queue, _)| queue.to_string()).collect();
        let window = std::mem::replace(&mut self.window, Vec::with_capacity(WINDOW));
        let ended = self.broker.publish(window).await;
        let unconfirmed: HashSet<usize> = match &ended {
            Ok(()) => HashSet::new(),
            Err(BrokerError::Unconfirmed { unconfirmed, .. }) => unconfirmed.iter().copied().collect(),
            // Nothing is known of any of them.
            Err(_) => (0..queues.len()).collect(),
        };
        for (i, ((account, readings), queue)) in self.in_window.drain(..).zip(queues).enumerate() {
            if unconfirmed.contains(&i) {
                continue;
            }
            let sent = self.summary.accounts.entry(account).or_default();
            sent.queue = queue;
            sent.messages += 1;
            sent.readings += readings;
        }
        ended.map_err(|e| anyhow!(describe_broker_error(&e)))
    }

    fn summary(&mut self) -> &mut Summary {
        &mut self.summary
    }
}

/// Publishes NDJSON that came over the API.
///
/// # Errors
/// When the broker does not confirm; what was published until then is told all the same.
pub async fn publish_lines(text: &[u8], queues: Outgoing<'_>) -> (Summary, anyhow::Result<()>) {
    let mut queues = queues;
    let ended = match lines(text, &mut queues).await {
        Ok(()) => queues.flush().await,
        Err(e) => Err(e),
    };
    (std::mem::take(&mut queues.summary), ended)
}

/// Takes documents, one a line.
///
/// # Errors
/// When a line cannot be read or the target does not take it; what is wrong with a document is counted.
pub async fn lines(input: impl BufRead, target: &mut dyn Target) -> anyhow::Result<()> {
    for (number, line) in input.split(b'\n').enumerate() {
        let line = line.with_context(|| format!("cannot read line {}", number + 1))?;
        if !line.trim_ascii().is_empty() {
            document(line, &format!("line {}", number + 1), target).await?;
        }
    }
    Ok(())
}

/// Takes a JSON document in any of the forms that queues take.
///
/// # Errors
/// When the target does not take it; what is wrong with the document is counted.
pub async fn document(text: Vec<u8>, place: &str, target: &mut dyn Target) -> anyhow::Result<()> {
    let limits = DecodeLimits { message_bytes: 1 << 30, readings: 10_000_000, ..DecodeLimits::default() };
    let message =
        Message { body: text.into(), content_type: JSON_CONTENT_TYPE.to_owned(), id: String::new() };
    match decode_within(&message, &limits) {
        Ok(Decoded { account, source, readings, bad, .. }) => {
            for bad in bad {
                target
                    .summary()
                    .refuse(1, format!("{place}, reading {}: {}", bad.index + 1, bad.error.reason));
            }
            let readings: Vec<Reading> = readings.into_iter().map(|(_, reading)| reading).collect();
            if let Some(Err(problem)) = account.as_ref().map(|a| AccountId::for_customer(a.as_str())) {
                target.summary().refuse(readings.len().max(1), format!("{place}: {problem}"));
                return Ok(());
            }
            target.send(account, source, readings).await
        }
        Err(e) => {
            target.summary().refuse(1, format!("{place}: {e}"));
            Ok(())
        }
    }
}
