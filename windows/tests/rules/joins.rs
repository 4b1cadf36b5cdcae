//! Joins, deduplication, enrichment and chains in running topologies.

use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_topology::prelude::*;
use galerna_windows::{
    Count, Deduplicate, Enrich, EventTime, Join, Joined, Late, Side, TableChange, TopN, Window, WindowResult,
    WindowTopology,
};

use crate::Reading;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

type Order = (&'static str, i64);
type Payment = (&'static str, i64, u32);

fn join() -> Join<Order, Payment, &'static str> {
    Join::left(|order: &Order| order.0, |payment: &Payment| payment.0)
        .event_time(|order| order.1, |payment| payment.1)
        .lag(secs(0))
}

#[tokio::test]
async fn a_join_pairs_what_two_streams_have_and_holds_their_roots_until_then() {
    let harness = Harness::new();
    let (orders, payments) = (harness.feed::<Order>(), harness.feed::<Payment>());
    let (joined, late) = (harness.seen(), harness.seen::<Late<&str, Side<Order, Payment>>>());
    let mut topology = TopologyBuilder::new("joining");
    topology.message_timeout(None);
    let order = topology.spout("orders", orders.spout()).outputs();
    let payment = topology.spout("payments", payments.spout()).outputs();
    let join = join().between(secs(0), secs(10));
    let outputs = topology.join("paid", join, order, payment).outputs();
    topology.bolt("joined", joined.bolt()).global(outputs.joined);
    topology.bolt("late", late.bolt()).global(outputs.late);
    let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
    for (id, order) in [("a", 1_000), ("b", 2_000), ("c", 20_000)].into_iter().enumerate() {
        orders.emit(id as u64, order);
        run.settle().await;
    }
    for (id, payment) in
        [("a", 3_000, 7), ("a", 4_000, 8), ("c", 19_999, 9), ("a", 30_001, 10)].into_iter().enumerate()
    {
        payments.emit(id as u64, payment);
        run.settle().await;
    }
    let pairs = || -> Vec<(&str, Option<i64>, Option<u32>)> {
        let joined = joined.values().into_iter();
        joined
            .map(|j: Joined<&str, Order, Payment>| (j.key, j.left.map(|l| l.1), j.right.map(|r| r.2)))
            .collect()
    };
    assert_eq!(pairs(), [("a", Some(1_000), Some(7)), ("a", Some(1_000), Some(8)), ("b", Some(2_000), None)]);
    assert_eq!((orders.acked(), payments.acked()), (vec![0, 1], vec![0, 1, 2]));
    payments.emit(9, ("c", 19_000, 11));
    run.settle().await;
    assert_eq!(late.values()[0].late_by, secs(1));
    orders.done();
    payments.done();
    run.settle().await;
    assert_eq!(pairs().last(), Some(&("c", Some(20_000), None)));
    assert_eq!((orders.acked().len(), payments.acked().len()), (3, 5));
}

#[tokio::test]
async fn a_join_at_its_limit_fails_what_has_no_room() {
    let harness = Harness::new();
    let (orders, payments) = (harness.feed::<Order>(), harness.feed::<Payment>());
    let mut topology = TopologyBuilder::new("limited");
    topology.message_timeout(None);
    let order = topology.spout("orders", orders.spout()).outputs();
    let payment = topology.spout("payments", payments.spout()).outputs();
    topology.join("paid", join().tumbling(secs(10)).limit(2), order, payment);
    let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
    (0..3).for_each(|id| orders.emit(id, ("a", 1_000)));
    run.settle().await;
    let failed = orders.failed();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        failed[0].failure.reason(),
        "the join keeps 2 tuples, as many as it may: raise its `limit`, give it more tasks, or let tuples find each other within less"
    );
}

#[test]
fn a_join_that_cannot_be_is_refused_with_the_remedy() {
    let build = |join: Join<Order, Payment, &'static str>| {
        let harness = Harness::new();
        let mut topology = TopologyBuilder::new("refused");
        let order = topology.spout("orders", harness.feed::<Order>().spout()).outputs();
        let payment = topology.spout("payments", harness.feed::<Payment>().spout()).outputs();
        topology.join("paid", join, order, payment);
        topology.build().map(drop).unwrap_err().to_string()
    };
    let untimed = Join::inner(|order: &Order| order.0, |payment: &Payment| payment.0);
    let cases = [
        (join(), "it does not say which tuples find each other: call `tumbling`, `sliding` or `between`"),
        (
            untimed.tumbling(secs(1)),
            "it does not say when tuples are: call `event_time` with a closure for each stream",
        ),
        (
            join().tumbling(secs(1)).limit(0),
            "its limit is 0, so that it could keep nothing: make it at least 1",
        ),
        (
            join().tumbling(secs(0)),
            "its length is 0ns, which no tuple fits in: make it at least a millisecond",
        ),
    ];
    for (join, expected) in cases {
        assert_eq!(build(join), format!("component `paid` cannot be run: {expected}"));
    }
    let error = build(join().between(secs(3_600), secs(60)));
    assert!(
        error.starts_with("bolt `paid` holds tuples for 3600s, but roots of spout `orders` time out"),
        "{error}"
    );
}

