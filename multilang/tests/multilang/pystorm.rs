//! Unmodified components of pystorm.

use std::collections::BTreeMap;
use std::time::Duration;

use galerna_engine::testing::{Feed, Harness, Run, Seen};
use galerna_multilang::{SerializedStream, ShellTopology};
use galerna_topology::prelude::*;
use serde_json::json;

use crate::support::{example, pystorm, python};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_bolt_of_the_guide_splits_sentences() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("split.py"), example("python")).expect("a file");
    let harness = Harness::new();
    let (sentences, seen) = (harness.feed::<String>(), harness.seen::<String>());
    let mut topology = TopologyBuilder::new("guide");
    let fed = topology.spout("sentences", sentences.spout()).outputs();
    let split = pystorm("split.py", &[]).folder(folder.path());
    let words = topology.shell_bolt::<Output<String>>("split", split).shuffle(fed.serialized()).outputs();
    topology.bolt("words", seen.bolt()).global(words);
    let run = harness.start(topology.build().expect("it is sound")).await.expect("it starts");
    sentences.emit(1, "the cow jumped".to_owned());
    run.until("the sentence is done", || sentences.acked().len() == 1).await;
    assert_eq!(seen.values(), ["the", "cow", "jumped"]);
    drop(run.drain(SECOND).await);
}

#[tokio::test]
async fn the_word_count_of_pystorms_documentation_counts_every_word() {
    let harness = Harness::new();
    let (sentences, counts) = (harness.feed::<String>(), harness.seen::<(String, u64)>());
    let mut topology = TopologyBuilder::new("words");
    let fed = topology.spout("sentences", sentences.spout()).outputs();
    let split = pystorm("docstring.py", &["pystorm.bolt.Bolt", "SentenceSplitterBolt"]);
    let words = topology.shell_bolt::<Output<String>>("split", split).shuffle(fed.serialized());
    let words = words.parallelism(2).outputs();
    let count = pystorm("docstring.py", &["pystorm.bolt.BatchingBolt", "WordCounterBolt"]);
    let counted = topology.shell_bolt::<Output<(String, u64)>>("count", count);
    let counted = counted.fields(words.serialized(), |word| word).parallelism(2).tick_every(SECOND).outputs();
    topology.bolt("counts", counts.bolt()).global(counted);
    let run = harness.start(topology.build().expect("it is sound")).await.expect("it starts");

    let lines = ["the cow jumped over the moon", "the man went to the store", "and the cow"];
    for (id, line) in lines.iter().enumerate() {
        sentences.emit(id as u64, (*line).to_owned());
    }
    let words = || run.metrics().component("count").map_or(0, |count| count.executed);
    run.until("all words are with the bolts that count", || words() == 15).await;
    assert_eq!(sentences.acked().len(), 0, "the batch holds the words back");
    // The example counts after more than five ticks.
    for _ in 0..6 {
        run.advance(SECOND).await;
    }
    run.until("all sentences are done", || sentences.acked().len() == lines.len()).await;
    let counted: BTreeMap<String, u64> = counts.values().into_iter().collect();
    let expected = [
        ("and", 1),
        ("cow", 2),
        ("jumped", 1),
        ("man", 1),
        ("moon", 1),
        ("over", 1),
        ("store", 1),
        ("the", 5),
        ("to", 1),
        ("went", 1),
    ];
    let expected = expected.map(|(word, count)| (word.to_owned(), count));
    assert_eq!(counted, BTreeMap::from(expected));
    assert!(sentences.failed().is_empty());
    let report = run.drain(SECOND).await;
    assert_eq!(report.metrics.component("split").expect("it is there").counters["child_restarts"], 0);
}

