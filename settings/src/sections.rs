//! The settings as the modules read them, one struct for each table of `galerna.toml`.
//!
//! A setting that may be left empty is an `Option`; what else it may hold, and what it is by default, is in `schema.rs`. The structs
//! are not `Debug`: some hold secrets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use galerna_lease::StrategyName;
use galerna_model::Timestamp;
use serde::Deserialize;

/// The word for what lives in this process.
const EMBEDDED: &str = "embedded";

/// Where the queues are.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// `embedded`, or the URL of RabbitMQ.
    pub url: String,
    /// RabbitMQ's management API; none: its usual port on the broker's host.
    pub management_url: Option<String>,
    /// Kind of RabbitMQ queue declared.
    pub queue_type: QueueType,
    /// Deliveries of a message before it becomes a dead letter.
    pub max_deliveries: u32,
    /// Delay before a failed message comes again.
    pub retry_delay: Duration,
}

impl Broker {
    /// Whether the broker lives in the process that uses it.
    pub fn is_embedded(&self) -> bool {
        self.url == EMBEDDED
    }
}

/// A kind of RabbitMQ queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    /// Replicated.
    Quorum,
    /// On one node.
    Classic,
}

/// Where states and readings are.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// `embedded`, or the URL of MongoDB.
    pub url: String,
}

impl Store {
    /// Whether the store lives in the process that uses it.
    pub fn is_embedded(&self) -> bool {
        self.url == EMBEDDED
    }
}

/// The dispatcher's API.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Token that every call must carry.
    pub token: Option<String>,
}

/// How queues are leased.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatcher {
    /// The dispatchers that workers, frontends, pages and commands talk to, with commas between them.
    #[serde(default)]
    pub url: String,
    /// How the next queue is chosen.
    pub strategy: StrategyName,
    /// Length of a lease.
    pub lease: Duration,
}

impl Dispatcher {
    /// Each address of [`Self::url`].
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.split(',').map(str::trim).filter(|url| !url.is_empty())
    }
}

/// How the queues' states are kept fresh.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintainer {
    /// Where it answers pings.
    pub listen: SocketAddr,
    /// The maintainer that the dispatcher pings, if any.
    pub url: Option<String>,
    /// Where accounts come from: `store`, a URL or a file.
    #[serde(default)]
    pub accounts: String,
    /// Bearer token of the accounts API.
    pub accounts_token: Option<String>,
    /// Interval of the accounts task.
    pub accounts_every: Duration,
    /// Interval of the empties task.
    pub empties_every: Duration,
    /// Interval of the timeouts task.
    pub timeouts_every: Duration,
    /// Interval of the deletions task.
    pub deletions_every: Duration,
    /// How long a flagged queue that still holds messages is kept.
    pub deletion_grace: Duration,
    /// How long a flagged queue without messages is kept.
    pub deletion_linger: Duration,
    /// The share of the known queues, in percent, that an accounts list must keep to be believed.
    pub guard_keep_percent: usize,
    /// Queues that an accounts list may lose at once whatever their share.
    pub guard_may_lose: usize,
}

impl Maintainer {
    /// Whether the store is the list of accounts.
    pub fn accounts_are_stored(&self) -> bool {
        self.accounts == "store"
    }
}

/// How queues are consumed.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Name under which leases are held.
    pub name: Option<String>,
    /// Queues held at a time, at most.
    pub leases: usize,
    /// Time that an empty queue is kept after its last message.
    pub linger: Duration,
    /// Messages after which a queue goes back even when it is not empty.
    pub messages_per_lease: usize,
    /// Unsettled messages per consumer.
    pub prefetch: u16,
    /// Executors of each of validate, store and alert.
    pub parallelism: usize,
    /// Messages in flight.
    pub max_pending: usize,
    /// Time a message may take before it fails.
    pub message_timeout: Duration,
    /// Time that a stop waits for what is in flight.
    pub drain: Duration,
    /// Where metrics and health are.
    pub listen: SocketAddr,
}

/// How readings are taken over HTTP.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frontend {
    /// Where readings are posted.
    pub listen: SocketAddr,
    /// Where sources and their tokens come from; none: where the accounts come from.
    pub sources: Option<String>,
    /// Interval of the sources' refresh.
    pub sources_every: Duration,
    /// File in which the sources are kept between runs; none: `sources.json` in the folder of the data.
    pub sources_copy: Option<PathBuf>,
    /// Longest body in bytes, unpacked or not.
    pub max_body: usize,
    /// Readings in one call.
    pub max_readings: usize,
    /// Calls that one source may make.
    pub calls_per_second: u32,
    /// Readings that one source may send.
    pub readings_per_second: u32,
    /// Share in percent of the memory for calls, and of the connections, that one source may have at once.
    pub source_percent: usize,
    /// At the end, time from saying so to taking no more calls.
    pub notice: Duration,
}

impl Frontend {
    /// Whether the sources come from the store, when the accounts do.
    pub fn sources_are_stored(&self) -> bool {
        self.sources.as_deref().is_none_or(|sources| sources == "store")
    }
}

/// How alerts are delivered.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notifier {
    /// Where metrics and health are.
    pub listen: SocketAddr,
    /// Internal networks and hosts that webhooks may go to.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Mail server.
    pub smtp_url: Option<String>,
    /// Sender of the mails.
    #[serde(default)]
    pub from: String,
}

/// The web page.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The page that commands about alerts talk to.
    #[serde(default)]
    pub url: String,
    /// Token with which it may be looked at.
    pub viewer_token: Option<String>,
    /// Token with which one may act on it.
    pub operator_token: Option<String>,
    /// URLs of workers, notifiers and frontends in other processes.
    #[serde(default)]
    pub workers: Vec<String>,
}

/// How readings are validated and stored.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    /// CSV of parameters that extends the built-in registry.
    pub parameters: Option<PathBuf>,
    /// JSON file of alert rules put into the store at start.
    pub rules: Option<PathBuf>,
    /// Readings stored in one write.
    pub batch: usize,
    /// How far ahead of the clock a reading's time may be.
    pub max_ahead: Duration,
    /// Readings from before are refused.
    pub not_before: Timestamp,
    /// How late a reading may be, by the readings' times of its device, and still be evaluated by the alert rules in its place.
    pub alert_lateness: Duration,
    /// By the days of this time zone consumption is kept.
    pub consumption_zone: Option<String>,
}

/// The history of messages.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Calls whose messages' history is kept in memory; 0 keeps none.
    pub messages: usize,
    /// OTLP/HTTP collector that it is sent to.
    pub otlp: Option<String>,
}

/// What fires by the clock.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedules {
    /// How long it is kept what became of occurrences.
    pub keep: Duration,
}

/// The log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Its filter.
    #[serde(default)]
    pub level: String,
    /// Its form.
    pub format: LogFormat,
}

/// A form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}
