//! Windows in state emit what others emit, also when the topology is restarted from a checkpoint in between.

use std::fmt::Debug;
use std::time::Duration;

use galerna_engine::testing::{Feed, Harness, Run, Seen};
use galerna_engine::{CheckpointOptions, EngineOptions};
use galerna_state::{FolderCheckpoints, SimulatedFiles};
use galerna_topology::prelude::*;
use galerna_windows::{
    Aggregate, Collect, Count, Deduplicate, EventTime, Firing, Join, Joined, Late, Side, Summarise, Window,
    WindowBounds, WindowResult, WindowTopology,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Reading;

const NEVER: Duration = Duration::from_secs(100_000);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

type Fired<R> = (String, i64, i64, Firing, R);

struct Windowed<R> {
    feed: Feed<Reading>,
    results: Seen<WindowResult<String, R>>,
    late: Seen<Late<String, Reading>>,
    run: Run,
}

fn keyed(window: Window<Reading>) -> Window<Reading, String> {
    window.event_time(|reading: &Reading| reading.1).by(|reading: &Reading| reading.0.to_owned())
}

impl<R: Clone + Send + 'static> Windowed<R> {
    /// `store`: where checkpoints are, of a window in state.
    async fn start<A>(window: Window<Reading, String, A>, store: Option<&SimulatedFiles>) -> Self
    where
        A: Aggregate<Reading, Output = R>,
        A::Accumulator: Serialize + DeserializeOwned,
    {
        let mut options = EngineOptions::default();
        if let Some(files) = store {
            let store =
                FolderCheckpoints::open_on(files.clone(), "checkpoints", "windowed").await.expect("opened");
            options.checkpoints = Some(CheckpointOptions::new(store).every(NEVER));
        }
        let harness = Harness::new().with_options(options);
        let (feed, results, late) = (harness.feed(), harness.seen(), harness.seen());
        let mut topology = TopologyBuilder::new("windowed");
        topology.message_timeout(None);
        let readings = topology.spout("feed", feed.spout()).outputs();
        let windowed = match store {
            Some(_) => topology.window_in_state("window", window, readings).outputs(),
            None => topology.window("window", window, readings).outputs(),
        };
        topology.bolt("results", results.bolt()).global(windowed.results);
        topology.bolt("late", late.bolt()).global(windowed.late);
        let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
        Self { feed, results, late, run }
    }

    async fn feed(&self, readings: &[Reading]) {
        for (id, reading) in readings.iter().enumerate() {
            self.feed.emit(id as u64, *reading);
            self.run.settle().await;
        }
    }

    fn results(&self) -> Vec<Fired<R>> {
        let flat = |result: WindowResult<String, R>| {
            let (from, to) = match result.bounds {
                WindowBounds::Time { start, end } => (start.millis(), end.millis()),
                WindowBounds::Count { first, last } => (first as i64, last as i64),
            };
            (result.key, from, to, result.firing, result.value)
        };
        self.results.values().into_iter().map(flat).collect()
    }

    fn late(&self) -> Vec<(String, i64, Duration)> {
        self.late.values().into_iter().map(|late| (late.key, late.tuple.1, late.late_by)).collect()
    }
}

/// Windows that end together fire in any order of their keys.
fn sorted<R>(mut fired: Vec<Fired<R>>) -> Vec<Fired<R>> {
    // Stable: what fires several times stays in order.
    fired.sort_by(|one, other| (&one.0, one.1, one.2).cmp(&(&other.0, other.1, other.2)));
    fired
}

