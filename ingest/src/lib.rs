//! Ingestion: the topology that the worker runs.
//!
//! ```text
//!            leased queues                     valid
//! broker ──────────────────▶ readings ─▶ validate ─┬─▶ store    readings, each once
//!                                          │        └─▶ alert    rules, events, alert queue
//!                                          └─rejected─▶ reject   dead letters with their reason
//! ```
//!
//! A message is one root: it is acked to its queue when its readings are stored, its alerts recorded and its bad readings
//! among the dead letters, and comes again when any of these fails.

mod account_resolver;

use std::sync::Arc;
use std::time::Duration;

use galerna_bolts::{AlertBolt, AlertOptions, RejectBolt, StoreBolt, StoreOptions, ValidateBolt};
use galerna_broker::Broker;
use galerna_lease::Leases;
use galerna_model::{AccountId, QueueName};
use galerna_model::{ParameterRegistry, ValidationLimits};
use galerna_multilang::SerializedStream;
use galerna_spouts::{LeasedOptions, LeasedQueues};
use galerna_storage::Store;
use galerna_topology::{BuildError, Topology, TopologyBuilder};

pub use account_resolver::AccountResolver;

/// What topologies of readings need beside `galerna::prelude`: the queues, what they hold, and the bolts that
/// check, store and watch it.
pub mod prelude {
    pub use galerna_bolts::{
        AlertBolt, AlertOptions, ReadingBatch, RejectBolt, RejectedBatch, StoreBolt, StoreOptions,
        ValidateBolt, Validated,
    };
    pub use galerna_broker::Broker;
    pub use galerna_lease::Leases;
    pub use galerna_model::{
        AccountId, Clock, Envelope, Incoming, Measurement, Message, ParameterCode, ParameterRegistry,
        QueueName, Reading, SourceId, SystemClock, Timestamp, ValidationLimits,
    };
    pub use galerna_spouts::{LeasedOptions, LeasedQueues};
    pub use galerna_storage::{Store, StoredReading};
}

/// How often alert rules are read anew and silent devices looked for.
const ALERT_TICK: Duration = Duration::from_secs(1);

/// Tells the account that owns a queue; `None` when it is not known (yet).
pub type AccountOf = Arc<dyn Fn(&QueueName) -> Option<AccountId> + Send + Sync>;

/// What ingestion works with.
#[derive(Clone)]
pub struct Ingestion {
    /// Name under which leases are held.
    pub consumer: String,
    /// Where the queues are.
    pub broker: Arc<dyn Broker>,
    /// Where leases come from: a dispatcher in this process or elsewhere.
    pub leases: Arc<dyn Leases>,
    /// Where readings, rejections and alerts go.
    pub store: Store,
    /// Whose queue it is.
    pub account_of: AccountOf,
    /// The parameters that readings may have.
    pub parameters: Arc<ParameterRegistry>,
    /// What readings must keep beside their parameters' ranges.
    pub limits: ValidationLimits,
    /// How queues are leased and consumed.
    pub leasing: LeasedOptions,
    /// How readings are written.
    pub storing: StoreOptions,
    /// How rules are evaluated.
    pub alerting: AlertOptions,
    /// Executors of each bolt.
    pub parallelism: usize,
    /// Messages in flight.
    pub max_pending: usize,
    /// How long a message may take before it fails and comes again.
    pub message_timeout: Duration,
}

/// Wires the topology. All its streams have a form outside of the process, so that parts of it can run elsewhere.
///
/// # Errors
/// [`BuildError`] when a setting cannot be, such as a parallelism of 0.
pub fn topology(of: &Ingestion) -> Result<Topology, BuildError> {
    let mut topology = TopologyBuilder::new("ingest");

    let ingestion = of.clone();
    let messages = topology
        .spout("readings", move || {
            LeasedQueues::new(ingestion.broker.clone(), ingestion.leases.clone(), ingestion.consumer.clone())
                .with_options(ingestion.leasing.clone())
                .with_accounts(ingestion.account_of.clone())
        })
        .max_pending(of.max_pending)
        .message_timeout(of.message_timeout)
        .outputs();

    // A queue always goes to the same task, which so sees its counters in order.
    let (parameters, limits) = (of.parameters.clone(), of.limits.clone());
    let checked = topology
        .bolt("validate", move || ValidateBolt::new(parameters.clone(), limits.clone()))
        .fields(messages.serialized().keyed_by(["queue"]), |message| &message.queue)
        .parallelism(of.parallelism)
        .outputs();

    let (readings, storing) = (of.store.readings.clone(), of.storing.clone());
    topology
        .async_batch_bolt("store", move || StoreBolt::new(readings.clone(), storing.clone()))
        .shuffle(checked.valid.serialized())
        .parallelism(of.parallelism);

    let (rejected, broker) = (of.store.rejected.clone(), of.broker.clone());
    topology
        .async_batch_bolt("reject", move || RejectBolt::new(rejected.clone(), broker.clone()))
        .shuffle(checked.rejected.serialized());

    let (store, broker, alerting) = (of.store.clone(), of.broker.clone(), of.alerting.clone());
    topology
        .async_batch_bolt("alert", move || AlertBolt::new(&store, broker.clone(), alerting.clone()))
        .fields(checked.valid.serialized().keyed_by(["account"]), |batch| &batch.account)
        .parallelism(of.parallelism)
        .tick_every(ALERT_TICK);

    topology.build()
}
