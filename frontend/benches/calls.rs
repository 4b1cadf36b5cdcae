//! One call of so many readings, posted over HTTP and confirmed by RabbitMQ: the load test of the design that this replaces,
//! which took 147 ms for 3,000 readings without waiting for the broker.
//!
//! `cargo bench -p galerna-frontend --bench calls`

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use galerna_broker::Broker;
use galerna_broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use galerna_directory::FileDirectory;
use galerna_frontend::{Directory, Frontend, Limits, Options, Parts, Rate, TokenHash};
use galerna_model::{QueueName, SystemClock};
use galerna_test_servers::RabbitMq;
use serde_json::json;

fn call(readings: usize) -> String {
    let list: Vec<_> = (0..readings)
        .map(|n| {
            json!({"did": format!("{n}a"), "values": [{"p": 401, "v": 4900.0}, {"p": 412, "v": 0.82}], "sqn": 2152,
                   "ts": "2015-04-21T23:15:00+00:00"})
        })
        .collect();
    json!(list).to_string()
}

async fn start(server: &RabbitMq, folder: &std::path::Path) -> (String, Frontend) {
    galerna_tls::install_default_provider();
    let broker = RabbitMqBroker::connect(RabbitMqOptions::new(server.amqp_uri())).await.expect("connected");
    broker.declare(&QueueName::new("Qa").expect("a name")).await.expect("declared");
    let lists = json!({"accounts": [{"id": "a", "queue": "Qa"}],
                       "sources": [{"id": "c1", "account": "a", "token_hash": TokenHash::of("t").to_string()}]});
    let path = folder.join("lists.json");
    std::fs::write(&path, lists.to_string()).expect("written");
    let parts = Parts {
        broker: Arc::new(broker),
        directory: Directory::new(FileDirectory::new(path).expect("a name")),
        hints: None,
        statistics: galerna_storage::sqlite::in_memory().expect("opened").statistics,
        clock: Arc::new(SystemClock),
        registry: prometheus::Registry::new(),
    };
    let unlimited = Rate::new(u32::MAX, u32::MAX);
    let limits = Limits { calls: unlimited, source_readings: unlimited, ..Limits::default() };
    let frontend = Frontend::open(parts, Options { limits, ..Options::default() }).await.expect("opened");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let serving = frontend.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    (format!("http://{address}/readings?source_key=c1&x-dexcell-source-token=t"), frontend)
}

fn calls(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let server = runtime.block_on(RabbitMq::start());
    let (url, _frontend) = runtime.block_on(start(&server, folder.path()));
    let http = reqwest::Client::new();
    let mut group = c.benchmark_group("confirmed_call");
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for readings in [50, 100, 300, 500, 1_000, 2_000, 3_000] {
        let body = call(readings);
        group.throughput(Throughput::Elements(readings as u64));
        group.bench_with_input(BenchmarkId::from_parameter(readings), &body, |b, body| {
            b.to_async(&runtime).iter(async || {
                let answer = http.post(&url).body(body.clone()).send().await.expect("answered");
                assert_eq!(answer.status(), 202);
                answer.bytes().await.expect("read")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
