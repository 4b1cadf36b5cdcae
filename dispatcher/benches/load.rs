//! The table of `README.md`: 1, 4, 12 and 64 callers over 2,000 and 100,000 queues, in process, over HTTP (callers of their own,
//! and the tasks of one worker, whose requests travel together), and the naive design beside them, in one run on one MongoDB:
//! a replica set of one member, unless `MONGODB_URI` names another.
//!
//! `cargo bench -p galerna-dispatcher --bench load`; `SECONDS=2` changes how long each cell is measured, `QUEUES=2000` and
//! `CALLERS=64` what of the table.

mod peers {
    pub(crate) mod ground;
    pub(crate) mod naive;
}

use std::sync::Arc;
use std::time::Duration;

use galerna_dispatcher::load::{LoadOptions, LoadReport, run, run_callers, run_worker};
use peers::ground::Ground;
use peers::naive;

/// The first part of a row: the rest is what it cost and how that compares.
fn row(design: &str, queues: usize, r: &LoadReport, cpu: Cpu, naive: f64) {
    let each = |seconds: f64| seconds * 1e6 / (r.leases.max(1) as f64);
    println!(
        "| {design} | {queues} | {} | {:.0} | {:.1} | {:.2} | {:.2} | {:.2} | {:.1} | {:.0} + {:.0} | {} | {} |",
        r.callers,
        r.leases_per_second,
        r.leases_per_second / naive,
        r.mean_ms,
        r.p50_ms,
        r.p99_ms,
        r.max_ms,
        each(cpu.own),
        each(cpu.mongod),
        r.empty_handed,
        r.errors
    );
}

/// Processor seconds of this process and of all servers named `mongod`, from Linux's `/proc`; zeros elsewhere. They hardly depend
/// on what else the machine does.
#[derive(Clone, Copy, Default)]
struct Cpu {
    own: f64,
    mongod: f64,
}

impl Cpu {
    fn now() -> Self {
        let own = std::process::id().to_string();
        let mut now = Self::default();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for name in processes.filter_map(|entry| entry.file_name().into_string().ok()) {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{name}/stat")) else { continue };
            let Some((command, fields)) = stat.rsplit_once(") ") else { continue };
            // Fields 14 and 15: hundredths of a second in user and in system mode.
            let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
            match command {
                _ if name == own => now.own = ticks / 100.0,
                _ if command.ends_with("(mongod") => now.mongod += ticks / 100.0,
                _ => {}
            }
        }
        now
    }

    fn since(self) -> Self {
        let now = Self::now();
        Self { own: now.own - self.own, mongod: now.mongod - self.mongod }
    }
}

/// The numbers that an environment variable lists, or these.
fn listed(variable: &str, otherwise: &[usize]) -> Vec<usize> {
    let Ok(text) = std::env::var(variable) else { return otherwise.to_vec() };
    text.split(',').map(|n| n.trim().parse().expect("a list of numbers")).collect()
}

#[tokio::main]
async fn main() {
    let seconds = std::env::var("SECONDS").ok().and_then(|v| v.parse().ok()).unwrap_or(3);
    println!(
        "| design | queues | callers | leases/s | times find-and-modify | mean ms | p50 | p99 | max | us a lease: own + mongod | none | errors |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for queues in listed("QUEUES", &[2_000, 100_000]) {
        let ground = Ground::of(queues).await;
        for callers in listed("CALLERS", &[1, 4, 12, 64]) {
            let options =
                LoadOptions { callers, time: Duration::from_secs(seconds), warm_up: Duration::from_secs(1) };
            let database = format!("{}n{callers}", ground.database);
            let naive = naive::callers(&ground.uri, &database, queues, callers).await;
            let began = Cpu::now();
            let report = run_callers(naive, &options).await;
            let naive = report.leases_per_second;
            row("find-and-modify", queues, &report, began.since(), naive);
            let began = Cpu::now();
            let report = run(Arc::new(ground.dispatcher.clone()), &options).await;
            row("in process", queues, &report, began.since(), naive);
            let began = Cpu::now();
            let report = run(Arc::new(ground.client.clone()), &options).await;
            row("over HTTP", queues, &report, began.since(), naive);
            let began = Cpu::now();
            let report = run_worker(Arc::new(ground.client.clone()), &options).await;
            row("over HTTP, one worker", queues, &report, began.since(), naive);
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