/// In memory, in state, and in state with a restart from a checkpoint after each of the readings.
async fn same<A, R>(what: &str, window: Window<Reading, String, A>, readings: &[Reading])
where
    R: Clone + Debug + PartialEq + Send + 'static,
    A: Aggregate<Reading, Output = R>,
    A::Accumulator: Serialize + DeserializeOwned,
{
    let in_memory = Windowed::start(window.clone(), None).await;
    in_memory.feed(readings).await;
    let (results, late) = (in_memory.results(), in_memory.late());
    assert!(!results.is_empty(), "{what} fires");
    for restart in 1..=readings.len() {
        let (before, after) = readings.split_at(restart);
        let files = SimulatedFiles::new();
        let first = Windowed::start(window.clone(), Some(&files)).await;
        first.feed(before).await;
        assert_eq!(first.feed.acked(), [0u64; 0], "{what}: acks wait for a commit");
        first.run.running().checkpoint().await.expect("a checkpoint");
        first.run.settle().await;
        assert_eq!(first.feed.acked().len(), before.len(), "{what}: open windows hold no acks");
        let (mut fired, mut too_late) = (first.results(), first.late());
        assert!(first.run.drain(secs(10)).await.drained);
        let second = Windowed::start(window.clone(), Some(&files)).await;
        second.feed(after).await;
        fired.extend(second.results());
        too_late.extend(second.late());
        assert_eq!(sorted(fired), sorted(results.clone()), "{what}, restarted after {restart}");
        assert_eq!(too_late, late, "{what}, restarted after {restart}");
    }
}

#[tokio::test]
async fn a_window_in_state_is_as_one_in_memory_whenever_it_is_restarted() {
    let readings: &[Reading] = &[
        ("a", 1_000, 1),
        ("b", 2_500, 10),
        ("a", 4_000, 2),
        ("a", 11_000, 3),
        // Late for those that fired with the one before, within the lateness where there is one.
        ("b", 3_000, 20),
        ("b", 19_000, 30),
        ("a", 2_000, 4),
        ("a", 40_000, 5),
        ("b", 41_000, 40),
        ("b", 90_000, 50),
    ];
    let sum = || Summarise::new(|reading: &Reading| reading.2 as f64);
    same("tumbling", keyed(Window::tumbling(secs(10))).lag(Duration::ZERO).aggregate(sum()), readings).await;
    same("sliding", keyed(Window::sliding(secs(10), secs(4))).lag(secs(2)).aggregate(Count), readings).await;
    same(
        "tumbling, with lateness",
        keyed(Window::tumbling(secs(10))).lag(secs(1)).allowed_lateness(secs(15)).aggregate((Count, sum())),
        readings,
    )
    .await;
    same(
        "sliding, with what has left and early results",
        keyed(Window::sliding(secs(8), secs(4))).lag(secs(1)).with_expired().early_after(2).aggregate(Count),
        readings,
    )
    .await;
    same("session", keyed(Window::session(secs(7))).lag(secs(3)).aggregate(sum()), readings).await;
    same(
        "session, with lateness",
        keyed(Window::session(secs(7))).lag(Duration::ZERO).allowed_lateness(secs(30)).aggregate(Count),
        readings,
    )
    .await;
    let by_device = |window: Window<Reading>| window.by(|reading: &Reading| reading.0.to_owned());
    same("count", by_device(Window::count(2)).aggregate(sum()), readings).await;
    same("sliding count", by_device(Window::sliding_count(4, 2)).with_expired().aggregate(Count), readings)
        .await;
}

/// Two sources of one window in state, each of which says how far it is.
struct TwoSources {
    feeds: [Feed<Reading>; 2],
    results: Seen<WindowResult<String, u64>>,
    run: Run,
}

impl TwoSources {
    async fn start(files: &SimulatedFiles) -> Self {
        let store =
            FolderCheckpoints::open_on(files.clone(), "checkpoints", "windowed").await.expect("opened");
        let options = EngineOptions {
            checkpoints: Some(CheckpointOptions::new(store).every(NEVER)),
            ..EngineOptions::default()
        };
        let harness = Harness::new().with_options(options);
        let (feeds, results) = ([harness.feed(), harness.feed()], harness.seen());
        let mut topology = TopologyBuilder::new("windowed");
        topology.message_timeout(None);
        let clock = || EventTime::of(|reading: &Reading| reading.1).lag(secs(1)).idle_after(secs(30));
        let one = topology.spout("one", feeds[0].spout()).outputs();
        let other = topology.spout("other", feeds[1].spout()).outputs();
        let one = topology.event_time("one-clock", clock(), one).outputs();
        let other = topology.event_time("other-clock", clock(), other).outputs();
        let both = topology.map("both", |reading: Reading| reading).shuffle(one).shuffle(other).outputs();
        let window = keyed(Window::tumbling(secs(10))).aggregate(Count);
        let windowed = topology.window_in_state("window", window, both).outputs();
        topology.bolt("results", results.bolt()).global(windowed.results);
        let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
        Self { feeds, results, run }
    }

