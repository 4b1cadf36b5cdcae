//! Who is acked, who is failed, when, and why.

use std::time::Duration;

use galerna_engine::EngineOptions;
use galerna_engine::testing::{Feed, Harness, Run, Seen};
use galerna_topology::prelude::*;

use crate::bolts::{Aggregating, Branching, DuplicateAnchor, Held, Holding, identity, take};

/// A topology of one feed, wired by the test.
async fn run_with(wire: impl FnOnce(&Harness, &mut TopologyBuilder, Stream<u64>)) -> (Run, Feed<u64>) {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("acking");
    let stream = topology.spout("feed", feed.spout()).outputs();
    wire(&harness, &mut topology, stream);
    (harness.start(topology.build().unwrap()).await.unwrap(), feed)
}

fn kinds(feed: &Feed<u64>) -> Vec<(u64, FailureKind)> {
    feed.failed().iter().map(|failed| (failed.id, failed.failure.kind)).collect()
}

#[tokio::test]
async fn a_root_is_acked_when_the_only_bolt_returns_ok() {
    let (run, feed) = run_with(|harness, topology, stream| {
        topology.bolt("seen", harness.seen::<u64>().bolt()).shuffle(stream);
    })
    .await;
    feed.emit(7, 7);
    run.settle().await;
    assert_eq!((feed.acked(), feed.failed()), (vec![7], vec![]));
}

#[tokio::test]
async fn with_tracking_off_a_root_is_acked_when_it_is_emitted() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let held = Held::default();
    let mut topology = TopologyBuilder::new("untracked");
    topology.tracking(false);
    let stream = topology.spout("feed", feed.spout()).outputs();
    let hands = held.clone();
    topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    feed.emit(1, 1);
    run.settle().await;
    assert_eq!(feed.acked(), [1]);
    take(&held, 1).fail(Fault::transient("too late"));
    run.settle().await;
    assert_eq!((feed.acked(), feed.failed()), (vec![1], vec![]));
}

#[tokio::test]
async fn a_tuple_without_a_root_id_is_neither_acked_nor_failed() {
    let seen = Seen::clone(&Harness::new().seen::<u64>());
    let bolt = seen.clone();
    let (run, feed) = run_with(|_, topology, stream| {
        topology.bolt("seen", bolt.bolt()).shuffle(&stream);
        topology.for_each("fail", |_: u64| Err(Fault::transient("no"))).shuffle(stream);
    })
    .await;
    feed.emit_untracked(1);
    run.advance(Duration::from_secs(60)).await;
    assert_eq!((seen.values(), feed.acked(), feed.failed()), (vec![1], vec![], vec![]));
}

#[tokio::test]
async fn a_root_with_no_subscriber_is_acked_at_once() {
    let (run, feed) = run_with(|_, _, _| {}).await;
    feed.emit(1, 1);
    feed.emit_all(2, []);
    run.settle().await;
    let mut acked = feed.acked();
    acked.sort();
    assert_eq!(acked, [1, 2]);
}

#[tokio::test]
async fn a_tuple_that_a_bolt_emits_to_nobody_is_done() {
    let (run, feed) = run_with(|_, topology, stream| {
        topology.bolt("branch", || Branching(3)).shuffle(stream);
    })
    .await;
    feed.emit(1, 1);
    run.settle().await;
    assert_eq!(feed.acked(), [1]);
}

#[tokio::test]
async fn a_root_of_several_tuples_is_acked_once_after_all_of_them() {
    let held = Held::default();
    let hands = held.clone();
    let (run, feed) = run_with(|_, topology, stream| {
        topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    })
    .await;
    feed.emit_all(1, [10, 11, 12]);
    run.settle().await;
    for value in [11, 12] {
        take(&held, value).ack();
        run.settle().await;
        assert!(feed.acked().is_empty());
    }
    take(&held, 10).ack();
    run.settle().await;
    assert_eq!(feed.acked(), [1]);
}

#[tokio::test]
async fn a_root_whose_children_go_to_different_tasks_is_acked_once_after_both() {
    let held = Held::default();
    let (left, right) = (held.clone(), held.clone());
    let (run, feed) = run_with(|_, topology, stream| {
        topology.bolt("left", move || Holding(left.clone())).shuffle(&stream);
        topology.bolt("right", move || Holding(right.clone())).shuffle(&stream).parallelism(2);
    })
    .await;
    feed.emit(5, 50);
    run.settle().await;
    take(&held, 50).ack();
    run.settle().await;
    assert!(feed.acked().is_empty());
    take(&held, 50).ack();
    run.settle().await;
    assert_eq!(feed.acked(), [5]);
}

