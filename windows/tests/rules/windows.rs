//! What windows emit, and what becomes of the tuples in them.

use std::time::Duration;

use galerna_engine::EngineOptions;
use galerna_engine::testing::{Feed, Harness, Run, Seen};
use galerna_topology::FailureKind;
use galerna_topology::prelude::*;
use galerna_windows::{
    Aggregate, Count, Firing, Fold, Late, Window, WindowBounds, WindowResult, WindowTopology,
};

use crate::{Reading, at};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn sum() -> impl Aggregate<Reading, Output = i64> {
    Fold::new(
        0,
        |sum: &mut i64, reading: Reading| *sum += reading.2,
        |sum: &mut i64, later: &i64| *sum += later,
    )
}

/// A topology of a feed and a window, and what it emits.
struct Windowed<R> {
    feed: Feed<Reading>,
    results: Seen<WindowResult<&'static str, R>>,
    late: Seen<Late<&'static str, Reading>>,
    run: Run,
    next: u64,
}

impl<R: Clone + Send + 'static> Windowed<R> {
    async fn start<A: Aggregate<Reading, Output = R>>(window: Window<Reading, &'static str, A>) -> Self {
        let harness = Harness::new();
        let (feed, results, late) = (harness.feed(), harness.seen(), harness.seen());
        let mut topology = TopologyBuilder::new("windowed");
        topology.message_timeout(None);
        let readings = topology.spout("feed", feed.spout()).outputs();
        let windowed = topology.window("window", window, readings).outputs();
        topology.bolt("results", results.bolt()).global(windowed.results);
        topology.bolt("late", late.bolt()).global(windowed.late);
        let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
        Self { feed, results, late, run, next: 0 }
    }

    /// Feeds readings, each of which is worked off before the next.
    async fn feed(&mut self, readings: &[Reading]) {
        for reading in readings {
            self.feed.emit(self.next, *reading);
            self.next += 1;
            self.run.settle().await;
        }
    }

    fn results(&self) -> Vec<(&'static str, i64, i64, Firing, R)> {
        let flat = |result: WindowResult<&'static str, R>| match result.bounds {
            WindowBounds::Time { start, end } => {
                (result.key, start.millis(), end.millis(), result.firing, result.value)
            }
            WindowBounds::Count { first, last } => {
                (result.key, first as i64, last as i64, result.firing, result.value)
            }
        };
        self.results.values().into_iter().map(flat).collect()
    }

    fn acked(&self) -> Vec<u64> {
        let mut acked = self.feed.acked();
        acked.sort_unstable();
        acked
    }

    fn failed(&self) -> Vec<(u64, String)> {
        let failed = self.feed.failed().into_iter();
        failed.map(|failed| (failed.id, failed.failure.reason().to_owned())).collect()
    }
}

fn tumbling(size: u64) -> Window<Reading, &'static str, impl Aggregate<Reading, Output = i64>> {
    let window = Window::tumbling(secs(size)).event_time(|reading: &Reading| reading.1);
    window.by(|reading: &Reading| reading.0).aggregate(sum())
}

#[tokio::test]
async fn a_window_emits_when_the_watermark_has_passed_it_and_acks_then() {
    let mut w = Windowed::start(tumbling(10).lag(secs(2))).await;
    w.feed(&[("a", 1_000, 1), ("b", 9_999, 2), ("a", 3_000, 4), ("a", 11_999, 8)]).await;
    assert_eq!((w.results().len(), w.acked().len()), (0, 0), "the watermark is at 9,999");
    w.feed(&[("b", 12_000, 16)]).await;
    let mut results = w.results();
    results.sort();
    assert_eq!(results, [("a", 0, 10_000, Firing::OnTime, 5), ("b", 0, 10_000, Firing::OnTime, 2)]);
    assert_eq!(w.acked(), [0, 1, 2], "those after it are in a window that is open");
    assert_eq!(w.run.metrics().component("window").expect("it is there").gauges["window_state"][&0], 2.0);
}

