//! The bolts that ingestion is made of.
//!
//! | bolt | takes | emits |
//! |---|---|---|
//! | [`ValidateBolt`] | [`Incoming`](galerna_model::Incoming) messages | `valid` [`ReadingBatch`]es, `rejected` [`RejectedBatch`]es |
//! | [`StoreBolt`] | `Arc<ReadingBatch>` | nothing: the readings are in the store |
//! | [`RejectBolt`] | `Arc<RejectedBatch>` | nothing: they are recorded and in the dead letters |
//! | [`AlertBolt`] | `Arc<ReadingBatch>` | nothing: alert events are recorded and on the queue [`ALERTS_QUEUE`] |
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use galerna_bolts::*;
//! use galerna_broker::Broker;
//! use galerna_model::{Incoming, ParameterRegistry, ValidationLimits};
//! use galerna_storage::Store;
//! use galerna_topology::{Stream, TopologyBuilder};
//!
//! fn wire(topology: &mut TopologyBuilder, messages: &Stream<Incoming>, store: Store, broker: Arc<dyn Broker>) {
//!     let registry = Arc::new(ParameterRegistry::built_in());
//!     let checked = topology
//!         .bolt("validate", move || ValidateBolt::new(registry.clone(), ValidationLimits::default()))
//!         .fields(messages, |message| &message.queue)
//!         .outputs();
//!     let readings = store.readings.clone();
//!     topology
//!         .async_batch_bolt("store", move || StoreBolt::new(readings.clone(), StoreOptions::default()))
//!         .shuffle(&checked.valid);
//!     let (rejected, dead) = (store.rejected.clone(), broker.clone());
//!     topology
//!         .async_batch_bolt("reject", move || RejectBolt::new(rejected.clone(), dead.clone()))
//!         .shuffle(&checked.rejected);
//!     topology
//!         .async_batch_bolt("alert", move || AlertBolt::new(&store, broker.clone(), AlertOptions::default()))
//!         .fields(&checked.valid, |batch| &batch.account)
//!         .tick_every(Duration::from_secs(1));
//! }
//! ```
//!
//! The unit on the way is the message, not the reading: an envelope of a hundred readings is one tuple on each hop. The domain
//! logic ([`Validator`](galerna_model::Validator), [`CounterMemory`], [`AlertEngine`]) is pure and can be used without a topology.
//!
//! The crate knows broker and storage by their traits only, and no spout.

mod alert;
mod batch;
mod counters;
mod reject;
mod rejection;
mod retry;
mod store;
mod tally;
mod validate;

pub use alert::{
    ALERTS_QUEUE, AlertBolt, AlertEngine, AlertKey, AlertOptions, CLOCK_SKEW, Changes, CloseError,
    CompiledRule, Limit, Moment, Observed, RuleError, RuleSet, RuleState, RuleWarning, Transition,
    close_alert,
};
pub use batch::ReadingBatch;
pub use counters::{CounterMemory, DEFAULT_REMEMBERED_DEVICES};
pub use reject::RejectBolt;
pub use rejection::{RejectedBatch, Rejection};
pub use retry::DEFAULT_RETRY_BUDGET;
pub use store::{StoreBolt, StoreOptions};
pub use tally::StoreTally;
pub use validate::{ValidateBolt, Validated};