#[tokio::test]
async fn one_failing_child_fails_the_root_at_once_with_the_reason_and_late_acks_are_ignored() {
    let held = Held::default();
    let hands = held.clone();
    let (run, feed) = run_with(|_, topology, stream| {
        topology.bolt("hold", move || Holding(hands.clone())).all(stream).parallelism(3);
    })
    .await;
    feed.emit(5, 50);
    run.settle().await;
    take(&held, 50).fail(Fault::transient("v is NaN"));
    run.settle().await;
    let failed = feed.failed();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].id, 5);
    assert_eq!(failed[0].failure, Failure::new(FailureKind::Error, "v is NaN", "hold"));
    take(&held, 50).ack();
    take(&held, 50).fail(Fault::transient("again"));
    run.settle().await;
    assert_eq!((feed.acked(), feed.failed().len()), (vec![], 1));
}

#[tokio::test]
async fn an_error_fails_the_tuple_and_takes_back_what_the_call_emitted() {
    struct Half;
    impl Bolt for Half {
        type Input = u64;
        type Outputs = Output<u64>;
        fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
            out.emit(n);
            out.emit_unanchored(n + 100);
            if n % 2 == 1 {
                return Err(Fault::transient(format!("{n} is odd")));
            }
            Ok(())
        }
    }
    let seen = Harness::new().seen::<u64>();
    let bolt = seen.clone();
    let (run, feed) = run_with(|_, topology, stream| {
        let half = topology.bolt("half", || Half).shuffle(stream).outputs();
        topology.bolt("seen", bolt.bolt()).shuffle(half);
    })
    .await;
    (1..=4).for_each(|n| feed.emit(n, n));
    run.settle().await;
    assert_eq!(feed.acked(), [2, 4]);
    let mut reasons: Vec<_> = feed.failed().iter().map(|f| f.failure.reason().to_string()).collect();
    reasons.sort();
    assert_eq!(reasons, ["1 is odd", "3 is odd"]);
    let mut values = seen.values();
    values.sort();
    assert_eq!(values, [2, 4, 101, 102, 103, 104]);
}

#[tokio::test]
async fn dropping_a_kept_tuple_fails_its_root_at_once() {
    let held = Held::default();
    let hands = held.clone();
    let (run, feed) = run_with(|_, topology, stream| {
        topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    })
    .await;
    feed.emit(1, 1);
    run.settle().await;
    drop(take(&held, 1));
    run.settle().await;
    assert_eq!(kinds(&feed), [(1, FailureKind::Dropped)]);
    assert_eq!(&*feed.failed()[0].failure.component, "hold");
}

#[tokio::test]
async fn a_kept_tuple_may_be_acked_from_another_thread() {
    let held = Held::default();
    let hands = held.clone();
    let (run, feed) = run_with(|_, topology, stream| {
        topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    })
    .await;
    feed.emit(1, 1);
    run.settle().await;
    let anchor = take(&held, 1);
    std::thread::spawn(move || anchor.ack()).join().unwrap();
    run.settle().await;
    assert_eq!(feed.acked(), [1]);
}

#[tokio::test]
async fn a_root_not_done_in_the_message_timeout_fails_with_that_reason() {
    let held = Held::default();
    let hands = held.clone();
    let (run, feed) = run_with(|_, topology, stream| {
        topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    })
    .await;
    feed.emit(1, 1);
    run.settle().await;
    run.advance(Duration::from_secs(20)).await;
    feed.emit(2, 2);
    run.settle().await;
    run.advance(Duration::from_millis(9_999)).await;
    assert_eq!(kinds(&feed), []);
    run.advance(Duration::from_millis(1)).await;
    assert_eq!(kinds(&feed), [(1, FailureKind::Timeout)]);
    assert_eq!(
        (feed.failed()[0].failure.reason(), &*feed.failed()[0].failure.component),
        ("timeout", "feed")
    );
    run.advance(Duration::from_secs(20)).await;
    assert_eq!(kinds(&feed), [(1, FailureKind::Timeout), (2, FailureKind::Timeout)]);
    take(&held, 1).ack();
    take(&held, 2).fail(Fault::transient("late"));
    run.settle().await;
    assert_eq!((feed.acked(), feed.failed().len()), (vec![], 2));
}

#[tokio::test]
async fn with_timeouts_off_an_unacked_tuple_never_fails() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let held = Held::default();
    let mut topology = TopologyBuilder::new("patient");
    topology.message_timeout(None);
    let stream = topology.spout("feed", feed.spout()).outputs();
    let hands = held.clone();
    topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    feed.emit(1, 1);
    run.settle().await;
    run.advance(Duration::from_secs(100_000)).await;
    assert_eq!((feed.acked(), feed.failed()), (vec![], vec![]));
    take(&held, 1).ack();
    run.settle().await;
    assert_eq!(feed.acked(), [1]);
}

