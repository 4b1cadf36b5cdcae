//! What the stores do a second: see `benches/README.md` for figures.

use std::hint::black_box;
use std::time::Duration;

use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use futures_util::future::join_all;
use galerna_model::{AccountId, Measurement, ParameterCode, QueueName, SourceId, Timestamp};
use galerna_storage::mongo::{self, MongoOptions};
use galerna_storage::{QueueRecord, QueueState, Store, StoredReading, Swap, Swapped, sqlite};
use galerna_test_servers::{Mongo, unique};
use tokio::runtime::Runtime;

/// Readings of a batch: 20 devices of one source, 50 times each.
const BATCH: usize = 1000;
/// Batches stored at once.
const AT_ONCE: usize = 4;
/// Swaps of one call.
const SWAPS: usize = 64;

/// Batch `n`: of one of 100 sources, later than its batches before.
fn batch(n: usize) -> Vec<StoredReading> {
    let source = SourceId::new(format!("BC:6A:29:D0:{:02}", n % 100)).expect("valid");
    let account = AccountId::new(format!("D{:07}", n % 100)).expect("valid");
    let reading = |i: usize| {
        let hour = (n / 100 * BATCH / 20 + i / 20) as i64;
        let values = [(401, 4900.0), (402, hour as f64 * 4.9)];
        StoredReading {
            account: account.clone(),
            source: source.clone(),
            device: format!("Panther_office_{}.elec", i % 20),
            ts: Timestamp(1_483_228_800_000 + hour * 3_600_000),
            sqn: hour as u64,
            values: values.map(|(p, v)| Measurement { p: ParameterCode(p), v }).to_vec(),
            flags: Vec::new(),
            received: Timestamp(1_483_228_800_000),
        }
    };
    (0..BATCH).map(reading).collect()
}

async fn store_all(store: &Store, batches: Vec<Vec<StoredReading>>) {
    let stored = join_all(batches.into_iter().map(|batch| {
        let store = store.clone();
        tokio::spawn(async move { store.readings.store(&batch).await.expect("stored") })
    }));
    black_box(stored.await);
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime, name: &str, store: &Store) {
    let mut next = 0;
    group.throughput(Throughput::Elements((AT_ONCE * BATCH) as u64));
    group.bench_function(format!("{name}/new readings"), |b| {
        b.to_async(runtime).iter_batched(
            || {
                next += AT_ONCE;
                (next - AT_ONCE..next).map(batch).collect()
            },
            |batches| store_all(store, batches),
            BatchSize::PerIteration,
        );
    });
    let known: Vec<_> = (0..AT_ONCE).map(batch).collect();
    group.bench_function(format!("{name}/duplicate readings"), |b| {
        b.to_async(runtime).iter_batched(|| known.clone(), |b| store_all(store, b), BatchSize::PerIteration);
    });

    let account = AccountId::new("acc").expect("valid");
    let mut records: Vec<QueueRecord> = (0..2000)
        .map(|i| {
            QueueRecord::new(
                QueueName::new(format!("D{i:07}")).expect("valid"),
                account.clone(),
                Timestamp(0),
            )
        })
        .collect();
    runtime.block_on(store.queues.create(&records)).expect("created");
    let mut first = 0;
    group.throughput(Throughput::Elements(SWAPS as u64));
    group.bench_function(format!("{name}/swap of {SWAPS}"), |b| {
        b.to_async(runtime).iter_batched(
            || {
                first = if first + SWAPS > records.len() { 0 } else { first };
                let mine = &mut records[first..][..SWAPS];
                first += SWAPS;
                mine.iter_mut()
                    .map(|record| {
                        record.version += 1;
                        record.epoch += 1;
                        record.state = QueueState::Leased;
                        Swap { expected: record.version - 1, record: record.clone() }
                    })
                    .collect::<Vec<_>>()
            },
            |swaps| async move {
                let swapped = store.queues.swap(&swaps).await.expect("swapped");
                assert!(swapped.iter().all(|s| *s == Swapped::Done));
            },
            BatchSize::PerIteration,
        );
    });
}

fn stores(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut group = criterion.benchmark_group("stores");
    group.sample_size(20).measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_secs(1));

    let folder = tempfile::tempdir().expect("a folder");
    let store = runtime.block_on(sqlite::open(folder.path().join("store.db"))).expect("opened");
    bench(&mut group, &runtime, "sqlite", &store);
    drop(store);

    let store = runtime.block_on(async {
        let server = Mongo::shared().await;
        mongo::connect(MongoOptions { database: Some(unique("bench")), ..MongoOptions::new(server.uri()) })
            .await
    });
    bench(&mut group, &runtime, "mongodb", &store.expect("MongoDB answers"));
    group.finish();
}

criterion_group!(benches, stores);
criterion_main!(benches);
