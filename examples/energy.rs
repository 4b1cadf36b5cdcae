//! Ingestion by hand: meters' posts wait in one queue per account, are leased, validated, stored and watched.
//!
//! ```sh
//! cargo run --example energy
//! ```
//!
//! Everything is in this process and in memory; with `galerna::broker::open("amqp://…")` and
//! `galerna::storage::open("mongodb://…")` the same runs on RabbitMQ and MongoDB.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use galerna::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna::dispatcher::{Dispatcher, DispatcherOptions};
use galerna::ingest::prelude::*;
use galerna::model::{AlertEventKind, Comparison, Condition, Rule, Severity};
use galerna::prelude::*;
use galerna::storage::{QueueRecord, sqlite};

/// Posts as 13 concentrators sent them: `{"source_key": "Bear", "body": [{"did": …, "values": […], "sqn": …, "ts": …}]}`.
const POSTS: &str = include_str!("data/sample_messages.ndjson");

/// The topology: what flows where, and how it is divided.
fn ingest(broker: Arc<dyn Broker>, leases: Arc<dyn Leases>, store: Store) -> Result<Topology, BuildError> {
    let mut topology = TopologyBuilder::new("energy");

    // Leases queues from the dispatcher and consumes them; a message is acked to its queue when all below is done.
    let (queues, dispatcher) = (broker.clone(), leases);
    let messages = topology
        .spout("readings", move || LeasedQueues::new(queues.clone(), dispatcher.clone(), "worker-1"))
        .max_pending(1_000)
        .outputs();

    // Checks every reading against the parameters' registry. A queue always goes to the same task, which so notices
    // counters that run backwards.
    let registry = Arc::new(ParameterRegistry::built_in());
    let checked = topology
        .bolt("validate", move || ValidateBolt::new(registry.clone(), ValidationLimits::default()))
        .fields(messages, |message| &message.queue)
        .parallelism(2)
        .outputs();

    // Readings are written in bulk, each once however often it comes.
    let readings = store.readings.clone();
    topology
        .async_batch_bolt("store", move || StoreBolt::new(readings.clone(), StoreOptions::default()))
        .shuffle(&checked.valid);

    // What cannot be right goes to the dead letters of its queue, with the reason.
    let (rejected, dead) = (store.rejected.clone(), broker.clone());
    topology
        .async_batch_bolt("reject", move || RejectBolt::new(rejected.clone(), dead.clone()))
        .shuffle(&checked.rejected);

    // A bolt of one's own, in one line.
    topology
        .for_each("peak", |batch: Arc<ReadingBatch>| {
            for reading in batch.readings.iter() {
                if reading.values.iter().any(|m| m.p == ParameterCode(401) && m.v > 500_000.0) {
                    println!(
                        "{} of {} takes more than 500 kW at {}",
                        reading.device, reading.account, reading.ts
                    );
                }
            }
        })
        .shuffle(&checked.valid);

    // Rules are evaluated account by account, in the readings' own time.
    topology
        .async_batch_bolt("alert", move || AlertBolt::new(&store, broker.clone(), AlertOptions::default()))
        .fields(&checked.valid, |batch| &batch.account)
        .tick_every(Duration::from_secs(1));

    topology.build()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::in_memory(EmbeddedOptions::default())?);
    let store = sqlite::in_memory()?;
    for rule in rules() {
        store.rules.put(&rule).await?;
    }
    let dispatcher = Dispatcher::open(&store, DispatcherOptions::default()).await?;

    // A queue for each account, and its posts in it.
    let mut readings = 0;
    for line in POSTS.lines() {
        let post: serde_json::Value = serde_json::from_str(line)?;
        let account: AccountId = serde_json::from_value(post["source_key"].clone())?;
        let queue = QueueName::new(account.as_str())?;
        broker.declare(&queue).await?;
        store.queues.create(&[QueueRecord::new(queue.clone(), account, SystemClock.now())]).await?;
        let message =
            Message { body: line.into(), content_type: "application/json".into(), id: String::new() };
        broker.publish(vec![(queue, message)]).await?;
        readings += post["body"].as_array().map_or(0, Vec::len);
    }

    let topology = ingest(broker.clone(), Arc::new(dispatcher.clone()), store.clone())?;
    println!("{}", topology.table());
    let running = Engine::submit(topology, EngineOptions::default()).await?;

    let all_stored = async {
        while store.readings.count(None).await? < readings as u64 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok::<(), galerna::storage::StorageError>(())
    };
    tokio::time::timeout(Duration::from_secs(60), all_stored).await??;
    running.drain(Duration::from_secs(10)).await;

    let raised = store.alert_states.count(AlertEventKind::Raised).await?;
    println!("{readings} readings published, {} stored, {raised} alerts", store.readings.count(None).await?);
    Ok(())
}

/// What is worth an alert.
fn rules() -> [Rule; 2] {
    let rule = |id: &str, name: &str, devices: &str, severity, condition| Rule {
        id: id.into(),
        name: name.into(),
        account: None,
        devices: devices.into(),
        condition,
        severity,
        endpoints: vec![],
        cooldown_ms: 0,
        enabled: true,
    };
    [
        // The whole site went silent on 14 February 2017.
        rule(
            "silent",
            "Panther meter silent for 3 h",
            "Panther_*",
            Severity::Critical,
            Condition::Silent { after_ms: 3 * 3_600_000 },
        ),
        // `clear` is where the alert ends: values that swing about the limit raise one alert, not many.
        rule(
            "peak",
            "Fox meter above 400 kW",
            "Fox_*.elec",
            Severity::Warning,
            Condition::Threshold {
                parameter: ParameterCode(401),
                comparison: Comparison::Above,
                limit: 400_000.0,
                clear: Some(300_000.0),
                for_ms: 0,
            },
        ),
    ]
}
