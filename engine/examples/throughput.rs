//! How many tuples a second, in a few seconds: `cargo run --release --example throughput -p galerna-engine`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use galerna_engine::{Engine, EngineOptions};
use galerna_topology::prelude::*;

struct Counter {
    next: u64,
    end: u64,
    tracked: bool,
}

impl Spout for Counter {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let upto = self.end.min(self.next + out.room() as u64);
        for n in self.next..upto {
            if self.tracked {
                out.root(n).emit(n);
            } else {
                out.untracked().emit(n);
            }
        }
        self.next = upto;
        Ok(if upto == self.end { Next::Done } else { Next::Ready })
    }
}

const SENTENCES: [&str; 5] = [
    "the cow jumped over the moon",
    "an apple a day keeps the doctor away",
    "four score and seven years ago",
    "snow white and the seven dwarfs",
    "i am at two with nature",
];

struct Sentences {
    next: usize,
    end: usize,
}

impl Spout for Sentences {
    type MessageId = usize;
    type Outputs = Output<&'static str>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        for _ in 0..out.room() {
            if self.next == self.end {
                return Ok(Next::Done);
            }
            out.root(self.next).emit(SENTENCES[self.next % SENTENCES.len()]);
            self.next += 1;
        }
        Ok(Next::Ready)
    }
}

/// Emits a few tuples at a time; tokio's timer makes about two milliseconds of one.
struct Paced {
    each: u64,
    every: Duration,
    left: u64,
}

impl Spout for Paced {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if self.left == 0 {
            return Ok(Next::Done);
        }
        self.left -= 1;
        for n in 0..self.each {
            out.root(n).emit(n);
        }
        Ok(Next::After(self.every))
    }
}

async fn measure(name: &str, topology: TopologyBuilder, component: &str, fuse: bool) -> Outcome {
    let options = EngineOptions { fuse, ..EngineOptions::default() };
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let running = Engine::submit(topology.build()?, options).await?;
    running.finished().await;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let report = running.drain(Duration::from_secs(5)).await;
    let executed = report.metrics.component(component).map_or(0, |c| c.executed);
    let complete = report.metrics.components[0].complete;
    println!(
        "{name:28} {:8.2} M/s  {:6.1} ns of CPU each  complete p50 {:.3} ms  p99 {:.3} ms",
        executed as f64 / seconds / 1e6,
        cpu * 1e9 / executed as f64,
        complete.p50_ms,
        complete.p99_ms
    );
    Ok(())
}

/// CPU time of this process, in seconds, as Linux counts it in hundredths; 0 elsewhere. On a machine that does
/// other things too it says more than the time on the wall.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
    ticks / 100.0
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn counter(topology: &mut TopologyBuilder, end: u64, tracked: bool) -> Stream<u64> {
    topology.spout("spout", move || Counter { next: 0, end, tracked }).outputs()
}

#[tokio::main]
async fn main() -> Outcome {
    let millions: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(20);
    let end = millions * 1_000_000;
    for tracked in [true, false] {
        let word = if tracked { "tracked" } else { "untracked" };
        let mut topology = TopologyBuilder::new("sink");
        let numbers = counter(&mut topology, end, tracked);
        topology
            .for_each("sink", |n: u64| {
                std::hint::black_box(n);
            })
            .shuffle(numbers);
        measure(&format!("spout->sink {word}"), topology, "sink", true).await?;

        for fuse in [false, true] {
            let mut topology = TopologyBuilder::new("identity");
            let numbers = counter(&mut topology, end, tracked);
            let same = topology.map("identity", |n: u64| n).shuffle(numbers).outputs();
            topology
                .for_each("sink", |n: u64| {
                    std::hint::black_box(n);
                })
                .shuffle(same);
            let how = if fuse { "fused" } else { "unfused" };
            measure(&format!("spout->id->sink {how} {word}"), topology, "sink", fuse).await?;
        }
        let mut topology = TopologyBuilder::new("ten");
        let mut stream = counter(&mut topology, end, tracked);
        for n in 0..9 {
            stream = topology.map(format!("map{n}"), |n: u64| n + 1).shuffle(stream).outputs();
        }
        topology
            .for_each("sink", |n: u64| {
                std::hint::black_box(n);
            })
            .shuffle(stream);
        measure(&format!("chain of ten {word}"), topology, "sink", true).await?;
    }
    for (name, each, every) in [("about 100,000/s", 220, 1), ("about 500/s", 1, 1)] {
        let mut topology = TopologyBuilder::new("paced");
        let paced = move || Paced { each, every: Duration::from_millis(every), left: 1_000 };
        let numbers = topology.spout("spout", paced).outputs();
        let same = topology.map("identity", |n: u64| n).shuffle(numbers).outputs();
        topology
            .for_each("sink", |n: u64| {
                std::hint::black_box(n);
            })
            .shuffle(same);
        measure(&format!("spout->id->sink at {name}"), topology, "sink", false).await?;
    }
    let mut topology = TopologyBuilder::new("words");
    let sentences =
        topology.spout("sentences", move || Sentences { next: 0, end: (end / 20) as usize }).outputs();
    let words = topology.flat_map("split", |s: &'static str| s.split(' ')).shuffle(sentences).outputs();
    topology.bolt("count", || Count(HashMap::new())).fields(words, |word| *word).parallelism(2);
    measure("word count (words)", topology, "count", true).await
}

struct Count(HashMap<&'static str, u64>);

impl Bolt for Count {
    type Input = &'static str;
    type Outputs = ();

    fn execute(&mut self, word: &'static str, _out: &mut Emitter<()>) -> Result<(), Fault> {
        *self.0.entry(word).or_default() += 1;
        Ok(())
    }
}
