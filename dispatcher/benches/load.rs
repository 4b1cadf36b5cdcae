//! The table of `README.md`: 1, 4, 12 and 64 callers over 2,000 and 100,000 queues, in process, over HTTP, and the naive
//! design beside them, in one run on one MongoDB.
//!
//! `cargo bench -p galerna-dispatcher --bench load`; `SECONDS=2` changes how long each cell is measured.

mod peers {
    pub(crate) mod ground;
    pub(crate) mod naive;
}

use std::sync::Arc;
use std::time::Duration;

use galerna_dispatcher::load::{LoadOptions, LoadReport, run, run_callers};
use peers::ground::Ground;
use peers::naive;

fn row(design: &str, queues: usize, r: &LoadReport) {
    println!(
        "| {design} | {queues} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {} | {} |",
        r.callers, r.leases_per_second, r.mean_ms, r.p50_ms, r.p99_ms, r.max_ms, r.empty_handed, r.errors
    );
}

#[tokio::main]
async fn main() {
    let seconds = std::env::var("SECONDS").ok().and_then(|v| v.parse().ok()).unwrap_or(3);
    println!("| design | queues | callers | leases/s | mean ms | p50 | p99 | max | none | errors |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for queues in [2_000, 100_000] {
        let ground = Ground::of(queues).await;
        for callers in [1, 4, 12, 64] {
            let options =
                LoadOptions { callers, time: Duration::from_secs(seconds), warm_up: Duration::from_secs(1) };
            let database = format!("{}n{callers}", ground.database);
            let naive = naive::callers(&ground.uri, &database, queues, callers).await;
            row("find-and-modify", queues, &run_callers(naive, &options).await);
            row("in process", queues, &run(Arc::new(ground.dispatcher.clone()), &options).await);
            row("over HTTP", queues, &run(Arc::new(ground.client.clone()), &options).await);
        }
        let commits: Vec<String> = ground
            .dispatcher
            .metrics_text()
            .lines()
            .filter(|l| l.contains("commit_") && (l.contains("_sum") || l.contains("_count")))
            .map(str::to_owned)
            .collect();
        eprintln!("{}", commits.join("  "));
    }
}
