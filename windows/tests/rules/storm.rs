//! What Storm's own tests of windows check, in topologies that run.

use std::time::Duration;

use galerna_engine::testing::{Feed, Harness, Run, Seen};
use galerna_topology::prelude::*;
use galerna_windows::{Collect, EventTime, Firing, Late, Window, WindowBounds, WindowResult, WindowTopology};

use crate::at;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A number, and its time.
type Tuple = (u32, i64);
/// The numbers of a window, and of those that left since the window before.
type Fired = (Vec<u32>, Vec<u32>);

struct Windowed {
    feed: Feed<Tuple>,
    results: Seen<WindowResult<(), Vec<Tuple>>>,
    late: Seen<Late<(), Tuple>>,
    run: Run,
}

impl Windowed {
    async fn start(window: Window<Tuple, (), Collect>) -> Self {
        let harness = Harness::new();
        let (feed, results, late) = (harness.feed(), harness.seen(), harness.seen());
        let mut topology = TopologyBuilder::new("storm");
        topology.message_timeout(None);
        let tuples = topology.spout("feed", feed.spout()).outputs();
        let windows = topology.window("window", window, tuples).outputs();
        topology.bolt("results", results.bolt()).global(windows.results);
        topology.bolt("late", late.bolt()).global(windows.late);
        let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
        Self { feed, results, late, run }
    }

    /// Feeds tuples one by one; what fires meanwhile.
    async fn feed(&mut self, tuples: impl IntoIterator<Item = Tuple>) -> Vec<Fired> {
        let before = self.results.values().len();
        for tuple in tuples {
            self.feed.emit(u64::from(tuple.0), tuple);
            self.run.settle().await;
        }
        let numbers = |tuples: Vec<Tuple>| {
            let mut numbers: Vec<u32> = tuples.into_iter().map(|(n, _)| n).collect();
            numbers.sort_unstable();
            numbers
        };
        let fired = self.results.values().into_iter().skip(before);
        fired.map(|result| (numbers(result.value), numbers(result.expired.unwrap_or_default()))).collect()
    }
}

