//! What one call of `next` with the release of the lease before costs, alone and among many: does the number of queues
//! matter, and what does HTTP add?

mod peers {
    pub(crate) mod ground;
}

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use galerna_dispatcher::{Leases, NextRequest, Release};
use peers::ground::Ground;

/// `calls` calls, spread over `callers`; the time of all of them.
async fn calls(leases: Arc<dyn Leases>, callers: u64, calls: u64) -> Duration {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..callers {
        let leases = Arc::clone(&leases);
        let share = calls / callers + u64::from(n < calls % callers);
        tasks.spawn(async move {
            let mut release = Vec::new();
            for _ in 0..share {
                let request = NextRequest {
                    consumer: format!("bench-{n}"),
                    count: 1,
                    release,
                    ..NextRequest::default()
                };
                let got = leases.next(request).await.expect("next");
                release = got
                    .into_iter()
                    .map(|l| Release { queue: l.queue, epoch: l.epoch, empty: false })
                    .collect();
            }
            for held in release {
                leases.release(&held).await.expect("released");
            }
        });
    }
    tasks.join_all().await;
    began.elapsed()
}

fn next(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("next");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    for queues in [2_000, 100_000] {
        let ground = runtime.block_on(Ground::of(queues));
        for callers in [1_u64, 4, 12, 64] {
            let ways: [(&str, Arc<dyn Leases>); 2] = [
                ("in process", Arc::new(ground.dispatcher.clone())),
                ("HTTP", Arc::new(ground.client.clone())),
            ];
            for (way, leases) in ways {
                let id = BenchmarkId::new(format!("{way}, {queues} queues"), callers);
                group.bench_function(id, |b| {
                    b.to_async(&runtime).iter_custom(|n| calls(Arc::clone(&leases), callers, n));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, next);
criterion_main!(benches);
