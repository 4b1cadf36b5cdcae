//! Tuples through one child, JSON and MessagePack: `cargo bench -p galerna-multilang`.
//!
//! The child is the example `served` (build it with `cargo build --release --example served -p galerna-multilang`), so what is measured
//! is the protocol and not the language. With `GALERNA_PYSTORM_PYTHON` set, a bolt of pystorm is measured, too.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use galerna_engine::{Engine, EngineOptions};
use galerna_multilang::{SerializedStream, ShellCommand, ShellTopology, shell_outputs};
use galerna_topology::prelude::*;
use serde_json::json;

/// Emits numbers for a while.
struct Numbers {
    next: u64,
    count: u64,
}

impl Spout for Numbers {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if self.next == self.count {
            return Ok(Next::Done);
        }
        self.next += 1;
        // Not the number that the child refuses.
        out.root(self.next).emit(self.next + 100);
        Ok(Next::Ready)
    }
}

shell_outputs! {
    /// What the children emit.
    struct Doubled {
        default: u64,
        odd: u64,
    }
}

async fn measure(name: &str, command: ShellCommand, count: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut topology = TopologyBuilder::new("bench");
    topology.message_timeout(Duration::from_secs(600));
    let numbers = topology.spout("numbers", move || Numbers { next: 0, count }).max_pending(4096).outputs();
    let doubled =
        topology.shell_bolt::<Doubled>("double", command.max_pending(1024)).shuffle(numbers.serialized());
    let doubled = doubled.outputs();
    topology.for_each("seen", |_: u64| ()).shuffle(doubled.default);
    let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
    let start = Instant::now();
    running.finished().await;
    let took = start.elapsed();
    let report = running.drain(Duration::from_secs(5)).await;
    let numbers = report.metrics.component("numbers").ok_or("no spout")?;
    assert_eq!((numbers.acked, numbers.failures()), (count, 0));
    println!("{name:<32} {count:>9} tuples in {took:>8.2?}: {:>9.0}/s", count as f64 / took.as_secs_f64());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let program = std::env::current_exe()?;
    let folder: PathBuf = program.ancestors().nth(2).ok_or("benches are in `deps`")?.join("examples");
    let served = || ShellCommand::from([folder.join("served").into_os_string(), "bolt".into()]);
    for _ in 0..2 {
        measure("Rust, JSON", served().conf("galerna.frames", json!(["json"])), 300_000).await?;
        measure("Rust, MessagePack", served(), 300_000).await?;
    }
    let components = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/components");
    let node = |arguments: &[&str]| {
        ShellCommand::from(["node", "double.js"].iter().chain(arguments)).folder(components)
    };
    measure("Node, JSON", node(&[]), 300_000).await?;
    measure("Node, MessagePack", node(&["msgpack"]), 300_000).await?;
    if let Ok(python) = std::env::var("GALERNA_PYSTORM_PYTHON") {
        let command = ShellCommand::from([&*python, "plain.py"]).folder(components);
        measure("pystorm, JSON", command, 60_000).await?;
    }
    Ok(())
}
