//! A checkpoint is of one moment, whatever the ways that tuples take.

use std::sync::Arc;
use std::time::Duration;

use galerna_engine::{CheckpointOptions, Engine, EngineOptions, Running};
use galerna_state::prelude::*;
use galerna_state::{FolderCheckpoints, SimulatedFiles};
use galerna_topology::prelude::*;
use tokio::sync::Semaphore;

use crate::source::Source;
use crate::words::{Count, until};

const NEVER: Duration = Duration::from_secs(100_000);

/// Two sources whose words are counted together; those of one wait at a gate.
async fn gated(fast: &Source, slow: &Source, gate: &Arc<Semaphore>, queued_bytes: usize) -> Running {
    let mut topology = TopologyBuilder::new("words");
    let quick = topology.spout("fast", fast.spout(true)).outputs();
    let waiting = topology.spout("slow", slow.spout(true)).outputs();
    let gate = Arc::clone(gate);
    let passed = topology
        .map_async("gate", 4, move |word: String| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.map(tokio::sync::SemaphorePermit::forget)?;
                Ok::<_, Fault>(word)
            }
        })
        .shuffle(waiting)
        .outputs();
    topology.bolt("count", Count::default).keyed_by(quick, String::clone).keyed_by(passed, String::clone);
    let store = FolderCheckpoints::open_on(SimulatedFiles::new(), "checkpoints", "words").await.unwrap();
    let checkpoints = CheckpointOptions::new(store).every(NEVER);
    let options = EngineOptions { checkpoints: Some(checkpoints), queued_bytes, ..EngineOptions::default() };
    Engine::submit(topology.build().unwrap(), options).await.unwrap()
}

fn executed(running: &Running) -> u64 {
    running.metrics().component("count").unwrap().executed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_a_sender_that_is_ahead_waits_for_the_others_and_is_bounded() {
    let (fast, slow, gate) = (Source::default(), Source::default(), Arc::new(Semaphore::new(0)));
    // Room for 1,000 words or so.
    let running = gated(&fast, &slow, &gate, 24_000).await;
    (0..10).for_each(|_| fast.send("fast"));
    (0..3).for_each(|_| slow.send("slow"));
    until("the quick ones are counted", || executed(&running) == 10).await;
    let handle = running.handle();
    let checkpoint = tokio::spawn(async move { handle.checkpoint().await });
    // The barrier of the quick source is there when nothing behind it is executed any more.
    until("the barrier has come", || {
        fast.send("behind");
        running.metrics().queued_bytes > 0
    })
    .await;
    let before = executed(&running);
    (0..20_000).for_each(|_| fast.send("behind"));
    until("the spout stops", || {
        let metrics = running.metrics();
        metrics.queued_bytes >= 24_000 && metrics.component("fast").unwrap().emitted < 15_000
    })
    .await;
    assert_eq!(executed(&running), before, "they wait");
    assert!(!checkpoint.is_finished());
    // A source that has not sent its barrier gets through whatever waits.
    (0..500).for_each(|_| slow.send("slow"));
    gate.add_permits(1_000);
    let report = checkpoint.await.unwrap().unwrap();
    assert!(report.in_doubt >= 13, "{report:?}");
    let all = || (fast.numbers().0 + slow.numbers().0) as u64;
    until("all is counted", || executed(&running) == all()).await;
    running.checkpoint().await.unwrap();
    until("all is acked", || fast.is_empty() && slow.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_under_way_end_before_a_barrier_passes() {
    let (fast, slow, gate) = (Source::default(), Source::default(), Arc::new(Semaphore::new(0)));
    let running = gated(&fast, &slow, &gate, 1 << 20).await;
    (0..4).for_each(|_| slow.send("slow"));
    until("all calls are made", || running.metrics().component("gate").unwrap().executed == 4).await;
    let handle = running.handle();
    let checkpoint = tokio::spawn(async move { handle.checkpoint().await });
    for _ in 0..4 {
        assert!(!checkpoint.is_finished(), "a call is under way");
        gate.add_permits(1);
    }
    assert_eq!(checkpoint.await.unwrap().unwrap().in_doubt, 4, "their effects are in it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_delivered_again_while_it_is_worked_on_does_not_count_twice() {
    let (fast, slow, gate) = (Source::default(), Source::default(), Arc::new(Semaphore::new(0)));
    let running = gated(&fast, &slow, &gate, 1 << 20).await;
    (0..4).for_each(|_| slow.send("slow"));
    until("all calls are made", || running.metrics().component("gate").unwrap().executed == 4).await;
    slow.deliver_again();
    until("the doubles fail", || running.metrics().component("slow").unwrap().failures() >= 4).await;
    gate.add_permits(1_000);
    until("all is counted", || executed(&running) == 4).await;
    until("the first ones are done", || running.metrics().component("slow").unwrap().pending == 0).await;
    running.checkpoint().await.unwrap();
    until("all is acked", || slow.is_empty()).await;
    let metrics = running.metrics();
    let spout = metrics.component("slow").unwrap();
    assert_eq!(spout.faults["unavailable"], spout.failures());
    assert_eq!((executed(&running), metrics.component("gate").unwrap().executed), (4, 4));
}
