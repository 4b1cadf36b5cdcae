//! Tuples a second at a steady state, as the programs in `benches/peers` measure theirs, with the same data:
//! `cargo run --release --example rate -p galerna-engine -- CASE SECONDS`. `benches/peers/run` runs all of them in turn.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use galerna_engine::{Engine, EngineOptions};
use galerna_topology::Data;
use galerna_topology::prelude::*;

#[path = "../benches/floor/mod.rs"]
mod floor;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Before it is measured, a topology runs so long.
const WARM_UP: Duration = Duration::from_secs(3);
const FLOOR_TUPLES: u64 = 4_000_000;
const CASES: &str =
    "sink, sink-untracked, identity, identity-untracked, words, bytes-100, bytes-1024, floor or floor-hop";

/// What reached the sinks, counted in steps, so that counting costs little.
static DONE: AtomicU64 = AtomicU64::new(0);
const STEP: u64 = 1_024;

#[derive(Clone, Default)]
struct Seen(u64);

impl Seen {
    fn one(&mut self) {
        self.0 += 1;
        if self.0 == STEP {
            DONE.fetch_add(STEP, Ordering::Relaxed);
            self.0 = 0;
        }
    }
}

/// Makes the n-th tuple, without end.
struct Endless<T> {
    next: u64,
    tracked: bool,
    make: Arc<dyn Fn(u64) -> T + Send + Sync>,
}

impl<T: Data> Spout for Endless<T> {
    type MessageId = u64;
    type Outputs = Output<T>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let upto = self.next + out.room() as u64;
        for n in self.next..upto {
            let tuple = (self.make)(n);
            if self.tracked {
                out.root(n).emit(tuple);
            } else {
                out.untracked().emit(tuple);
            }
        }
        self.next = upto;
        Ok(Next::Ready)
    }
}

fn spout<T: Data>(
    topology: &mut TopologyBuilder,
    tracked: bool,
    make: impl Fn(u64) -> T + Send + Sync + 'static,
) -> Stream<T> {
    let make: Arc<dyn Fn(u64) -> T + Send + Sync> = Arc::new(make);
    topology.spout("spout", move || Endless { next: 0, tracked, make: make.clone() }).outputs()
}

/// Tuples to a sink, over an identity or at once. Nothing is fused: each hop goes from one task to another.
fn hops<T: Data>(
    tracked: bool,
    identity: bool,
    make: impl Fn(u64) -> T + Send + Sync + 'static,
) -> TopologyBuilder {
    let mut topology = TopologyBuilder::new("hops");
    let mut stream = spout(&mut topology, tracked, make);
    if identity {
        stream = topology.map("identity", |tuple: T| tuple).shuffle(stream).outputs();
    }
    let mut seen = Seen::default();
    let sink = move |tuple: T| {
        std::hint::black_box(&tuple);
        seen.one();
    };
    topology.for_each("sink", sink).shuffle(stream).unfused();
    topology
}

/// A running count of each word.
#[derive(Default)]
struct Count(HashMap<String, u64, RandomState>);

impl Bolt for Count {
    type Input = String;
    type Outputs = Output<u64>;

    fn execute(&mut self, word: String, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        let count = match self.0.get_mut(&word) {
            Some(count) => {
                *count += 1;
                *count
            }
            None => {
                self.0.insert(word, 1);
                1
            }
        };
        out.emit(count);
        Ok(())
    }
}

/// Sentences split into words of their own, counted by word in two tasks.
fn words() -> TopologyBuilder {
    let mut topology = TopologyBuilder::new("words");
    let sentences = sentences();
    let stream = spout(&mut topology, true, move |n| sentences[n as usize % sentences.len()].clone());
    let split = |sentence: String| sentence.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let words = topology.flat_map("split", split).shuffle(stream).outputs();
    let counts =
        topology.bolt("count", Count::default).fields(words, |word| word.as_str()).parallelism(2).outputs();
    let mut seen = Seen::default();
    let sink = move |count: u64| {
        std::hint::black_box(count);
        seen.one();
    };
    topology.for_each("sink", sink).shuffle(counts).parallelism(2);
    topology
}

/// 10,000 words chosen by Zipf's law, six a sentence, 4,096 sentences.
fn sentences() -> Vec<String> {
    let mut sums = Vec::with_capacity(10_000);
    let mut sum = 0.0;
    for rank in 0..10_000 {
        sum += 1.0 / f64::from(rank + 1);
        sums.push(sum);
    }
    let mut random = fastrand::Rng::with_seed(1);
    let mut word = |_| format!("word-{}", sums.partition_point(|upto| *upto < random.f64() * sum).min(9_999));
    (0..4_096).map(|_| (0..6).map(&mut word).collect::<Vec<_>>().join(" ")).collect()
}

/// A program that only moves numbers in batches of 256 over tokio's channels, again and again.
async fn floor_rate(hop: bool, measured: Duration) -> f64 {
    floor::run(FLOOR_TUPLES, 256, hop).await;
    let (start, mut tuples) = (Instant::now(), 0);
    while start.elapsed() < measured {
        tuples += floor::run(FLOOR_TUPLES, 256, hop).await;
    }
    tuples as f64 / start.elapsed().as_secs_f64()
}

async fn rate(topology: TopologyBuilder, measured: Duration) -> Result<f64, Box<dyn std::error::Error>> {
    let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
    tokio::time::sleep(WARM_UP).await;
    let (before, start) = (DONE.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(measured).await;
    let rate = (DONE.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    running.stop().await;
    Ok(rate)
}

#[tokio::main]
pub(crate) async fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let usage = format!("CASE SECONDS, where CASE is {CASES}");
    let (Some(case), Some(seconds)) = (args.next(), args.next()) else { return Err(usage.into()) };
    let measured = Duration::from_secs(seconds.parse()?);
    let topology = match case.as_str() {
        "sink" => hops(true, false, |n| n),
        "sink-untracked" => hops(false, false, |n| n),
        "identity" => hops(true, true, |n| n),
        "identity-untracked" => hops(false, true, |n| n),
        "words" => words(),
        "bytes-100" => hops(true, true, |n| vec![n as u8; 100]),
        "bytes-1024" => hops(true, true, |n| vec![n as u8; 1_024]),
        "floor" | "floor-hop" => {
            println!("RESULT floor {case} {:.0}", floor_rate(case == "floor-hop", measured).await);
            return Ok(());
        }
        _ => return Err(usage.into()),
    };
    println!("RESULT galerna {case} {:.0}", rate(topology, measured).await?);
    Ok(())
}
