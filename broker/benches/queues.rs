//! How fast messages go through a queue: publishing confirmed windows, and consuming with acks.
//!
//! `cargo bench -p galerna-broker` measures the embedded broker; with `AMQP_URL` set to a server, RabbitMQ beside it
//! (`cargo run -p galerna-test-servers -- cargo bench -p galerna-broker` starts one). Messages have 400 bytes. One publisher
//! sends windows one after another, or 8 send side by side; one consumer acks what each receive gives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna_broker::{Broker, DeleteWhen, Outcome, open};
use galerna_model::{Message, QueueName};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const WAIT: Duration = Duration::from_secs(30);

fn message() -> Message {
    Message { body: vec![b'x'; 400].into(), content_type: "application/json".into(), id: "bench".into() }
}

async fn fresh(broker: &dyn Broker, name: &QueueName) {
    broker.delete(name, DeleteWhen::Always).await.expect("the queue can be deleted");
    broker.declare(name).await.expect("the queue can be declared");
}

/// Publishes `count` messages from `publishers` side by side.
async fn publish(broker: &Arc<dyn Broker>, name: &QueueName, count: u64, window: u64, publishers: u64) {
    let mut running = JoinSet::new();
    for publisher in 0..publishers {
        let (broker, name) = (Arc::clone(broker), name.clone());
        let share = count / publishers + u64::from(publisher < count % publishers);
        running.spawn(async move {
            let mut left = share;
            while left > 0 {
                let messages = (0..left.min(window)).map(|_| (name.clone(), message())).collect();
                broker.publish(messages).await.expect("the window is confirmed");
                left -= left.min(window);
            }
        });
    }
    running.join_all().await;
}

async fn consume(broker: &dyn Broker, name: &QueueName, count: u64, prefetch: u16) {
    let mut consumer = broker.consume(name, prefetch).await.expect("the queue can be consumed");
    let mut left = count;
    while left > 0 {
        let some = consumer.receive(usize::from(prefetch) / 4, WAIT).await.expect("messages come");
        assert!(!some.is_empty(), "{left} messages are missing");
        left -= some.len() as u64;
        let acks = some.iter().map(|d| (d.tag, Outcome::Ack)).collect();
        consumer.settle(acks).await.expect("messages can be acked");
    }
    consumer.close().await.expect("the consumer can be closed");
}

fn bench(criterion: &mut Criterion, runtime: &Runtime, broker: &Arc<dyn Broker>) {
    let name = QueueName::new(format!("bench-{}", std::process::id())).expect("the name is allowed");
    let kind = broker.kind();
    let mut group = criterion.benchmark_group("publish_confirmed");
    for (window, publishers) in [(1_u64, 8_u64), (100, 1), (1000, 1), (100, 8)] {
        let id = BenchmarkId::new(kind, format!("{publishers}x{window}"));
        let batch = window * publishers;
        group.throughput(Throughput::Elements(batch));
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(async {
                    fresh(broker.as_ref(), &name).await;
                    let start = Instant::now();
                    publish(broker, &name, iterations * batch, window, publishers).await;
                    start.elapsed()
                })
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("consume_acked");
    for prefetch in [100_u16, 2000] {
        let batch = 1000;
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::new(kind, format!("prefetch {prefetch}")), |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(async {
                    fresh(broker.as_ref(), &name).await;
                    publish(broker, &name, iterations * batch, 1000, 4).await;
                    let start = Instant::now();
                    consume(broker.as_ref(), &name, iterations * batch, prefetch).await;
                    start.elapsed()
                })
            });
        });
    }
    group.finish();
    runtime.block_on(broker.delete(&name, DeleteWhen::Always)).expect("the queue can be deleted");
}

fn main() {
    let runtime = Runtime::new().expect("a runtime can be built");
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let embedded = EmbeddedBroker::open_with(folder.path().join("queues.db"), EmbeddedOptions::default());
    bench(&mut criterion, &runtime, &(Arc::new(embedded.expect("the store opens")) as Arc<dyn Broker>));
    if let Ok(address) = std::env::var("AMQP_URL") {
        let rabbit = runtime.block_on(open(&address)).expect("the server that AMQP_URL names answers");
        bench(&mut criterion, &runtime, &rabbit);
    }
    criterion.final_summary();
}