    /// Has a source send a reading of that time, and its watermark come.
    async fn send(&self, source: usize, at: i64) {
        self.feeds[source].emit(at as u64, ("a", at, 1));
        self.run.settle().await;
        self.run.advance(Duration::from_millis(200)).await;
    }

    /// Where windows that fired begin, and how many tuples they had.
    fn fired(&self) -> Vec<(i64, u64)> {
        let start = |result: WindowResult<String, u64>| match result.bounds {
            WindowBounds::Time { start, .. } => (start.millis(), result.value),
            WindowBounds::Count { first, .. } => (first as i64, result.value),
        };
        self.results.values().into_iter().map(start).collect()
    }
}

#[tokio::test]
async fn a_restored_window_fires_when_its_sources_have_passed_it_again_and_no_earlier() {
    for second_is_silent in [false, true] {
        let files = SimulatedFiles::new();
        let first = TwoSources::start(&files).await;
        for (source, at) in [(0, 1_000), (1, 2_000), (0, 12_000)] {
            first.send(source, at).await;
        }
        assert_eq!(first.fired(), [], "the second source is at 2 s");
        assert!(first.run.drain(secs(10)).await.drained);
        let restored = TwoSources::start(&files).await;
        restored.send(0, 30_000).await;
        assert_eq!(restored.fired(), [], "where the second source is is not known yet");
        if second_is_silent {
            restored.run.advance(secs(20)).await;
            restored.send(0, 31_000).await;
            assert_eq!(restored.fired(), [], "it may still say something");
            restored.run.advance(secs(11)).await;
            assert_eq!(restored.fired(), [(0, 2), (10_000, 1)], "nobody waits for it any more");
            continue;
        }
        restored.send(1, 9_000).await;
        assert_eq!(restored.fired(), [], "what comes in time is taken");
        restored.send(1, 11_500).await;
        assert_eq!(restored.fired(), [(0, 3)]);
        restored.feeds.iter().for_each(Feed::done);
        restored.run.settle().await;
        restored.run.advance(secs(1)).await;
        assert_eq!(restored.fired(), [(0, 3), (10_000, 2), (30_000, 1)]);
    }
}

#[tokio::test]
async fn all_tuples_of_a_window_can_be_in_state() {
    let window = Window::count(3).by(|reading: &(String, i64)| reading.0.clone()).aggregate(Collect);
    let files = SimulatedFiles::new();
    let mut seen = Vec::new();
    for part in [&[1, 2][..], &[3, 4], &[5, 6, 7]] {
        let store =
            FolderCheckpoints::open_on(files.clone(), "checkpoints", "windowed").await.expect("opened");
        let options = EngineOptions {
            checkpoints: Some(CheckpointOptions::new(store).every(NEVER)),
            ..EngineOptions::default()
        };
        let harness = Harness::new().with_options(options);
        let (feed, results) = (harness.feed::<(String, i64)>(), harness.seen());
        let mut topology = TopologyBuilder::new("windowed");
        let readings = topology.spout("feed", feed.spout()).outputs();
        let windowed = topology.window_in_state("window", window.clone(), readings).parallelism(2).outputs();
        topology.bolt("results", results.bolt()).global(windowed.results);
        let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
        part.iter().for_each(|n| feed.emit(*n as u64, ("key".to_owned(), *n)));
        run.settle().await;
        run.drain(secs(10)).await;
        let values: Vec<WindowResult<String, Vec<(String, i64)>>> = results.values();
        seen.extend(
            values.into_iter().map(|result| result.value.iter().map(|(_, n)| *n).collect::<Vec<_>>()),
        );
    }
    assert_eq!(seen, [[1, 2, 3], [4, 5, 6]]);
}

