//! Which task gets which tuple.

use std::collections::{BTreeMap, HashMap, HashSet};

use galerna_engine::EngineOptions;
use galerna_engine::testing::{Harness, Run, Seen};
use galerna_topology::prelude::*;

/// Counts words; emits each with its count so far.
#[derive(Default)]
struct WordCount(HashMap<&'static str, u64>);

impl Bolt for WordCount {
    type Input = &'static str;
    type Outputs = Output<(&'static str, u64)>;

    fn execute(
        &mut self,
        word: &'static str,
        out: &mut Emitter<Output<(&'static str, u64)>>,
    ) -> Result<(), Fault> {
        let count = self.0.entry(word).or_default();
        *count += 1;
        out.emit((word, *count));
        Ok(())
    }
}

#[tokio::test]
async fn words_are_counted_by_four_tasks_and_in_order_by_a_global_one() {
    let harness = Harness::new();
    let feed = harness.feed::<&'static str>();
    let (counts, totals) = (harness.seen::<(&'static str, u64)>(), harness.seen::<u64>());
    let mut topology = TopologyBuilder::new("words");
    let words = topology.spout("words", feed.spout()).parallelism(3).outputs();
    let counted =
        topology.bolt("count", WordCount::default).fields(words, |word| *word).parallelism(4).outputs();
    topology.bolt("counts", counts.bolt()).shuffle(&counted);
    let mut total = 0u64;
    let totalled = topology
        .map("total", move |_: (&'static str, u64)| {
            total += 1;
            total
        })
        .global(&counted)
        .outputs();
    topology.bolt("totals", totals.bolt()).shuffle(totalled);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    for (id, word) in ["nathan", "bob", "joey", "nathan"].into_iter().enumerate() {
        feed.emit(id as u64, word);
    }
    run.settle().await;
    let mut seen = counts.values();
    seen.sort();
    assert_eq!(seen, [("bob", 1), ("joey", 1), ("nathan", 1), ("nathan", 2)]);
    assert_eq!(totals.values(), [1, 2, 3, 4]);
    assert_eq!(feed.acked().len(), 4);
}

#[tokio::test]
async fn all_grouping_reaches_each_of_six_tasks_of_three_executors_once() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let seen = harness.seen::<u64>();
    let mut topology = TopologyBuilder::new("all");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.bolt("seen", seen.bolt()).all(stream).parallelism(3).tasks(6);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    feed.emit(1, 9);
    run.settle().await;
    let mut by_task = seen.by_task();
    by_task.sort();
    assert_eq!(by_task, (0..6).map(|task| (task, 9)).collect::<Vec<_>>());
    assert_eq!(feed.acked(), [1]);
}

#[tokio::test]
async fn a_custom_grouping_that_picks_the_first_tasks_makes_as_many_copies() {
    for copies in [0, 2, 3] {
        let harness = Harness::new();
        let feed = harness.feed::<u64>();
        let seen = harness.seen::<u64>();
        let mut topology = TopologyBuilder::new("custom");
        let stream = topology.spout("feed", feed.spout()).outputs();
        let first = move |_: &u64, _: usize, chosen: &mut Vec<usize>| chosen.extend(0..copies);
        topology.bolt("seen", seen.bolt()).custom(stream, first).parallelism(4);
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        (0..10).for_each(|n| feed.emit(n, n));
        run.settle().await;
        let mut by_task = seen.by_task();
        by_task.sort();
        let expected: Vec<_> = (0..copies).flat_map(|task| (0..10).map(move |n| (task, n))).collect();
        assert_eq!(by_task, expected);
        assert_eq!(feed.acked().len(), 10, "{copies} copies");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn shuffling_a_hundred_thousand_tuples_over_two_tasks_gives_each_half() {
    struct Burst(u64);
    impl Spout for Burst {
        type MessageId = u64;
        type Outputs = Output<u64>;
        async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
            for _ in 0..out.room() {
                if self.0 == 100_000 {
                    return Ok(Next::Done);
                }
                out.root(self.0).emit(self.0);
                self.0 += 1;
            }
            Ok(Next::Ready)
        }
    }
    let mut topology = TopologyBuilder::new("shuffle");
    let stream = topology.spout("burst", || Burst(0)).outputs();
    topology.for_each("half", |_: u64| ()).shuffle(stream).parallelism(2);
    let running =
        galerna_engine::Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
    running.finished().await;
    let shares = running.metrics().component("half").unwrap().by_task.clone();
    assert_eq!(shares.iter().sum::<u64>(), 100_000);
    assert!(shares.iter().all(|share| (49_000..=51_000).contains(share)), "{shares:?}");
}

async fn feed_keys(wire: impl FnOnce(&mut TopologyBuilder, Stream<u64>, &Seen<u64>)) -> (Run, Seen<u64>) {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let seen = harness.seen::<u64>();
    let mut topology = TopologyBuilder::new("keys");
    let stream = topology.spout("feed", feed.spout()).parallelism(2).outputs();
    wire(&mut topology, stream, &seen);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    for id in 0..2_000u64 {
        feed.emit(id, id % 97);
    }
    run.until("all are acked", || feed.acked().len() == 2_000).await;
    (run, seen)
}

fn tasks_by_key(seen: &Seen<u64>) -> BTreeMap<u64, HashSet<usize>> {
    let mut tasks: BTreeMap<u64, HashSet<usize>> = BTreeMap::new();
    for (task, key) in seen.by_task() {
        tasks.entry(key).or_default().insert(task);
    }
    tasks
}

#[tokio::test]
async fn fields_grouping_sends_equal_keys_to_one_task_and_uses_all_tasks() {
    let (_run, seen) = feed_keys(|topology, stream, seen| {
        topology.bolt("seen", seen.bolt()).fields(stream, |key| key).parallelism(5);
    })
    .await;
    let tasks = tasks_by_key(&seen);
    assert_eq!(tasks.len(), 97);
    assert!(tasks.values().all(|tasks| tasks.len() == 1));
    assert_eq!(tasks.values().flatten().collect::<HashSet<_>>().len(), 5);
}

#[tokio::test]
async fn fields_grouping_is_the_same_in_every_run() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (_run, seen) = feed_keys(|topology, stream, seen| {
            topology.bolt("seen", seen.bolt()).key_by(stream, |key| (*key, "x")).parallelism(7);
        })
        .await;
        runs.push(tasks_by_key(&seen));
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn partial_key_grouping_sends_each_key_to_at_most_two_tasks_and_balances_a_single_one() {
    let (_run, seen) = feed_keys(|topology, stream, seen| {
        topology.bolt("seen", seen.bolt()).partial_key(stream, |key| key).parallelism(6);
    })
    .await;
    assert!(tasks_by_key(&seen).values().all(|tasks| tasks.len() <= 2));

    let (_run, seen) = feed_keys(|topology, stream, seen| {
        let same = topology.map("same", |_: u64| 1u64).shuffle(stream).outputs();
        topology.bolt("seen", seen.bolt()).partial_key(same, |key| key).parallelism(6);
    })
    .await;
    let mut shares: BTreeMap<usize, usize> = BTreeMap::new();
    seen.by_task().iter().for_each(|(task, _)| *shares.entry(*task).or_default() += 1);
    assert_eq!(shares.values().copied().collect::<Vec<_>>(), [1_000, 1_000]);
}

#[tokio::test]
async fn global_grouping_sends_everything_to_the_first_task() {
    let (_run, seen) = feed_keys(|topology, stream, seen| {
        topology.bolt("seen", seen.bolt()).global(stream).parallelism(4);
    })
    .await;
    assert_eq!(seen.count(), 2_000);
    assert!(seen.by_task().iter().all(|(task, _)| *task == 0));
}

#[tokio::test]
async fn local_or_shuffle_stays_in_the_task_beside_it() {
    let (run, seen) = feed_keys(|topology, stream, seen| {
        let tagged = topology.map("tag", |n: u64| n).fields(stream, |key| key).parallelism(3).outputs();
        topology.bolt("seen", seen.bolt()).local_or_shuffle(tagged).parallelism(3);
    })
    .await;
    // The keys arrive by fields grouping and stay where they are, so each is still seen by one task.
    assert!(tasks_by_key(&seen).values().all(|tasks| tasks.len() == 1));
    assert_eq!(run.metrics().component("seen").unwrap().fused_with.as_deref(), Some("tag"));
}

#[tokio::test]
async fn direct_grouping_goes_to_the_task_named_and_only_to_direct_subscribers() {
    struct Router;
    impl Bolt for Router {
        type Input = u64;
        type Outputs = Output<u64>;
        fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
            let tasks = out.context().tasks_of("direct").ok_or(Fault::transient("no such component"))?;
            out.emit_direct(n as usize % tasks, n);
            out.emit(n + 1_000);
            Ok(())
        }
    }
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let (direct, plain) = (harness.seen::<u64>(), harness.seen::<u64>());
    let mut topology = TopologyBuilder::new("direct");
    let stream = topology.spout("feed", feed.spout()).outputs();
    let routed = topology.bolt("route", || Router).shuffle(stream).outputs();
    topology.bolt("direct", direct.bolt()).direct(&routed).parallelism(3);
    topology.bolt("plain", plain.bolt()).shuffle(&routed);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..30).for_each(|n| feed.emit(n, n));
    run.settle().await;
    assert_eq!(direct.count(), 30);
    assert!(direct.by_task().iter().all(|(task, n)| *task == *n as usize % 3));
    let mut values = plain.values();
    values.sort();
    assert_eq!(values, (1_000..1_030).collect::<Vec<_>>());
    assert_eq!(feed.acked().len(), 30);
}

#[tokio::test]
async fn several_outputs_and_inputs_of_different_types_reach_their_bolts() {
    outputs! {
        struct Sorted {
            numbers: u64,
            words: String,
        }
    }
    struct Sort;
    impl Bolt for Sort {
        type Input = &'static str;
        type Outputs = Sorted;
        fn execute(&mut self, text: &'static str, out: &mut Emitter<Sorted>) -> Result<(), Fault> {
            match text.parse() {
                Ok(number) => out.numbers.emit(number),
                Err(_) => out.words.emit(text.to_owned()),
            }
            Ok(())
        }
    }
    #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
    enum Either {
        Number(u64),
        Word(String),
    }
    impl From<u64> for Either {
        fn from(number: u64) -> Self {
            Self::Number(number)
        }
    }
    impl From<String> for Either {
        fn from(word: String) -> Self {
            Self::Word(word)
        }
    }
    let harness = Harness::new();
    let feed = harness.feed::<&'static str>();
    let seen = harness.seen::<Either>();
    let mut topology = TopologyBuilder::new("sorted");
    let texts = topology.spout("texts", feed.spout()).outputs();
    let sorted = topology.bolt("sort", || Sort).shuffle(texts).outputs();
    topology.bolt("both", seen.bolt()).shuffle(&sorted.numbers).fields(&sorted.words, |word| word);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    for (id, text) in ["1", "one", "2"].into_iter().enumerate() {
        feed.emit(id as u64, text);
    }
    run.settle().await;
    let mut values = seen.values();
    values.sort();
    assert_eq!(values, [Either::Number(1), Either::Number(2), Either::Word("one".into())]);
    assert_eq!(feed.acked().len(), 3);
}
