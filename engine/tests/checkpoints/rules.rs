//! When acks are sent, and what is refused.

use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_engine::{CheckpointFailure, Engine, EngineOptions};
use galerna_topology::prelude::*;

use crate::place::{Place, on_both};
use crate::source::Source;
use crate::words::{Count, Shape, counts, start, until};

on_both! {
    acks_wait_for_the_checkpoint_that_has_their_effects
    a_topology_that_drains_takes_a_last_checkpoint
    what_is_delivered_again_is_acked_and_does_not_count_again
    state_survives_a_panic_of_its_task
    who_gives_no_stable_ids_is_named
}

const NEVER: Duration = Duration::from_secs(100_000);

async fn acks_wait_for_the_checkpoint_that_has_their_effects(place: &Place) {
    let source = Source::default();
    let running = start(place, &source, Shape::default(), NEVER).await;
    (0..100).for_each(|n| source.send(format!("word-{}", n % 7)));
    let held = || running.metrics().checkpoints.unwrap().held_acks;
    until("all is counted", || held() == 100).await;
    assert_eq!(source.numbers(), (100, 0, 100));
    let spout = running.metrics().component("source").unwrap().clone();
    assert_eq!((spout.acked, spout.pending), (0, 0), "they wait for the commit, and cannot time out");
    let report = running.checkpoint().await.unwrap();
    assert_eq!((report.id.0, report.in_doubt), (1, 100));
    until("all is acked", || source.is_empty()).await;
    assert_eq!(running.last_checkpoint(), Some(report.id));
    // Nothing changed: nothing is written.
    let next = running.checkpoint().await.unwrap();
    assert_eq!((next.id.0, next.written_bytes), (2, 0));
    assert_eq!(next.state_bytes, report.state_bytes);
    drop(running);
    assert_eq!(counts(place).await, source.counts());
}

async fn a_topology_that_drains_takes_a_last_checkpoint(place: &Place) {
    let source = Source::default();
    for round in 1..=2u64 {
        let running = start(place, &source, Shape { waits: true, ..Shape::default() }, NEVER).await;
        (0..50).for_each(|n| source.send(format!("word-{}", n % 7)));
        until("all is counted", || running.metrics().checkpoints.unwrap().held_acks == 50).await;
        let report = running.drain(Duration::from_secs(30)).await;
        assert!(report.drained);
        assert_eq!(report.metrics.component("source").unwrap().acked, 50);
        assert_eq!(source.numbers().1 as u64, 50 * round);
    }
    assert_eq!(counts(place).await, source.counts());
}

async fn what_is_delivered_again_is_acked_and_does_not_count_again(place: &Place) {
    let source = Source::default();
    let mut random = fastrand::Rng::with_seed(1);
    let running = start(place, &source, Shape::default(), NEVER).await;
    (0..100).for_each(|_| source.send("word"));
    until("all is counted", || running.metrics().checkpoints.unwrap().held_acks == 100).await;
    running.checkpoint().await.unwrap();
    until("all is acked", || source.is_empty()).await;
    drop(running);
    // The last acks were lost on their way.
    source.disconnect(60, &mut random);
    assert_eq!(source.numbers().1, 40);
    let running = start(place, &source, Shape::default(), NEVER).await;
    until("all is delivered again", || source.numbers().2 == 160).await;
    until("all is acked again, without another checkpoint", || source.is_empty()).await;
    assert_eq!(running.metrics().component("count").unwrap().executed, 0);
    running.drain(Duration::from_secs(30)).await;
    assert_eq!(counts(place).await, source.counts());
}

async fn state_survives_a_panic_of_its_task(place: &Place) {
    let source = Source::default();
    let running = start(place, &source, Shape::default(), Duration::from_millis(5)).await;
    for n in 0..40 {
        source.send(format!("word-{}", n % 7));
        source.send(format!("panics-{}", n % 5));
    }
    until("all is acked", || source.is_empty()).await;
    let report = running.drain(Duration::from_secs(30)).await;
    assert_eq!(report.metrics.component("count").unwrap().restarts, 5);
    assert_eq!(counts(place).await, source.counts());
}

async fn who_gives_no_stable_ids_is_named(place: &Place) {
    let source = Source::default();
    let running =
        start(place, &source, Shape { stable: false, ..Shape::default() }, Duration::from_millis(5)).await;
    source.send("word");
    until("all is acked", || source.is_empty()).await;
    assert_eq!(running.metrics().checkpoints.unwrap().at_least_once, ["source"]);
    running.drain(Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_checkpoints_state_is_there_and_acks_wait_for_nothing() {
    let harness = Harness::new();
    let (feed, seen) = (harness.feed::<String>(), harness.seen::<(String, u64)>());
    let mut topology = TopologyBuilder::new("words");
    let words = topology.spout("feed", feed.spout()).outputs();
    let counts = {
        use galerna_state::KeyedBolt;
        topology.bolt("count", Count::default).keyed_by(words, String::clone).outputs()
    };
    topology.bolt("seen", seen.bolt()).shuffle(counts);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    feed.emit(1, "word".into());
    feed.emit(2, "word".into());
    run.settle().await;
    assert_eq!(seen.values(), [("word".to_owned(), 1), ("word".to_owned(), 2)]);
    assert_eq!(feed.acked(), [1, 2]);
    assert!(matches!(run.running().checkpoint().await, Err(CheckpointFailure::Off)));
    assert_eq!(run.metrics().checkpoints, None);
}

#[tokio::test]
async fn state_that_is_not_grouped_by_its_key_is_not_built() {
    let mut topology = TopologyBuilder::new("words");
    let words = topology.spout("source", Source::default().spout(true)).outputs();
    topology.bolt("count", Count::default).keeps_state().shuffle(words);
    let error = topology.build().unwrap_err().to_string();
    assert!(error.contains("`count` keeps state by key, but takes `source` by shuffle"), "{error}");
}

#[tokio::test]
async fn a_bolt_that_was_not_declared_with_state_has_none() {
    let mut topology = TopologyBuilder::new("words");
    let words = topology.spout("source", Source::default().spout(true)).outputs();
    topology.bolt("count", Count::default).shuffle(words);
    let error = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("`count` keeps no state: subscribe it with `keyed_by`"), "{error}");
}
