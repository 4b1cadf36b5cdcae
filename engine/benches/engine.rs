//! What delivery costs: `cargo bench -p galerna-engine`. See `benches/README.md` for figures and where the
//! time goes.

mod floor;

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use galerna_engine::{Engine, EngineOptions};
use galerna_topology::StableHasher;
use galerna_topology::prelude::*;
use tokio::runtime::Runtime;

/// Tuples a run.
const TUPLES: u64 = 4_000_000;
const SENTENCES: [&str; 5] = [
    "the cow jumped over the moon",
    "an apple a day keeps the doctor away",
    "four score and seven years ago",
    "snow white and the seven dwarfs",
    "i am at two with nature",
];

struct Counter {
    next: u64,
    tracked: bool,
}

impl Spout for Counter {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let upto = TUPLES.min(self.next + out.room() as u64);
        for n in self.next..upto {
            if self.tracked {
                out.root(n).emit(n);
            } else {
                out.untracked().emit(n);
            }
        }
        self.next = upto;
        Ok(if upto == TUPLES { Next::Done } else { Next::Ready })
    }
}

/// Sentences as a user has them: each is a string of its own.
struct Sentences(usize);

impl Spout for Sentences {
    type MessageId = usize;
    type Outputs = Output<String>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        for _ in 0..out.room() {
            if self.0 as u64 == TUPLES / 20 {
                return Ok(Next::Done);
            }
            out.root(self.0).emit(SENTENCES[self.0 % SENTENCES.len()].to_owned());
            self.0 += 1;
        }
        Ok(Next::Ready)
    }
}

/// Counts in a map with this hasher.
#[derive(Default)]
struct Count<H>(HashMap<String, u64, H>);

impl<H: BuildHasher + Default + Send + 'static> Bolt for Count<H> {
    type Input = String;
    type Outputs = ();

    fn execute(&mut self, word: String, _out: &mut Emitter<()>) -> Result<(), Fault> {
        match self.0.get_mut(&word) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(word, 1);
            }
        }
        Ok(())
    }
}

/// Words, the n-th of them 1/n times as often as the first (Zipf), each a string of its own.
struct Skewed {
    vocabulary: Arc<[String]>,
    /// A sample of the distribution, gone through again and again.
    sample: Arc<[u16]>,
    next: u64,
}

impl Skewed {
    fn new() -> Self {
        let vocabulary: Arc<[String]> = (0..10_000).map(|n| format!("word-{n}")).collect();
        let mut cumulative = Vec::new();
        let mut sum = 0.0;
        for n in 1..=vocabulary.len() {
            sum += 1.0 / n as f64;
            cumulative.push(sum);
        }
        let mut rng = fastrand::Rng::with_seed(7);
        let draw =
            |_| cumulative.partition_point(|&upto| upto < rng.f64() * sum).min(cumulative.len() - 1) as u16;
        Self { vocabulary, sample: (0..1 << 16).map(draw).collect(), next: 0 }
    }
}

impl Clone for Skewed {
    fn clone(&self) -> Self {
        Self { vocabulary: self.vocabulary.clone(), sample: self.sample.clone(), next: 0 }
    }
}

impl Spout for Skewed {
    type MessageId = u64;
    type Outputs = Output<String>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let upto = (TUPLES / 4).min(self.next + out.room() as u64);
        for n in self.next..upto {
            let word = self.sample[n as usize % self.sample.len()];
            out.root(n).emit(self.vocabulary[word as usize].clone());
        }
        self.next = upto;
        Ok(if upto == TUPLES / 4 { Next::Done } else { Next::Ready })
    }
}

/// Tuples of so many bytes on the heap.
struct Payloads {
    bytes: usize,
    next: u64,
}

impl Spout for Payloads {
    type MessageId = u64;
    type Outputs = Output<Vec<u8>>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let upto = (TUPLES / 4).min(self.next + out.room() as u64);
        for n in self.next..upto {
            out.root(n).emit(vec![n as u8; self.bytes]);
        }
        self.next = upto;
        Ok(if upto == TUPLES / 4 { Next::Done } else { Next::Ready })
    }
}

/// Payloads over an unfused identity to a sink.
fn payloads(bytes: usize) -> Topology {
    let mut topology = TopologyBuilder::new("payloads");
    let stream = topology.spout("payloads", move || Payloads { bytes, next: 0 }).outputs();
    let passed = topology.map("identity", |bytes: Vec<u8>| bytes).shuffle(stream).outputs();
    let sink = |bytes: Vec<u8>| {
        std::hint::black_box(bytes.len());
    };
    topology.for_each("sink", sink).shuffle(passed).unfused();
    topology.build().expect("the topology is right")
}

