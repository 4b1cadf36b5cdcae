//! Tuples through one child, JSON and MessagePack, and through Storm with the same child: `cargo bench -p galerna-multilang`.
//!
//! The child is the example `served` (build it with `cargo build --release --example served -p galerna-multilang`), so what is measured
//! is the protocol and not the language. With `GALERNA_PYSTORM_PYTHON` set, a bolt of pystorm is measured, too. Storm is measured if
//! `scripts/servers` has it fetched: its classes are found beside the bench, or in `GALERNA_STORM`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use galerna_engine::{Engine, EngineOptions};
use galerna_lock::Mutex;
use galerna_multilang::{SerializedStream, ShellCommand, ShellTopology, shell_outputs};
use galerna_topology::prelude::*;
use serde_json::json;

/// How long each is measured after it has warmed up, in seconds.
const SECONDS: u64 = 10;
/// Tuples a second for the latency.
const RATE: u64 = 1_000;

/// What the spout does and sees.
#[derive(Default)]
struct Load {
    /// Whether it emits at [`RATE`] rather than what it can.
    slow: AtomicBool,
    ended: AtomicBool,
    acked: AtomicU64,
    failed: AtomicU64,
    took: Mutex<Vec<Duration>>,
}

/// Emits numbers until it is told to end.
struct Numbers {
    load: Arc<Load>,
    next: u64,
    due: Instant,
}

impl Spout for Numbers {
    type MessageId = Instant;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if self.load.ended.load(Ordering::Relaxed) {
            return Ok(Next::Done);
        }
        let now = Instant::now();
        if self.load.slow.load(Ordering::Relaxed) {
            if now < self.due {
                return Ok(Next::After(self.due - now));
            }
            self.due = (self.due + Duration::from_secs(1) / RATE as u32).max(now - Duration::from_millis(50));
        }
        self.next += 1;
        // Not the number that the child refuses.
        out.root(now).emit(self.next + 100);
        Ok(Next::Ready)
    }

    async fn acked(&mut self, ids: &mut Vec<Instant>) {
        self.load.acked.fetch_add(ids.len() as u64, Ordering::Relaxed);
        if self.load.slow.load(Ordering::Relaxed) {
            let now = Instant::now();
            self.load.took.lock().extend(ids.iter().map(|emitted| now - *emitted));
        }
        ids.clear();
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Instant>>) {
        self.load.failed.fetch_add(failed.len() as u64, Ordering::Relaxed);
        failed.clear();
    }
}

shell_outputs! {
    /// What the children emit.
    struct Doubled {
        default: u64,
        odd: u64,
    }
}

/// CPU time of this process and of its children, in microseconds.
fn cpu() -> (f64, f64) {
    let of = |stat: &str| {
        let fields: Vec<&str> =
            stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        // In hundredths of a second.
        (number(1) as u32, (number(11) + number(12)) * 10_000.0)
    };
    let read = |path: PathBuf| std::fs::read_to_string(path).map_or((0, 0.0), |stat| of(&stat));
    let (_, here) = read("/proc/self/stat".into());
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let children =
        all.map(|entry| read(entry.path().join("stat"))).filter(|(parent, _)| *parent == std::process::id());
    (here, children.map(|(_, cpu)| cpu).sum())
}

async fn measure(name: &str, command: ShellCommand) -> Result<(), Box<dyn std::error::Error>> {
    let load = Arc::<Load>::default();
    let mut topology = TopologyBuilder::new("bench");
    topology.message_timeout(Duration::from_secs(600));
    let of_spout = load.clone();
    let numbers = move || Numbers { load: of_spout.clone(), next: 0, due: Instant::now() };
    let numbers = topology.spout("numbers", numbers).max_pending(4096).outputs();
    let doubled =
        topology.shell_bolt::<Doubled>("double", command.max_pending(1024)).shuffle(numbers.serialized());
    let doubled = doubled.outputs();
    topology.for_each("seen", |_: u64| ()).shuffle(doubled.default);
    let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let acked = || load.acked.load(Ordering::Relaxed);
    let (before, (here, there), start) = (acked(), cpu(), Instant::now());
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let (count, took) = (acked() - before, start.elapsed());
    let (here, there) = (cpu().0 - here, cpu().1 - there);
    let each = |cpu: f64| cpu / count as f64;
    println!(
        "{name:<32} {count:>9} tuples in {took:>8.2?}: {:>9.0}/s; CPU a tuple: host {:.1} us, child {:.1} us",
        count as f64 / took.as_secs_f64(),
        each(here),
        each(there)
    );
    load.slow.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.took.lock().clear();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut took = std::mem::take(&mut *load.took.lock());
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
    println!(
        "{name:<32} at {RATE}/s: {:.2} ms half, {:.2} ms 99 of 100 ({} tuples)",
        at(50),
        at(99),
        took.len()
    );
    load.ended.store(true, Ordering::Relaxed);
    running.finished().await;
    running.drain(Duration::from_secs(5)).await;
    assert_eq!(load.failed.load(Ordering::Relaxed), 0);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let program = std::env::current_exe()?;
    let target: PathBuf = program.ancestors().nth(2).ok_or("benches are in `deps`")?.to_owned();
    let child = target.join("examples/served");
    let served = || ShellCommand::from([child.clone().into_os_string(), "bolt".into()]);
    measure("Rust child, JSON", served().conf("galerna.frames", json!(["json"]))).await?;
    measure("Rust child, MessagePack", served()).await?;
    let components = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/components");
    let node = |arguments: &[&str]| {
        ShellCommand::from(["node", "double.js"].iter().chain(arguments)).folder(components)
    };
    measure("Node child, JSON", node(&[])).await?;
    measure("Node child, MessagePack", node(&["msgpack"])).await?;
    if let Ok(python) = std::env::var("GALERNA_PYSTORM_PYTHON") {
        let command = ShellCommand::from([&*python, "plain.py"]).folder(components);
        measure("pystorm child, JSON", command).await?;
    }
    let storm =
        std::env::var_os("GALERNA_STORM").map_or_else(|| target.join("../servers/storm"), PathBuf::from);
    if !storm.join("storm/lib").is_dir() {
        println!("Storm is not in {}: run scripts/servers", storm.display());
        return Ok(());
    }
    let of = |part: &str| storm.join(part).display().to_string();
    let class_path = [of("test-classes"), of("classes"), of("storm/lib/*")].join(":");
    let output = Command::new("java")
        .args(["-Xmx2g", "-cp", &class_path, "galerna.storm.ChildBench", &SECONDS.to_string()])
        .arg(child)
        .arg("bolt")
        .output()?;
    // What Storm logs is not measured.
    for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with("Storm, ")) {
        println!("{line}");
    }
    output.status.success().then_some(()).ok_or_else(|| "Storm ended with an error".into())
}
