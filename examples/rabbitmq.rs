//! Messages from queues of a RabbitMQ server, leased so that each queue has one consumer at a time.
//!
//! ```sh
//! AMQP_URL=amqp://guest:guest@localhost:5672/%2f cargo run --example rabbitmq
//! ```
//!
//! What succeeds is acked on the server; what fails is given back and comes again, and after its last delivery it is in
//! the queue `<queue>.dead` with the reason.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use galerna::dispatcher::{Dispatcher, DispatcherOptions};
use galerna::ingest::prelude::*;
use galerna::prelude::*;
use galerna::storage::{QueueRecord, sqlite};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("AMQP_URL").context("set AMQP_URL to the server's address, amqp://…")?;
    let broker = galerna::broker::open(&url).await?;
    // The dispatcher keeps its state here; a real one keeps it in MongoDB, for all workers.
    let store = sqlite::in_memory()?;
    let dispatcher = Dispatcher::open(&store, DispatcherOptions::default()).await?;

    for account in ["bear", "fox"] {
        let queue = QueueName::new(format!("example-{account}"))?;
        broker.declare(&queue).await?;
        let record = QueueRecord::new(queue.clone(), AccountId::new(account)?, SystemClock.now());
        store.queues.create(&[record]).await?;
        for n in 1..=3 {
            let message = Message {
                body: format!("{account} says {n}").into(),
                content_type: "text/plain".into(),
                id: format!("{account}-{n}"),
            };
            broker.publish(vec![(queue.clone(), message)]).await?;
        }
    }

    let (done, mut finished) = mpsc::channel(16);
    let mut topology = TopologyBuilder::new("rabbitmq");
    let (queues, leases) = (broker.clone(), Arc::new(dispatcher));
    let messages = topology
        .spout("queues", move || LeasedQueues::new(queues.clone(), leases.clone(), "worker-1"))
        .outputs();
    topology
        .for_each("print", move |message: Incoming| {
            let text = String::from_utf8_lossy(&message.message.body).into_owned();
            done.try_send(format!("{}: {text}", message.queue))
        })
        .key_by(messages, |message| message.queue.clone());

    let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
    for _ in 0..6 {
        let line = tokio::time::timeout(Duration::from_secs(60), finished.recv()).await?;
        println!("{}", line.context("the topology has ended")?);
    }
    let report = running.drain(Duration::from_secs(10)).await;
    let acked = report.metrics.component("queues").map_or(0, |queues| queues.acked);
    println!("{acked} messages acked");
    Ok(())
}
