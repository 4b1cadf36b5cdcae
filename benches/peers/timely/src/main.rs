//! Tuples a second of timely dataflow in one process: see benches/peers/README.md.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Input, Operator, Probe};

const SECONDS_WARM: u64 = 3;
const BATCH: usize = 1024;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (case, seconds) = (args[1].clone(), args[2].parse::<u64>().expect("seconds"));
    let threads = if case.starts_with("words") { 2 } else { 1 };
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    let name = case.clone();
    let worker = timely::execute(timely::Config::process(threads), move |worker| {
        let done = Arc::clone(&counted);
        let end = Instant::now() + Duration::from_secs(SECONDS_WARM + seconds + 1);
        if case == "words" { words(worker, &done, end) } else { numbers(worker, &done, end, &case) }
    })
    .expect("timely starts");
    std::thread::sleep(Duration::from_secs(SECONDS_WARM));
    let (before, start) = (done.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    println!("RESULT timely {name} {rate:.0}");
    drop(worker);
}

/// Numbers over one exchange, or two.
fn numbers(worker: &mut timely::worker::Worker, done: &Arc<AtomicU64>, end: Instant, case: &str) {
    let mut input = InputHandle::<u64, CapacityContainerBuilder<Vec<u64>>>::new();
    let done = Arc::clone(done);
    let probe = worker.dataflow(|scope| {
        let mut stream = scope.input_from(&mut input);
        if case == "identity" {
            stream = stream.unary(Exchange::new(|n: &u64| *n), "identity", |_, _| {
                move |input, output| {
                    input.for_each(|time, data| output.session(&time).give_container(data));
                }
            });
        }
        stream
            .unary::<CapacityContainerBuilder<Vec<u64>>, _, _, _>(Exchange::new(|n: &u64| *n), "sink", move |_, _| {
                move |input, _output| {
                    input.for_each(|_time, data| {
                        done.fetch_add(data.len() as u64, Ordering::Relaxed);
                        std::hint::black_box(&*data);
                        data.clear();
                    });
                }
            })
            .probe()
            .0
    });
    let (mut n, mut round) = (0_u64, 0_u64);
    while Instant::now() < end {
        for _ in 0..BATCH {
            input.send(n);
            n += 1;
        }
        round += 1;
        input.advance_to(round);
        while probe.less_than(&round.saturating_sub(8)) {
            worker.step();
        }
        worker.step();
    }
}

/// Sentences split into words of their own, counted by word.
fn words(worker: &mut timely::worker::Worker, done: &Arc<AtomicU64>, end: Instant) {
    let mut input = InputHandle::<u64, CapacityContainerBuilder<Vec<String>>>::new();
    let done = Arc::clone(done);
    let hasher = RandomState::new();
    let probe = worker.dataflow(|scope| {
        scope
            .input_from(&mut input)
            .flat_map(|line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .unary(Exchange::new(move |word: &String| fixed_hash(word)), "count", move |_, _| {
                let mut counts: HashMap<String, u64, RandomState> = HashMap::with_hasher(hasher);
                move |input, output| {
                    input.for_each(|time, data| {
                        let mut session = output.session(&time);
                        done.fetch_add(data.len() as u64, Ordering::Relaxed);
                        for word in data.drain(..) {
                            let count = match counts.get_mut(&word) {
                                Some(count) => {
                                    *count += 1;
                                    *count
                                }
                                None => {
                                    counts.insert(word, 1);
                                    1
                                }
                            };
                            session.give(count);
                        }
                    });
                }
            })
            .unary(Pipeline, "sink", |_, _| {
                move |input, output| {
                    input.for_each(|time, data: &mut Vec<u64>| {
                        std::hint::black_box(&*data);
                        data.clear();
                        output.session(&time).give_container(data);
                    });
                }
            })
            .probe()
            .0
    });
    let sentences = sentences();
    let (mut n, mut round) = (worker.index(), 0_u64);
    while Instant::now() < end {
        for _ in 0..BATCH / 8 {
            input.send(sentences[n % sentences.len()].clone());
            n += 1;
        }
        round += 1;
        input.advance_to(round);
        while probe.less_than(&round.saturating_sub(8)) {
            worker.step();
        }
        worker.step();
    }
}

fn fixed_hash(word: &str) -> u64 {
    // The same on every worker, as an exchange needs it.
    std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(word)
}

/// 10,000 words chosen by Zipf's law, six a sentence, 4,096 sentences.
fn sentences() -> Vec<String> {
    let mut sums = Vec::with_capacity(10_000);
    let mut sum = 0.0;
    for rank in 0..10_000 {
        sum += 1.0 / f64::from(rank + 1);
        sums.push(sum);
    }
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..4_096)
        .map(|_| {
            let words: Vec<String> = (0..6)
                .map(|_| format!("word-{}", sums.partition_point(|s| *s < random() * sum).min(9_999)))
                .collect();
            words.join(" ")
        })
        .collect()
}