#[tokio::test]
async fn a_spout_may_have_a_timeout_of_its_own_and_a_bolt_may_start_it_anew() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let held = Held::default();
    let mut topology = TopologyBuilder::new("extended");
    let stream = topology.spout("feed", feed.spout()).message_timeout(Duration::from_secs(10)).outputs();
    let hands = held.clone();
    topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    feed.emit(1, 1);
    feed.emit(2, 2);
    run.settle().await;
    for _ in 0..3 {
        run.advance(Duration::from_secs(8)).await;
        held.lock().unwrap().iter().filter(|(n, _)| *n == 2).for_each(|(_, anchor)| anchor.reset_timeout());
        run.settle().await;
    }
    assert_eq!(kinds(&feed), [(1, FailureKind::Timeout)]);
    take(&held, 2).ack();
    run.settle().await;
    assert_eq!(feed.acked(), [2]);
}

#[tokio::test]
async fn the_same_anchor_twice_is_legal() {
    let (run, feed) = run_with(|harness, topology, stream| {
        let twice = topology.bolt("twice", || DuplicateAnchor).shuffle(stream).outputs();
        topology.bolt("seen", harness.seen::<u64>().bolt()).shuffle(twice);
    })
    .await;
    feed.emit(1, 1);
    run.settle().await;
    assert_eq!(feed.acked(), [1]);
}

#[tokio::test]
async fn branches_that_join_again_are_acked_when_the_join_has_all() {
    let (run, feed) = run_with(|harness, topology, stream| {
        let left = topology.map("left", identity::<u64>).shuffle(&stream).outputs();
        let right = topology.map("right", identity::<u64>).shuffle(&stream).outputs();
        let joined = topology.bolt("join", || Aggregating::new(4)).shuffle(left).shuffle(right).outputs();
        topology.bolt("seen", harness.seen::<u64>().bolt()).shuffle(joined);
    })
    .await;
    feed.emit(1, 1);
    run.settle().await;
    assert!(feed.acked().is_empty());
    feed.emit(2, 2);
    run.settle().await;
    let mut acked = feed.acked();
    acked.sort();
    assert_eq!(acked, [1, 2]);
}

#[tokio::test]
async fn trees_of_three_spouts_that_join_are_each_acked_when_all_their_tuples_are() {
    let harness = Harness::new();
    let feeds: Vec<Feed<u64>> = (0..3).map(|_| harness.feed()).collect();
    let mut topology = TopologyBuilder::new("acking");
    let mut streams = Vec::new();
    for (at, (feed, branches)) in feeds.iter().zip([2, 4, 1]).enumerate() {
        let stream = topology.spout(format!("feed{at}"), feed.spout()).outputs();
        let id = format!("branch{at}");
        streams.push(topology.bolt(id, move || Branching(branches)).shuffle(stream).outputs());
    }
    let joined = topology
        .bolt("join", || Aggregating::new(3))
        .shuffle(&streams[0])
        .shuffle(&streams[1])
        .shuffle(&streams[2])
        .outputs();
    let twice = topology.bolt("twice", || Branching(2)).shuffle(joined).outputs();
    topology.bolt("seen", harness.seen::<u64>().bolt()).shuffle(twice);
    let run = harness.start(topology.build().unwrap()).await.unwrap();

    let mut id = 0;
    // Which feed emits, and how many acks each has had after that.
    for (feed, acks) in
        [(0, [0, 0, 0]), (1, [1, 1, 0]), (0, [1, 1, 0]), (0, [2, 1, 0]), (2, [2, 1, 0]), (1, [3, 2, 1])]
    {
        id += 1;
        feeds[feed].emit(id, id);
        run.settle().await;
        let counted: Vec<usize> = feeds.iter().map(|feed| feed.acked().len()).collect();
        assert_eq!(counted, acks, "after root {id}");
    }
}

#[tokio::test]
async fn failing_a_joined_tuple_fails_the_roots_of_all_its_trees() {
    let harness = Harness::new();
    let (left, right) = (harness.feed::<u64>(), harness.feed::<u64>());
    let mut topology = TopologyBuilder::new("joined");
    let left_stream = topology.spout("left", left.spout()).outputs();
    let right_stream = topology.spout("right", right.spout()).outputs();
    let joined =
        topology.bolt("join", || Aggregating::new(2)).shuffle(left_stream).shuffle(right_stream).outputs();
    topology.for_each("fail", |_: u64| Err(Fault::transient("broken"))).shuffle(joined);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    left.emit(1, 1);
    right.emit(2, 2);
    run.settle().await;
    assert_eq!(kinds(&left), [(1, FailureKind::Error)]);
    assert_eq!(kinds(&right), [(2, FailureKind::Error)]);
}