fn skewed_count(skewed: &Skewed) -> Topology {
    let skewed = skewed.clone();
    let mut topology = TopologyBuilder::new("skewed");
    let words = topology.spout("words", move || skewed.clone()).outputs();
    topology.bolt("count", Count::<RandomState>::default).fields(words, |word| word.as_str()).parallelism(2);
    topology.build().expect("the topology is right")
}

/// A spout, so many identities, and a sink.
fn chain(identities: usize, tracked: bool) -> Topology {
    let mut topology = TopologyBuilder::new("chain");
    let mut stream = topology.spout("spout", move || Counter { next: 0, tracked }).outputs();
    for n in 0..identities {
        stream = topology.map(format!("identity{n}"), |n: u64| n).shuffle(stream).outputs();
    }
    let sink = |n: u64| {
        std::hint::black_box(n);
    };
    topology.for_each("sink", sink).shuffle(stream);
    topology.build().expect("the topology is right")
}

fn word_count<H: BuildHasher + Default + Send + 'static>() -> Topology {
    let mut topology = TopologyBuilder::new("words");
    let sentences = topology.spout("sentences", || Sentences(0)).outputs();
    let split = |sentence: String| sentence.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let words = topology.flat_map("split", split).shuffle(sentences).outputs();
    topology.bolt("count", Count::<H>::default).fields(words, |word| word.as_str()).parallelism(2);
    topology.build().expect("the topology is right")
}

/// The time from submitting a topology until its last root is done.
async fn time(topology: Topology, fuse: bool) -> Duration {
    let options = EngineOptions { fuse, ..EngineOptions::default() };
    let start = Instant::now();
    let running = Engine::submit(topology, options).await.expect("it starts");
    running.finished().await;
    let took = start.elapsed();
    running.stop().await;
    took
}

fn engine(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("engine");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(TUPLES));
    for (size, hop) in [(64, false), (256, false), (256, true)] {
        let name = format!("floor/batches of {size}{}", if hop { ", two hops" } else { "" });
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter(async || assert_eq!(floor::run(TUPLES, size, hop).await, TUPLES));
        });
    }
    let cases = [("spout-sink", 0, true), ("spout-identity-sink fused", 1, true)];
    let cases =
        cases.into_iter().chain([("spout-identity-sink unfused", 1, false), ("chain of ten fused", 9, true)]);
    for (name, identities, fuse) in cases {
        for tracked in [true, false] {
            let name = format!("{name}/{}", if tracked { "tracked" } else { "untracked" });
            group.bench_function(name, |bencher| {
                bencher.to_async(&runtime).iter_custom(async |runs| {
                    let mut took = Duration::ZERO;
                    for _ in 0..runs {
                        took += time(chain(identities, tracked), fuse).await;
                    }
                    took
                });
            });
        }
    }
    // Words: the sentences have six on average, all of them tracked.
    let words: usize = SENTENCES.iter().map(|sentence| sentence.split(' ').count()).sum();
    group.throughput(Throughput::Elements(TUPLES / 20 * words as u64 / SENTENCES.len() as u64));
    for (name, word_count) in [
        ("word count/words, the standard hasher", word_count::<RandomState> as fn() -> Topology),
        ("word count/words, StableHasher", word_count::<BuildHasherDefault<StableHasher>>),
    ] {
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter_custom(async |runs| {
                let mut took = Duration::ZERO;
                for _ in 0..runs {
                    took += time(word_count(), true).await;
                }
                took
            });
        });
    }
    group.throughput(Throughput::Elements(TUPLES / 4));
    let skewed = Skewed::new();
    group.bench_function("skewed words, one hop by key/tracked", |bencher| {
        bencher.to_async(&runtime).iter_custom(async |runs| {
            let mut took = Duration::ZERO;
            for _ in 0..runs {
                took += time(skewed_count(&skewed), true).await;
            }
            took
        });
    });
    for bytes in [100, 1_024] {
        group.bench_function(format!("spout-identity-sink unfused, {bytes} bytes/tracked"), |bencher| {
            bencher.to_async(&runtime).iter_custom(async |runs| {
                let mut took = Duration::ZERO;
                for _ in 0..runs {
                    took += time(payloads(bytes), true).await;
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);