#[tokio::test]
async fn the_end_of_the_stream_completes_all_windows() {
    let mut w = Windowed::start(tumbling(10).lag(secs(2))).await;
    w.feed(&[("a", 1_000, 1), ("a", 15_000, 2)]).await;
    w.feed.done();
    w.run.settle().await;
    let expected = [("a", 0, 10_000, Firing::OnTime, 1), ("a", 10_000, 20_000, Firing::OnTime, 2)];
    assert_eq!(w.results(), expected);
    assert_eq!(w.acked(), [0, 1]);
    let report = w.run.drain(secs(1)).await;
    assert!(report.drained, "{report:#?}");
}

#[tokio::test]
async fn late_tuples_go_into_their_window_or_to_the_late_output_and_are_counted() {
    let window = tumbling(10).lag(secs(0)).allowed_lateness(secs(20)).count_late_by(ToString::to_string);
    let mut w = Windowed::start(window).await;
    w.feed(&[("a", 1_000, 1), ("a", 10_000, 2), ("a", 2_000, 4), ("a", 29_999, 8), ("b", 3_000, 16)]).await;
    assert_eq!(
        w.results(),
        [
            ("a", 0, 10_000, Firing::OnTime, 1),
            ("a", 0, 10_000, Firing::Late, 5),
            ("a", 10_000, 20_000, Firing::OnTime, 2),
            ("b", 0, 10_000, Firing::Late, 16),
        ]
    );
    assert_eq!(w.late.count(), 0);
    w.feed(&[("a", 30_000, 32), ("a", 4_000, 64), ("b", 9_000, 128)]).await;
    assert_eq!(
        w.late.values(),
        [
            Late { key: "a", tuple: ("a", 4_000, 64), at: at(4_000), late_by: secs(26) },
            Late { key: "b", tuple: ("b", 9_000, 128), at: at(9_000), late_by: secs(21) },
        ]
    );
    assert_eq!(w.acked(), [0, 1, 2, 3, 4, 6, 7], "but for what is in an open window");
    let metrics = w.run.metrics();
    let counters = &metrics.component("window").expect("it is there").counters;
    let counted = |name: &str| counters.get(name).copied();
    assert_eq!(
        (counted("late"), counted("late_within_1m"), counted("late_within_1s")),
        (Some(2), Some(2), Some(0))
    );
    assert_eq!((counted("late_key_a"), counted("late_key_b")), (Some(1), Some(1)));
}

#[tokio::test]
async fn a_result_that_fails_fails_the_tuples_it_is_made_of() {
    let harness = Harness::new();
    let feed = harness.feed();
    let mut topology = TopologyBuilder::new("failing");
    topology.message_timeout(None);
    let readings = topology.spout("feed", feed.spout()).outputs();
    let windowed = topology.window("window", tumbling(10).lag(secs(0)), readings).outputs();
    topology
        .for_each("store", |result: WindowResult<&'static str, i64>| match result.key {
            "bad" => Err(Fault::transient("the store is away")),
            _ => Ok(()),
        })
        .global(windowed.results);
    let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
    for (id, reading) in [("good", 1_000, 1), ("bad", 2_000, 1), ("bad", 3_000, 1), ("good", 10_000, 1)]
        .into_iter()
        .enumerate()
    {
        feed.emit(id as u64, reading);
    }
    run.settle().await;
    assert_eq!(feed.acked(), [0]);
    let mut failed: Vec<_> =
        feed.failed().into_iter().map(|f| (f.id, f.failure.component.to_string())).collect();
    failed.sort();
    assert_eq!(failed, [(1, "store".to_owned()), (2, "store".to_owned())]);
}

#[tokio::test]
async fn what_is_not_complete_when_the_topology_drains_comes_again_or_is_emitted_as_it_is() {
    let mut w = Windowed::start(tumbling(10).lag(secs(0))).await;
    w.feed(&[("a", 1_000, 1), ("a", 2_000, 2)]).await;
    let feed = w.feed.clone();
    let report = w.run.drain(secs(5)).await;
    assert!(report.drained, "{report:#?}");
    let failed: Vec<_> =
        feed.failed().into_iter().map(|f| (f.id, f.failure.kind, f.failure.reason().to_owned())).collect();
    let reason = "the topology ends before the window of the tuple is complete".to_owned();
    assert_eq!(failed, [(0, FailureKind::Error, reason.clone()), (1, FailureKind::Error, reason)]);

    let mut w = Windowed::start(tumbling(10).lag(secs(0)).fire_at_drain()).await;
    w.feed(&[("a", 1_000, 1), ("a", 2_000, 2)]).await;
    let (feed, results) = (w.feed.clone(), w.results.clone());
    let report = w.run.drain(secs(5)).await;
    assert!(report.drained, "{report:#?}");
    assert_eq!(results.values()[0].firing, Firing::AtEnd);
    assert_eq!((results.values()[0].value, feed.acked().len()), (3, 2));
}

