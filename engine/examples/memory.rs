//! What a running topology takes of memory: `cargo run --release --example memory -p galerna-engine -- CASE`. A case is a process of its own,
//! so that it begins with nothing freed by another; without one, all are run in turn. Needs Linux.

use std::time::Duration;

use galerna_engine::{Engine, EngineOptions};
use galerna_topology::prelude::*;
use galerna_topology::{Anchor, Data};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const CASES: [&str; 7] =
    ["bolt-tasks", "task-pairs", "spout-tasks", "pending", "queued-number", "queued-100", "queued-1024"];
const TASKS: usize = 10_000;
const SPOUTS: usize = 1_000;
/// On each side of an edge.
const PAIRED: usize = 1_000;
const TUPLES: u64 = 1_000_000;

/// Emits so many tuples, then waits.
struct Finite<T> {
    next: u64,
    end: u64,
    tracked: bool,
    make: fn(u64) -> T,
}

impl<T: Data> Spout for Finite<T> {
    type MessageId = u64;
    type Outputs = Output<T>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let upto = self.end.min(self.next + out.room() as u64);
        for n in self.next..upto {
            if self.tracked {
                out.root(n).emit((self.make)(n));
            } else {
                out.untracked().emit((self.make)(n));
            }
        }
        self.next = upto;
        Ok(if upto == self.end { Next::After(Duration::from_secs(60)) } else { Next::Ready })
    }
}

/// Keeps every tuple.
#[derive(Default)]
struct Keep(Vec<Anchor>);

impl Bolt for Keep {
    type Input = u64;
    type Outputs = ();

    fn execute(&mut self, _: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
        self.0.push(out.keep());
        Ok(())
    }
}

/// Never gets done with its first tuple.
struct WaitsForEver<T>(std::marker::PhantomData<fn(T)>);

impl<T: Data> AsyncBolt for WaitsForEver<T> {
    type Input = T;
    type Outputs = ();

    async fn execute(&mut self, _: T, _: &mut Emitter<()>) -> Result<(), Fault> {
        std::future::pending().await
    }
}

fn resident_bytes() -> Result<u64, Box<dyn std::error::Error>> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    Ok(pages.split(' ').nth(1).ok_or("statm has no second number")?.parse::<u64>()? * 4_096)
}

fn spout<T: Data>(topology: &mut TopologyBuilder, end: u64, tracked: bool, make: fn(u64) -> T) -> Stream<T> {
    topology
        .spout("spout", move || Finite { next: 0, end, tracked, make })
        .max_pending(TUPLES as usize * 2)
        .outputs()
}

/// Waits until memory has stopped growing.
async fn settled() -> Result<u64, Box<dyn std::error::Error>> {
    let (mut last, mut same) = (0, 0);
    while same < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = resident_bytes()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// Tuples in front of a task that takes no more.
fn queued<T: Data>(make: fn(u64) -> T) -> TopologyBuilder {
    let mut topology = TopologyBuilder::new("queued");
    let stream = spout(&mut topology, TUPLES, false, make);
    topology
        .async_bolt("stuck", || WaitsForEver::<T>(std::marker::PhantomData))
        .shuffle(stream)
        .queue(1 << 20);
    topology
}

async fn measure(case: &str) -> Outcome {
    let mut topology = TopologyBuilder::new("memory");
    let each = match case {
        "bolt-tasks" => {
            let none = spout(&mut topology, 0, true, |n| n);
            topology.for_each("sink", |_: u64| ()).shuffle(none).parallelism(TASKS);
            TASKS as u64
        }
        "task-pairs" => {
            let none = spout(&mut topology, 0, true, |n| n);
            let same = topology.map("same", |n: u64| n).shuffle(none).parallelism(PAIRED).outputs();
            topology.for_each("sink", |_: u64| ()).shuffle(same).parallelism(PAIRED).unfused();
            (PAIRED * PAIRED) as u64
        }
        "spout-tasks" => {
            let none = topology
                .spout("spout", || Finite { next: 0, end: 0, tracked: true, make: |n| n })
                .parallelism(SPOUTS);
            let none = none.outputs();
            topology.for_each("sink", |_: u64| ()).shuffle(none);
            SPOUTS as u64
        }
        "pending" => {
            let stream = spout(&mut topology, TUPLES, true, |n| n);
            topology.bolt("keep", Keep::default).shuffle(stream);
            TUPLES
        }
        "queued-number" => {
            topology = queued(|n| n);
            TUPLES
        }
        "queued-100" => {
            topology = queued(|n| vec![n as u8; 100]);
            TUPLES
        }
        "queued-1024" => {
            topology = queued(|n| vec![n as u8; 1_024]);
            TUPLES
        }
        _ => return Err(format!("{case:?} is none of {CASES:?}").into()),
    };
    let topology = topology.build()?;
    let before = resident_bytes()?;
    let options = EngineOptions { queued_bytes: 4 << 30, ..EngineOptions::default() };
    let running = Engine::submit(topology, options).await?;
    let bytes = settled().await?.saturating_sub(before);
    println!("{case:20} {:9} bytes each, of {each}", bytes / each);
    drop(running);
    // Nothing has to be closed in order: the stuck task would not end.
    std::process::exit(0);
}

#[tokio::main]
async fn main() -> Outcome {
    if let Some(case) = std::env::args().nth(1) {
        return measure(&case).await;
    }
    for case in CASES {
        let status = std::process::Command::new(std::env::current_exe()?).arg(case).status()?;
        if !status.success() {
            return Err(format!("{case}: {status}").into());
        }
    }
    Ok(())
}