#[tokio::test]
async fn an_unanchored_tuple_joins_no_tree() {
    struct Loose;
    impl Bolt for Loose {
        type Input = u64;
        type Outputs = Output<u64>;
        fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
            out.emit_unanchored(n);
            Ok(())
        }
    }
    let (run, feed) = run_with(|_, topology, stream| {
        let loose = topology.bolt("loose", || Loose).shuffle(stream).outputs();
        topology.for_each("fail", |_: u64| Err(Fault::transient("nobody hears it"))).shuffle(loose);
    })
    .await;
    feed.emit(1, 1);
    run.settle().await;
    assert_eq!((feed.acked(), feed.failed()), (vec![1], vec![]));
}

#[tokio::test]
async fn emitting_before_and_after_keeping_anchors_both_times() {
    struct Both(Held);
    impl Bolt for Both {
        type Input = u64;
        type Outputs = Output<u64>;
        fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
            out.emit(n * 10);
            let anchor = out.keep();
            out.emit(n * 10 + 1);
            self.0.lock().unwrap().push((n, anchor));
            Ok(())
        }
    }
    let (kept, held) = (Held::default(), Held::default());
    let (mine, hands) = (kept.clone(), held.clone());
    let (run, feed) = run_with(|_, topology, stream| {
        let both = topology.bolt("both", move || Both(mine.clone())).shuffle(stream).outputs();
        topology.bolt("hold", move || Holding(hands.clone())).shuffle(both);
    })
    .await;
    feed.emit(1, 1);
    run.settle().await;
    take(&kept, 1).ack();
    run.settle().await;
    assert!(feed.acked().is_empty());
    take(&held, 10).ack();
    take(&held, 11).ack();
    run.settle().await;
    assert_eq!(feed.acked(), [1]);
}

#[tokio::test]
async fn a_batch_that_is_kept_settles_row_by_row() {
    struct Bulk;
    impl AsyncBatchBolt for Bulk {
        type Input = u64;
        type Outputs = ();
        async fn execute(&mut self, batch: Batch<u64>, _: &mut Emitter<()>) {
            let (values, anchors) = batch.into_parts();
            anchors.settle(values.iter().map(|n| match n {
                0 => Err(Fault::transient("duplicate")),
                _ => Ok(()),
            }));
        }
    }
    let (run, feed) = run_with(|_, topology, stream| {
        topology.async_batch_bolt("bulk", || Bulk).shuffle(stream);
    })
    .await;
    (0..10).for_each(|n| feed.emit(n, n % 5));
    run.settle().await;
    let mut acked = feed.acked();
    acked.sort();
    assert_eq!(acked, [1, 2, 3, 4, 6, 7, 8, 9]);
    let mut failed = kinds(&feed);
    failed.sort();
    assert_eq!(failed, [(0, FailureKind::Error), (5, FailureKind::Error)]);
}

#[tokio::test]
async fn a_dropped_batch_fails_all_its_roots() {
    struct Forgetful;
    impl AsyncBatchBolt for Forgetful {
        type Input = u64;
        type Outputs = ();
        async fn execute(&mut self, batch: Batch<u64>, _: &mut Emitter<()>) {
            drop(batch);
        }
    }
    let (run, feed) = run_with(|_, topology, stream| {
        topology.async_batch_bolt("forget", || Forgetful).shuffle(stream);
    })
    .await;
    (0..3).for_each(|n| feed.emit(n, n));
    run.settle().await;
    let mut failed = kinds(&feed);
    failed.sort();
    assert_eq!(failed, [0, 1, 2].map(|id| (id, FailureKind::Dropped)));
}

#[tokio::test]
async fn fusing_changes_nothing_about_delivery() {
    for fuse in [true, false] {
        let harness = Harness::new().with_options(EngineOptions { fuse, ..EngineOptions::default() });
        let feed = harness.feed::<u64>();
        let seen = harness.seen::<u64>();
        let mut topology = TopologyBuilder::new("chain");
        let mut stream = topology.spout("feed", feed.spout()).outputs();
        for n in 0..10 {
            stream = topology.map(format!("plus{n}"), |n: u64| n + 1).shuffle(stream).outputs();
        }
        let checked = topology.flat_map("twice", |n: u64| [n, n]).shuffle(stream).outputs();
        topology.bolt("seen", seen.bolt()).shuffle(&checked);
        topology
            .for_each(
                "check",
                |n: u64| if n.is_multiple_of(7) { Err(Fault::transient("seven")) } else { Ok(()) },
            )
            .shuffle(&checked);
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        (0..100).for_each(|n| feed.emit(n, n));
        run.settle().await;
        let mut acked = feed.acked();
        acked.sort();
        assert_eq!(acked, (0..100).filter(|n| (n + 10) % 7 != 0).collect::<Vec<_>>(), "fuse: {fuse}");
        assert_eq!(feed.failed().len(), 100 - acked.len());
        assert_eq!(seen.count(), 200);
        let fused = run.metrics().components.iter().filter(|c| c.fused_with.is_some()).count();
        assert_eq!(fused > 0, fuse);
    }
}