#[tokio::test]
async fn a_reliable_spout_emits_anew_what_fails_and_what_it_gives_up_is_counted() {
    let harness = Harness::new();
    let seen = harness.seen::<String>();
    let mut topology = TopologyBuilder::new("reliable");
    let spout = pystorm("sentences.py", &[]).conf("sentences", json!(["one", "two", "never", "three"]));
    let sentences = topology.shell_spout::<Output<String>>("sentences", spout).outputs();
    // It fails `never` always, and `two` the first time.
    let mut failed_before = false;
    let picky = topology.map("picky", move |sentence: String| sentence).shuffle(sentences).outputs();
    let check = move |sentence: String| {
        let first = sentence == "two" && !std::mem::replace(&mut failed_before, true);
        if first || sentence == "never" { Err(Fault::transient("not now")) } else { Ok(()) }
    };
    topology.bolt("seen", seen.bolt()).global(&picky);
    topology.for_each("check", check).global(&picky);
    let run = harness.start(topology.build().expect("it is sound")).await.expect("it starts");

    let spout = |run: &Run| run.metrics().component("sentences").cloned();
    let not_replayed = || {
        spout(&run).and_then(|spout| spout.counters.get("child_not_replayed").copied()).unwrap_or_default()
    };
    let mut steps = 0;
    while not_replayed() < 1 {
        // Its pauses are of the test's clock.
        run.advance(Duration::from_millis(20)).await;
        steps += 1;
        assert!(steps < 5000, "{:?}", run.metrics());
    }
    let metrics = spout(&run).expect("it is there");
    assert_eq!(metrics.acked, 3);
    // `never` four times, and `two` once.
    assert_eq!(metrics.failures(), 5);
    let mut values = seen.values();
    values.sort();
    assert_eq!(values, ["never", "never", "never", "never", "one", "three", "two", "two"]);
    let report = run.drain(SECOND).await;
    assert_eq!(report.metrics.component("sentences").expect("it is there").counters["child_restarts"], 0);
}

#[tokio::test]
async fn an_exception_fails_the_tuple_at_hand_with_its_trace() {
    let harness = Harness::new();
    let sentences = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("exceptions");
    let fed = topology.spout("numbers", sentences.spout()).outputs();
    let split = pystorm("docstring.py", &["pystorm.bolt.Bolt", "SentenceSplitterBolt"]);
    let words = topology.shell_bolt::<Output<String>>("split", split).shuffle(fed.serialized()).outputs();
    topology.for_each("print", |_: String| ()).shuffle(words);
    let run = harness.start(topology.build().expect("it is sound")).await.expect("it starts");
    sentences.emit(1, 7);
    run.until("it failed", || !sentences.failed().is_empty()).await;
    let reason = sentences.failed()[0].failure.reason().to_owned();
    assert!(reason.contains("AttributeError") && reason.contains("Traceback"), "{reason}");
    run.drain(SECOND).await;
}

/// Acks a batch of all that came since the one before, and fails all that it has when one of these is refused.
#[tokio::test]
async fn a_batching_bolt_acks_and_fails_whole_batches() {
    let (harness, ticks) = (Harness::new(), Some(SECOND));
    let (numbers, sums, run) = batches(harness, "BatchingBolt", ticks).await;
    for number in 1..=6 {
        numbers.emit(number, number);
    }
    let taken = || run.metrics().component("sums").map_or(0, |sums| sums.executed);
    run.until("the bolt has all", || taken() == 6).await;
    assert!(numbers.acked().is_empty(), "no batch is done before a tick");
    run.advance(SECOND).await;
    run.until("both batches are done", || numbers.acked().len() == 6).await;
    assert_eq!(sums.values(), [9, 12]);
    for number in 13..=15 {
        numbers.emit(number, number);
    }
    run.until("the bolt has these", || taken() == 9).await;
    run.advance(SECOND).await;
    run.until("all have failed", || numbers.failed().len() == 3).await;
    for failed in numbers.failed() {
        assert!(failed.failure.reason().contains("ValueError: 13 is unlucky"), "{:?}", failed.failure);
    }
    // The next child begins with nothing. What was on its way to the one before may fail with it, and is sent again.
    let (mut steps, mut sent) = (0, 0);
    while numbers.acked().len() < 7 {
        if numbers.failed().len() == 3 + sent {
            numbers.emit(16, 16);
            sent += 1;
        }
        run.advance(SECOND).await;
        steps += 1;
        assert!(steps < 5000, "{sent} sent, {:?}, {:#?}", numbers.failed(), run.metrics());
    }
    assert_eq!(sums.values(), [9, 12, 16]);
    run.drain(SECOND).await;
}