fn sliding(size: u64, slide: u64) -> Window<Tuple, (), Collect> {
    Window::sliding(ms(size), ms(slide)).event_time(|tuple: &Tuple| tuple.1)
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<u32> {
    range.collect()
}

#[tokio::test]
async fn windows_by_event_time_fire_when_the_watermark_passes_them_with_what_has_left() {
    let mut w = Windowed::start(sliding(20, 10).lag(ms(5)).with_expired()).await;
    // The watermark is at 602: no window is complete.
    assert_eq!(w.feed([(1, 603), (2, 605), (3, 607)]).await, []);
    // At 631 three are; the one before 618 has the first tuples only.
    let fired = w.feed([(4, 618), (5, 626), (6, 636)]).await;
    assert_eq!(fired, [(numbers(1..=3), vec![]), (numbers(1..=4), vec![]), (numbers(4..=5), numbers(1..=3))]);
    // After a gap the windows between, as long as there is something in them.
    let fired = w.feed([(7, 825), (8, 826), (9, 827), (10, 839)]).await;
    let windows: Vec<Vec<u32>> = fired.iter().map(|(window, _)| window.clone()).collect();
    assert_eq!(windows, [vec![5, 6], vec![6], vec![7, 8, 9]]);
    assert_eq!((fired[0].1.clone(), fired[1].1.clone()), (vec![4], vec![5]));
    // Late for all of its windows, and not for one that is open.
    assert_eq!(w.feed([(11, 600), (12, 824)]).await, []);
    assert_eq!(w.late.values(), [Late { key: (), tuple: (11, 600), at: at(600), late_by: ms(234) }]);
    let fired = w.feed([(13, 855)]).await;
    let windows: Vec<Vec<u32>> = fired.iter().map(|(window, _)| window.clone()).collect();
    assert_eq!(windows, [vec![7, 8, 9, 10, 12], vec![10]]);
}

#[tokio::test]
async fn what_is_too_late_for_its_windows_goes_to_the_late_stream() {
    let mut w = Windowed::start(sliding(20, 10).lag(ms(5))).await;
    // The watermark rises after each.
    let fired = w.feed((1..).zip([603, 605, 607, 618, 626, 636, 600])).await;
    let windows: Vec<Vec<u32>> = fired.into_iter().map(|(window, _)| window).collect();
    assert_eq!(windows, [numbers(1..=3), numbers(1..=4), numbers(4..=5)]);
    assert_eq!(w.late.values(), [Late { key: (), tuple: (7, 600), at: at(600), late_by: ms(31) }]);
    w.feed.done();
    w.run.settle().await;
    assert_eq!(w.feed.acked(), [1, 2, 3, 4, 7, 5, 6], "the late one waits for no window");
}

#[tokio::test]
async fn a_tumbling_window_by_time_has_each_tuple_once_and_none_fires_that_is_empty() {
    let mut w = Windowed::start(
        Window::tumbling(ms(10)).event_time(|tuple: &Tuple| tuple.1).aggregate(Collect).lag(ms(0)),
    )
    .await;
    let fired = w.feed([(1, 1), (2, 9), (3, 10), (4, 55), (5, 60)]).await;
    let windows: Vec<Vec<u32>> = fired.into_iter().map(|(window, _)| window).collect();
    assert_eq!(windows, [vec![1, 2], vec![3], vec![4]]);
    let bounds: Vec<_> = w.results.values().into_iter().map(|result| result.bounds).collect();
    let time = |start, end| WindowBounds::Time { start: at(start), end: at(end) };
    assert_eq!(bounds, [time(0, 10), time(10, 20), time(50, 60)]);
}

#[tokio::test]
async fn nothing_fires_before_the_first_watermark_whatever_comes() {
    // Two sources, of which one has said nothing.
    let harness = Harness::new();
    let (one, other, results) = (harness.feed::<Tuple>(), harness.feed::<Tuple>(), harness.seen());
    let mut topology = TopologyBuilder::new("storm");
    topology.message_timeout(None);
    let first = topology.spout("one", one.spout()).outputs();
    let second = topology.spout("other", other.spout()).outputs();
    let clock = || EventTime::of(|tuple: &Tuple| tuple.1).lag(ms(5)).idle_after(None);
    let first = topology.event_time("first", clock(), first).outputs();
    let second = topology.event_time("second", clock(), second).outputs();
    let both = topology.map("both", |tuple: Tuple| tuple).shuffle(first).shuffle(second).outputs();
    let window = Window::tumbling(ms(10)).event_time(|tuple: &Tuple| tuple.1).aggregate(Collect);
    let windows = topology.window("window", window, both).outputs();
    topology.bolt("results", results.bolt()).global(windows.results);
    let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
    let watermark = || run.metrics().component("window").and_then(|window| window.watermark.clone()?.at_ms);
    for (n, time) in [(1, 100), (2, 110), (3, 104)] {
        one.emit(u64::from(n), (n, time));
        run.settle().await;
    }
    run.advance(ms(200)).await;
    assert_eq!((watermark(), results.values().len()), (None, 0));
    // Then the least of both, less the lag; out of order it does not go back.
    for (n, time) in [(4, 95), (5, 98), (6, 96)] {
        other.emit(u64::from(n), (n, time));
        run.settle().await;
    }
    run.advance(ms(200)).await;
    assert_eq!((watermark(), results.values().len()), (Some(93), 0));
    other.emit(7, (7, 130));
    run.settle().await;
    run.advance(ms(200)).await;
    assert_eq!(watermark(), Some(105));
    let fired: Vec<Vec<Tuple>> =
        results.values().into_iter().map(|result: WindowResult<(), Vec<Tuple>>| result.value).collect();
    assert_eq!(fired, [vec![(4, 95), (5, 98), (6, 96)]]);
}

#[tokio::test]
async fn windows_by_count_do_not_look_at_times_and_a_part_of_one_does_not_fire() {
    let mut w = Windowed::start(Window::sliding_count(5, 2).aggregate(Collect).with_expired()).await;
    // All of one time.
    let fired = w.feed((1..=8).map(|n| (n, 10))).await;
    assert_eq!(
        fired,
        [
            (numbers(1..=2), vec![]),
            (numbers(1..=4), vec![]),
            (numbers(2..=6), vec![1]),
            (numbers(4..=8), vec![2, 3]),
        ]
    );
    let mut w = Windowed::start(Window::count(3).aggregate(Collect)).await;
    let fired = w.feed((1..=8).map(|n| (n, 10))).await;
    assert_eq!(fired, [(numbers(1..=3), vec![]), (numbers(4..=6), vec![])]);
    assert_eq!(w.feed.acked(), [1, 2, 3, 4, 5, 6], "the others wait for the third");
    let feed = w.feed.clone();
    w.run.drain(Duration::from_secs(5)).await;
    assert_eq!(feed.failed().into_iter().map(|failed| failed.id).collect::<Vec<_>>(), [7, 8]);

    let mut w = Windowed::start(Window::count(3).aggregate(Collect).fire_at_drain()).await;
    w.feed((1..=8).map(|n| (n, 10))).await;
    let results = w.results.clone();
    w.run.drain(Duration::from_secs(5)).await;
    let last = results.values().pop().expect("one");
    assert_eq!((last.firing, last.value.len()), (Firing::AtEnd, 2));
}

#[tokio::test]
async fn a_window_longer_than_the_stream_has_all_of_it_in_the_end() {
    let mut w = Windowed::start(sliding(1_000, 100).lag(ms(0))).await;
    assert_eq!(w.feed([(1, 10), (2, 20), (3, 30)]).await, []);
    w.feed.done();
    w.run.settle().await;
    let all: Vec<Vec<Tuple>> = w.results.values().into_iter().map(|result| result.value).collect();
    assert_eq!(all, vec![vec![(1, 10), (2, 20), (3, 30)]; 10], "in each of the ten windows that they are in");
}