#[tokio::test]
async fn acked_on_arrival_nothing_waits_for_the_window() {
    let mut w = Windowed::start(tumbling(10).lag(secs(0)).ack_on_arrival()).await;
    w.feed(&[("a", 1_000, 1), ("a", 2_000, 2)]).await;
    assert_eq!(w.acked(), [0, 1]);
    assert_eq!(w.results().len(), 0);
    w.feed(&[("a", 10_000, 4)]).await;
    assert_eq!(w.results(), [("a", 0, 10_000, Firing::OnTime, 3)]);
}

#[tokio::test]
async fn what_an_author_gets_wrong_costs_the_tuple() {
    let window = Window::tumbling(secs(10))
        .event_time(|reading: &Reading| {
            assert!(reading.2 != 13, "no thirteen");
            reading.1
        })
        .by(|reading: &Reading| {
            assert!(reading.2 != 14, "no fourteen");
            reading.0
        })
        .aggregate(sum())
        .lag(secs(0));
    let mut w = Windowed::start(window).await;
    let now = 1_800_000_000_000;
    let century = 100 * 365 * 24 * 3_600 * 1_000;
    w.feed(&[
        ("a", now, 1),
        ("a", now, 13),
        ("a", now - century, 2),
        ("a", now + century, 4),
        ("a", i64::MIN, 8),
        ("a", i64::MAX, 16),
        ("a", now + 10_000, 32),
    ])
    .await;
    assert_eq!(w.results(), [("a", now, now + 10_000, Firing::OnTime, 1)], "the watermark did not jump");
    let failed = w.failed();
    assert_eq!(failed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(failed[0].1, "the timestamp closure panicked: no thirteen");
    assert!(
        failed[1].1.starts_with("the timestamp -1353600000000 ms is 3153600000s before the latest"),
        "{failed:#?}"
    );
    assert!(failed[2].1.contains("after the latest of its source"), "{failed:#?}");
    assert!(failed[3].1.ends_with("it is to give milliseconds since 1970"), "{failed:#?}");
    assert_eq!(w.run.metrics().component("window").expect("it is there").restarts, 0);
}

#[tokio::test]
async fn a_key_that_panics_costs_the_tuple() {
    let window = Window::count(2)
        .by(|reading: &Reading| {
            assert!(reading.2 != 14, "no fourteen");
            reading.0
        })
        .aggregate(Count);
    let mut w = Windowed::start(window).await;
    w.feed(&[("a", 0, 1), ("a", 0, 14), ("a", 0, 2)]).await;
    assert_eq!(w.results(), [("a", 1, 2, Firing::OnTime, 2)]);
    let failed = w.failed();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].1.contains("no fourteen"), "{failed:#?}");
}

#[tokio::test]
async fn windows_by_the_clock_emit_when_it_has_passed_them() {
    let window = Window::tumbling(secs(10)).by(|reading: &Reading| reading.0).aggregate(sum());
    let mut w = Windowed::start(window).await;
    w.feed(&[("a", 0, 1), ("a", 0, 2)]).await;
    w.run.advance(secs(6)).await;
    w.feed(&[("a", 0, 4)]).await;
    assert_eq!(w.results().len(), 0);
    w.run.advance(secs(4)).await;
    assert_eq!(w.results(), [("a", 0, 10_000, Firing::OnTime, 7)]);
    assert_eq!(w.acked(), [0, 1, 2]);
    let window = Window::session(secs(5)).by(|reading: &Reading| reading.0).aggregate(Count);
    let mut w = Windowed::start(window).await;
    w.feed(&[("a", 0, 1)]).await;
    w.run.advance(secs(3)).await;
    w.feed(&[("a", 0, 1)]).await;
    w.run.advance(secs(3)).await;
    assert_eq!(w.results().len(), 0);
    w.run.advance(secs(3)).await;
    assert_eq!(w.results(), [("a", 0, 8_000, Firing::OnTime, 2)]);
}