/// It writes from a second thread, whose exceptions it tells the first by a signal to itself.
#[tokio::test]
async fn a_batching_bolt_with_a_timer_of_its_own_needs_no_ticks() {
    let harness = Harness::new();
    let (numbers, sums, run) = batches(harness, "TicklessBatchingBolt", None).await;
    for number in 1..=6 {
        numbers.emit(number, number);
    }
    run.until("all are done", || numbers.acked().len() == 6).await;
    assert_eq!(sums.values().iter().sum::<u64>(), 21);
    numbers.emit(13, 13);
    run.until("it has failed", || numbers.failed().len() == 1).await;
    let failure = numbers.failed()[0].failure.clone();
    assert!(failure.reason().contains("ValueError: 13 is unlucky"), "{failure:?}");
    run.drain(SECOND).await;
}

type Batches = (Feed<u64>, Seen<u64>, Run);

async fn batches(harness: Harness, class: &str, ticks: Option<Duration>) -> Batches {
    let (numbers, seen) = (harness.feed::<u64>(), harness.seen::<u64>());
    let mut topology = TopologyBuilder::new("batches");
    topology.message_timeout(Duration::from_secs(3600));
    let fed = topology.spout("numbers", numbers.spout()).outputs();
    let mut sums = topology.shell_bolt::<Output<u64>>("sums", pystorm("batches.py", &[class]));
    if let Some(every) = ticks {
        sums = sums.tick_every(every);
    }
    let sums = sums.shuffle(fed.serialized()).outputs();
    topology.bolt("seen", seen.bolt()).global(sums);
    let run = harness.start(topology.build().expect("it is sound")).await.expect("it starts");
    (numbers, seen, run)
}

#[tokio::test]
async fn tasks_are_told_where_they_are_and_where_tuples_go() {
    let harness = Harness::new();
    let names = harness.feed::<String>();
    let (seen, some) = (harness.seen::<String>(), harness.seen::<String>());
    let answers = harness.seen::<(String, String)>();
    let mut topology = TopologyBuilder::new("asks");
    let fed = topology.spout("names", names.spout()).outputs();
    galerna_multilang::shell_outputs! {
        struct Asks {
            default: String,
            answers: (String, String),
        }
    }
    let asks =
        topology.shell_bolt::<Asks>("asks", python("asks.py", &[])).shuffle(fed.serialized()).outputs();
    topology.bolt("all", seen.bolt()).all(&asks.default).parallelism(2);
    topology.bolt("some", some.bolt()).fields(&asks.default, |name| name).parallelism(3);
    topology.bolt("answers", answers.bolt()).shuffle(asks.answers);
    let run = harness.start(topology.build().expect("it is sound")).await.expect("it starts");
    names.emit(1, "a".to_owned());
    names.emit(2, "b".to_owned());
    run.until("both are done", || names.acked().len() == 2).await;
    run.until("all tuples have arrived", || seen.count() == 12 && some.count() == 6 && answers.count() == 6)
        .await;
    let some: BTreeMap<String, usize> = some.by_task().into_iter().map(|(task, name)| (name, task)).collect();
    let mut answers = answers.values();
    answers.sort();
    let asked: Vec<&str> = answers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(asked, ["a0", "a1", "a2", "b0", "b1", "b2"]);
    for (name, tasks) in &answers {
        // The tasks from 1: `all` 1 and 2, `answers` 3, `asks` 4, `names` 5, `some` 6 to 8.
        let mut tasks: Vec<&str> = tasks.split(',').collect();
        tasks.sort_unstable();
        assert_eq!(tasks[..2], ["all/1", "all/2"], "{name}");
        assert_eq!(tasks[2..], [format!("some/{}", 6 + some[name])], "{name}");
    }
    run.drain(SECOND).await;
}