#[tokio::test]
async fn a_key_comes_through_once_in_a_while() {
    let harness = Harness::new();
    let (feed, unique, duplicates) = (harness.feed::<u64>(), harness.seen::<u64>(), harness.seen::<u64>());
    let mut topology = TopologyBuilder::new("once");
    let numbers = topology.spout("feed", feed.spout()).outputs();
    let once = Deduplicate::by(|n: &u64| n % 10, secs(10)).limit(3);
    let outputs = topology.deduplicate("once", once, numbers).outputs();
    topology.bolt("unique", unique.bolt()).global(outputs.unique);
    topology.bolt("duplicates", duplicates.bolt()).global(outputs.duplicates);
    let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
    for n in [1, 2, 11, 21] {
        feed.emit(n, n);
        run.settle().await;
    }
    run.advance(secs(9)).await;
    feed.emit(31, 31);
    run.settle().await;
    run.advance(secs(1)).await;
    feed.emit(41, 41);
    run.settle().await;
    assert_eq!((unique.values(), duplicates.values()), (vec![1, 2, 41], vec![11, 21, 31]));
    // Of four keys the oldest is forgotten.
    for n in [3, 4, 5, 51] {
        feed.emit(n, n);
        run.settle().await;
    }
    assert_eq!(unique.values(), [1, 2, 41, 3, 4, 5, 51]);
}

#[tokio::test]
async fn tuples_get_what_the_table_has_for_them() {
    type Change = TableChange<&'static str, u32>;
    let harness = Harness::new();
    let (feed, table, seen) = (harness.feed::<Order>(), harness.feed::<Change>(), harness.seen());
    let mut topology = TopologyBuilder::new("enriching");
    let orders = topology.spout("feed", feed.spout()).outputs();
    let changes = topology.spout("table", table.spout()).outputs();
    let enrich = Enrich::by(|order: &Order| order.0).limit(1);
    let enriched = topology.enrich("enrich", enrich, orders, changes).parallelism(1).outputs();
    topology.bolt("seen", seen.bolt()).global(enriched);
    let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
    let mut id = 0;
    for change in
        [Some(TableChange::Put("a", 1)), Some(TableChange::Put("a", 2)), Some(TableChange::Remove("a"))]
    {
        feed.emit(id, ("a", id as i64));
        run.settle().await;
        table.emit(id, change.expect("there is one"));
        run.settle().await;
        id += 1;
    }
    feed.emit(id, ("a", id as i64));
    table.emit(10, TableChange::Put("b", 1));
    run.settle().await;
    table.emit(11, TableChange::Put("c", 1));
    run.settle().await;
    let values: Vec<Option<u32>> =
        seen.values().into_iter().map(|(_, value): (Order, Option<u32>)| value).collect();
    assert_eq!(values, [None, Some(1), Some(2), None]);
    assert!(
        table.failed()[0]
            .failure
            .reason()
            .starts_with("the table has 1 keys in this task, as many as it may")
    );
}

#[tokio::test]
async fn a_chain_declares_components_that_mix_with_others() {
    let harness = Harness::new();
    let (feed, top) = (harness.feed::<Reading>(), harness.seen::<Vec<(&'static str, u64)>>());
    let mut topology = TopologyBuilder::new("chain");
    topology.message_timeout(None);
    let readings = topology.spout("feed", feed.spout()).outputs();
    let (counts, late) = topology
        .flow(readings)
        .filter(|reading| reading.2 >= 0)
        .event_time(EventTime::of(|reading: &Reading| reading.1).lag(secs(1)))
        .key_by(|reading| reading.0)
        .named("counts")
        .parallelism(2)
        .window(Window::tumbling(secs(10)).event_time(|reading: &Reading| reading.1))
        .aggregate_with_late(Count);
    let counts = counts.map(|result: WindowResult<&'static str, u64>| (result.key, result.value)).stream();
    topology.flow(late).named("late").to(|_late| ());
    // Of each ten counts the two greatest, at the end at the latest.
    let tops = topology
        .flow(counts)
        .window(Window::count(10))
        .aggregate(TopN::new(2, |count: &(&'static str, u64)| count.1))
        .map(|result| result.value)
        .stream();
    topology.bolt("top", top.bolt()).global(tops);
    let topology = topology.build().expect("it is fine");
    let ids: Vec<&str> = topology.components().iter().map(|component| &*component.id).collect();
    assert_eq!(
        ids,
        [
            "feed",
            "feed-1-filter",
            "feed-2-event-time",
            "counts",
            "feed-4-map",
            "late",
            "feed-4-map-1-window",
            "feed-4-map-2-map",
            "top"
        ]
    );
    let run = harness.start(topology).await.expect("it starts");
    let readings = [("a", 1), ("b", 1), ("b", 2), ("c", 3), ("c", 3), ("c", -4), ("c", 1)];
    for (id, (device, value)) in readings.into_iter().enumerate() {
        feed.emit(id as u64, (device, 1_000, value));
    }
    feed.done();
    run.running().finished().await;
    assert_eq!(top.values(), [vec![("c", 3), ("b", 2)]]);
    assert_eq!(feed.acked().len(), 7);
}
