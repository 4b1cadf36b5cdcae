//! How long after a hint a consumer that waits on empty queues has its lease: `cargo bench -p galerna-dispatcher --bench wake`.
//!
//! One consumer waits over HTTP; a hint names its queue; what is measured is from before the hint is sent to when the
//! answer of the waiting call is here, durable write of the lease included.

mod peers {
    pub(crate) mod ground;
}

use std::time::{Duration, Instant};

use galerna_dispatcher::{Leases, NextRequest, Release};
use peers::ground::Ground;

const QUEUES: usize = 2_000;
const TIMES: usize = 300;

#[tokio::main]
async fn main() {
    let ground = Ground::of(QUEUES).await;
    let asking = |wait| NextRequest { consumer: "w".to_owned(), wait, count: 1, ..NextRequest::default() };
    // All are emptied, so that a call can only wait.
    let mut emptied = Vec::new();
    loop {
        let request = NextRequest { count: 500, ..asking(Duration::ZERO) };
        let got = ground.client.next(request).await.expect("next");
        if got.is_empty() {
            break;
        }
        for lease in got {
            let release = Release { queue: lease.queue.clone(), epoch: lease.epoch, empty: true };
            ground.client.release(&release).await.expect("released");
            emptied.push(lease.queue);
        }
    }
    let mut times = Vec::with_capacity(TIMES);
    for n in 0..TIMES {
        let client = ground.client.clone();
        let request = asking(Duration::from_secs(20));
        let waiting = tokio::spawn(async move { client.next(request).await });
        while !ground.dispatcher.metrics_text().contains("waiting_callers 1") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let queue = &emptied[n % emptied.len()];
        let began = Instant::now();
        ground.client.hint(std::slice::from_ref(queue)).await.expect("hinted");
        let lease = waiting.await.expect("joined").expect("next").pop().expect("a lease");
        times.push(began.elapsed());
        let release = Release { queue: lease.queue, epoch: lease.epoch, empty: true };
        ground.client.release(&release).await.expect("released");
    }
    times.sort_unstable();
    let of = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{TIMES} wakes: p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms", of(0.5), of(0.99), of(1.0));
}