#[tokio::test]
async fn early_results_come_at_an_interval() {
    let mut w = Windowed::start(tumbling(3_600).lag(secs(0)).idle_after(None).early_every(secs(15))).await;
    w.feed(&[("a", 1_000, 1)]).await;
    w.run.advance(secs(15)).await;
    w.run.advance(secs(15)).await;
    w.feed(&[("a", 2_000, 2), ("a", 3_000, 4)]).await;
    w.run.advance(secs(15)).await;
    let early = |value| ("a", 0, 3_600_000, Firing::Early, value);
    assert_eq!(w.results(), [early(1), early(7)]);
    assert_eq!(w.acked().len(), 0, "an early result is no end");
}

#[tokio::test]
async fn without_a_key_there_is_one_window_for_all() {
    let harness = Harness::new();
    let (feed, results) = (harness.feed::<i64>(), harness.seen());
    let mut topology = TopologyBuilder::new("one");
    let numbers = topology.spout("feed", feed.spout()).outputs();
    let windowed = topology.window("window", Window::count(3), numbers).parallelism(3).outputs();
    topology.bolt("results", results.bolt()).global(windowed.results);
    let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
    (1..=7).for_each(|n| feed.emit(n as u64, n));
    run.settle().await;
    let values: Vec<Vec<i64>> =
        results.values().into_iter().map(|result: WindowResult<(), _>| result.value).collect();
    assert_eq!(values, [[1, 2, 3], [4, 5, 6]]);
}

#[tokio::test]
async fn untracked_tuples_count_as_others() {
    let harness = Harness::new().with_options(EngineOptions::default());
    let (feed, results) = (harness.feed::<i64>(), harness.seen());
    let mut topology = TopologyBuilder::new("untracked");
    let numbers = topology.spout("feed", feed.spout()).outputs();
    let windowed = topology.window("window", Window::count(2).aggregate(Count), numbers).outputs();
    topology.bolt("results", results.bolt()).global(windowed.results);
    let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
    (1..=4).for_each(|n| feed.emit_untracked(n));
    run.settle().await;
    assert_eq!(
        results.values().into_iter().map(|r: WindowResult<(), u64>| r.value).collect::<Vec<_>>(),
        [2, 2]
    );
}

/// Emits readings, brings again what fails, and so is done only when all are acked.
struct Careful {
    left: Vec<Reading>,
    pending: usize,
}

impl Spout for Careful {
    type MessageId = Reading;
    type Outputs = Output<Reading>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let Some(reading) = self.left.pop() else {
            return Ok(if self.pending == 0 { Next::Done } else { Next::Ended });
        };
        self.pending += 1;
        out.root(reading).emit(reading);
        Ok(Next::Ready)
    }

    async fn ready(&mut self) {
        if self.left.is_empty() && self.pending > 0 {
            std::future::pending().await
        }
    }

    async fn acked(&mut self, ids: &mut Vec<Reading>) {
        self.pending -= ids.len();
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Reading>>) {
        self.pending -= failed.len();
        self.left.extend(failed.drain(..).map(|failed| failed.id));
    }
}

#[tokio::test]
async fn a_spout_that_waits_for_its_acks_ends_its_stream_before_that() {
    let harness = Harness::new();
    let results = harness.seen();
    let mut topology = TopologyBuilder::new("careful");
    topology.message_timeout(None);
    let readings = || Careful { left: vec![("a", 2_000, 2), ("a", 1_000, 1)], pending: 0 };
    let readings = topology.spout("careful", readings).outputs();
    let windowed = topology.window("window", tumbling(3_600).lag(secs(1)), readings).outputs();
    topology.bolt("results", results.bolt()).global(windowed.results);
    let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
    tokio::time::timeout(secs(30), run.running().finished())
        .await
        .expect("the end of the stream completes the window");
    let values: Vec<i64> = results.values().into_iter().map(|r: WindowResult<&str, i64>| r.value).collect();
    assert_eq!(values, [3]);
}