#[tokio::test]
async fn an_aggregate_that_panics_costs_the_tuples_of_its_key_in_that_batch_and_no_others() {
    let window = Window::count(3).by(|reading: &Reading| reading.0.to_owned()).aggregate(Summarise::new(
        |reading: &Reading| {
            assert!(reading.2 >= 0, "a negative value");
            reading.2 as f64
        },
    ));
    let files = SimulatedFiles::new();
    let windowed = Windowed::start(window, Some(&files)).await;
    windowed.feed(&[("a", 0, 1), ("b", 0, 5), ("a", 0, -1), ("a", 0, 2), ("a", 0, 3)]).await;
    let failed = windowed.feed.failed();
    assert_eq!(failed.iter().map(|failed| failed.id).collect::<Vec<_>>(), [2]);
    assert!(failed[0].failure.reason().contains("a negative value"));
    let results = windowed.results();
    assert_eq!(results.len(), 1);
    assert_eq!((results[0].4.count, results[0].4.sum()), (3, 6.0), "what came before is still there");
}

#[tokio::test]
async fn keys_that_were_let_through_are_known_after_a_restart() {
    let files = SimulatedFiles::new();
    let mut seen = Vec::new();
    for part in [["a", "b", "a"], ["b", "c", "a"]] {
        let store =
            FolderCheckpoints::open_on(files.clone(), "checkpoints", "windowed").await.expect("opened");
        let options = EngineOptions {
            checkpoints: Some(CheckpointOptions::new(store).every(NEVER)),
            ..EngineOptions::default()
        };
        let harness = Harness::new().with_options(options);
        let (feed, unique, doubled) =
            (harness.feed::<&'static str>(), harness.seen::<&'static str>(), harness.seen::<&'static str>());
        let mut topology = TopologyBuilder::new("windowed");
        let names = topology.spout("feed", feed.spout()).outputs();
        let deduplicate = Deduplicate::by(|name: &&'static str| (*name).to_owned(), secs(3_600));
        let out = topology.deduplicate_in_state("once", deduplicate, names).outputs();
        topology.bolt("unique", unique.bolt()).global(out.unique);
        topology.bolt("doubled", doubled.bolt()).global(out.duplicates);
        let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
        part.iter().enumerate().for_each(|(id, name)| feed.emit(id as u64, name));
        run.settle().await;
        run.drain(secs(10)).await;
        seen.push((unique.values(), doubled.values()));
    }
    assert_eq!(seen, [(vec!["a", "b"], vec!["a"]), (vec!["c"], vec!["b", "a"])]);
}

#[test]
fn what_cannot_be_in_state_is_not_built() {
    let feed = Harness::new().feed::<Reading>();
    let build = |window: Window<Reading>| {
        let mut topology = TopologyBuilder::new("windowed");
        let readings = topology.spout("feed", feed.spout()).outputs();
        let _ = topology.window_in_state("window", window.aggregate(Count), readings).outputs();
        topology.build().expect_err("refused").to_string()
    };
    for (window, says) in [
        (Window::tumbling(secs(10)), "by the topology's clock, which begins anew"),
        (Window::count(10).fire_at_drain(), "`fire_at_drain` means nothing for a window in state"),
        (Window::count(10).ack_on_arrival(), "`ack_on_arrival` means nothing for a window in state"),
        (Window::count(0), "its count is 0"),
    ] {
        let error = build(window);
        assert!(error.contains(says), "{error}");
    }
    // What it keeps holds no roots: there is nothing to time out.
    let mut topology = TopologyBuilder::new("windowed");
    topology.message_timeout(secs(1));
    let readings = topology.spout("feed", feed.spout()).outputs();
    let day = Window::tumbling(secs(86_400)).event_time(|reading: &Reading| reading.1).lag(secs(3_600));
    let _ = topology.window_in_state("window", day.aggregate(Count), readings).outputs();
    topology.build().expect("it is fine");
}

type Order = (String, i64);
type Payment = (String, i64, u32);
type Pair = (String, Option<i64>, Option<u32>, Option<WindowBounds>);

/// What comes of a join.
#[derive(Debug, Default, PartialEq)]
struct Out {
    pairs: Vec<Pair>,
    late: Vec<(String, Duration)>,
}

struct Joining {
    orders: Feed<Order>,
    payments: Feed<Payment>,
    joined: Seen<Joined<String, Order, Payment>>,
    late: Seen<Late<String, Side<Order, Payment>>>,
    run: Run,
}

impl Joining {
    async fn start(join: Join<Order, Payment, String>, store: Option<&SimulatedFiles>, tasks: usize) -> Self {
        let mut options = EngineOptions::default();
        if let Some(files) = store {
            let store =
                FolderCheckpoints::open_on(files.clone(), "checkpoints", "joining").await.expect("opened");
            options.checkpoints = Some(CheckpointOptions::new(store).every(NEVER));
        }
        let harness = Harness::new().with_options(options);
        let (orders, payments, joined, late) =
            (harness.feed(), harness.feed(), harness.seen(), harness.seen());
        let mut topology = TopologyBuilder::new("joining");
        topology.message_timeout(None);
        let order = topology.spout("orders", orders.spout()).outputs();
        let payment = topology.spout("payments", payments.spout()).outputs();
        let orders_flow = topology.flow(order).named("join").parallelism(tasks);
        let (pairs, too_late) = match store {
            Some(_) => orders_flow.join_in_state_with_late(join, payment),
            None => orders_flow.join_with_late(join, payment),
        };
        let pairs = pairs.stream();
        topology.bolt("joined", joined.bolt()).global(pairs);
        topology.bolt("late", late.bolt()).global(too_late);
        let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
        Self { orders, payments, joined, late, run }
    }

    async fn feed(&self, steps: &[(char, &str, i64)]) {
        for (id, (side, key, at)) in steps.iter().enumerate() {
            match side {
                'o' => self.orders.emit(id as u64, ((*key).to_owned(), *at)),
                _ => self.payments.emit(id as u64, ((*key).to_owned(), *at, id as u32)),
            }
            self.run.settle().await;
        }
    }

    fn out(&self) -> Out {
        let pair = |j: Joined<String, Order, Payment>| {
            (j.key, j.left.map(|l| l.1), j.right.map(|r| r.1 as u32), j.bounds)
        };
        Out {
            pairs: self.joined.values().into_iter().map(pair).collect(),
            late: self.late.values().into_iter().map(|late| (late.key, late.late_by)).collect(),
        }
    }

    fn acked(&self) -> usize {
        self.orders.acked().len() + self.payments.acked().len()
    }
}

#[tokio::test]
async fn a_join_in_state_is_as_one_in_memory_whenever_it_is_restarted() {
    let steps = [
        ('o', "a", 1_000),
        ('p', "a", 3_000),
        ('o', "b", 4_000),
        ('p', "c", 4_500),
        ('p', "a", 8_000),
        ('o', "a", 9_000),
        ('o', "d", 14_000),
        ('p', "b", 15_000),
        // Late.
        ('p', "b", 2_000),
        ('o', "a", 30_000),
        ('p', "a", 31_000),
        ('o', "e", 60_000),
        ('p', "e", 90_000),
        ('o', "f", 95_000),
    ];
    let timed = |join: Join<Order, Payment, String>| {
        join.event_time(|order: &Order| order.1, |payment: &Payment| payment.1).lag(Duration::ZERO)
    };
    let (left_key, right_key) = (|order: &Order| order.0.clone(), |payment: &Payment| payment.0.clone());
    let joins = [
        ("inner, interval", timed(Join::inner(left_key, right_key)).between(secs(2), secs(8))),
        ("left, interval", timed(Join::left(left_key, right_key)).between(secs(0), secs(10))),
        ("full, interval", timed(Join::full(left_key, right_key)).between(secs(3), secs(3))),
        ("left, tumbling", timed(Join::left(left_key, right_key)).tumbling(secs(10))),
        ("full, sliding", timed(Join::full(left_key, right_key)).sliding(secs(10), secs(5))),
    ];
    for (what, join) in joins {
        let in_memory = Joining::start(join.clone(), None, 1).await;
        in_memory.feed(&steps).await;
        let mut expected = in_memory.out();
        assert!(!expected.pairs.is_empty() && !expected.late.is_empty(), "{what}");
        expected.pairs.sort_by_key(|pair| format!("{pair:?}"));
        // What a source had reached is not in state: with a restart between the two words that make the late tuple late, it is not late.
        for restart in (1..=steps.len()).filter(|restart| *restart != 7) {
            let (before, after) = steps.split_at(restart);
            let files = SimulatedFiles::new();
            let first = Joining::start(join.clone(), Some(&files), 1).await;
            first.feed(before).await;
            assert_eq!(first.acked(), 0, "{what}: acks wait for a commit");
            first.run.running().checkpoint().await.expect("a checkpoint");
            first.run.settle().await;
            assert_eq!(first.acked(), before.len(), "{what}: tuples that wait for partners hold no acks");
            let mut out = first.out();
            assert!(first.run.drain(secs(10)).await.drained);
            let second = Joining::start(join.clone(), Some(&files), 1).await;
            second.feed(after).await;
            let then = second.out();
            out.pairs.extend(then.pairs);
            out.late.extend(then.late);
            out.pairs.sort_by_key(|pair| format!("{pair:?}"));
            // Until both sources have said something again, nothing more is complete.
            let missing: Vec<_> = expected.pairs.iter().filter(|pair| !out.pairs.contains(pair)).collect();
            let more: Vec<_> = out.pairs.iter().filter(|pair| !expected.pairs.contains(pair)).collect();
            assert!(more.is_empty(), "{what}, restarted after {restart}: {more:?} of {:?}", expected.pairs);
            let both_spoke = after.iter().any(|step| step.0 == 'o') && after.iter().any(|step| step.0 == 'p');
            assert!(missing.is_empty() || !both_spoke, "{what}, restarted after {restart}: {missing:?}");
        }
    }
}

#[tokio::test]
async fn a_join_in_state_at_its_limit_fails_what_has_no_room_also_after_a_restart() {
    let join = Join::inner(|order: &Order| order.0.clone(), |payment: &Payment| payment.0.clone())
        .event_time(|order: &Order| order.1, |payment: &Payment| payment.1)
        .lag(Duration::ZERO)
        .tumbling(secs(10))
        .limit(2);
    let files = SimulatedFiles::new();
    let first = Joining::start(join.clone(), Some(&files), 1).await;
    first.feed(&[('o', "a", 1_000), ('p', "a", 1_000)]).await;
    assert!(first.run.drain(secs(10)).await.drained);
    let second = Joining::start(join, Some(&files), 1).await;
    second.feed(&[('o', "a", 2_000)]).await;
    let failed = second.orders.failed();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].failure.reason().starts_with("the join keeps 2 tuples, as many as it may"));
    second.feed(&[('o', "b", 12_000), ('p', "b", 12_000)]).await;
    assert_eq!(second.out().pairs.len(), 1, "the pair from before the restart");
}

#[test]
fn a_join_in_state_may_wait_longer_than_any_message_timeout() {
    let harness = Harness::new();
    let (orders, payments) = (harness.feed::<Order>(), harness.feed::<Payment>());
    let mut topology = TopologyBuilder::new("patient");
    topology.message_timeout(secs(1));
    let order = topology.spout("orders", orders.spout()).outputs();
    let payment = topology.spout("payments", payments.spout()).outputs();
    let join = Join::inner(|order: &Order| order.0.clone(), |payment: &Payment| payment.0.clone())
        .event_time(|order: &Order| order.1, |payment: &Payment| payment.1)
        .lag(secs(3_600))
        .between(secs(0), secs(7 * 86_400));
    topology.join_in_state("join", join, order, payment);
    topology.build().expect("it is fine");
}
