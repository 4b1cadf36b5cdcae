//! Tuples get what a table in state had for them at their own time, and chains of joins in state are as their model.

use std::time::Duration;

use galerna_engine::testing::{Feed, Harness, Run, Seen};
use galerna_engine::{CheckpointOptions, EngineOptions};
use galerna_state::{FolderCheckpoints, SimulatedFiles};
use galerna_topology::prelude::*;
use galerna_windows::{EnrichAsOf, Enriched, Join, Joined, Late, TableVersion, WindowTopology};

const NEVER: Duration = Duration::from_secs(100_000);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

type Reading = (String, i64);
type Tariff = TableVersion<String, u32>;

fn as_of() -> EnrichAsOf<Reading, String> {
    EnrichAsOf::by(|reading: &Reading| reading.0.clone()).event_time(|reading: &Reading| reading.1)
}

struct Enriching {
    readings: Feed<Reading>,
    tariffs: Feed<Tariff>,
    enriched: Seen<Enriched<Reading, u32>>,
    late: Seen<Late<String, Reading>>,
    run: Run,
}

impl Enriching {
    async fn start(enrich: EnrichAsOf<Reading, String>, files: &SimulatedFiles) -> Self {
        let store =
            FolderCheckpoints::open_on(files.clone(), "checkpoints", "enriching").await.expect("opened");
        let options = EngineOptions {
            checkpoints: Some(CheckpointOptions::new(store).every(NEVER)),
            ..EngineOptions::default()
        };
        let harness = Harness::new().with_options(options);
        let (readings, tariffs) = (harness.feed::<Reading>(), harness.feed::<Tariff>());
        let (enriched, late) = (harness.seen(), harness.seen());
        let mut topology = TopologyBuilder::new("enriching");
        let reading = topology.spout("readings", readings.spout()).outputs();
        let tariff = topology.spout("tariffs", tariffs.spout()).outputs();
        let flow = topology.flow(reading).named("enrich");
        let (with_tariff, too_late) = flow.enrich_in_state_with_late(enrich, tariff);
        let with_tariff = with_tariff.stream();
        topology.bolt("enriched", enriched.bolt()).global(with_tariff);
        topology.bolt("late", late.bolt()).global(too_late);
        let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
        Self { readings, tariffs, enriched, late, run }
    }

    async fn feed(&self, steps: &[Step]) {
        for (id, step) in steps.iter().enumerate() {
            match step {
                Step::Reading(key, at) => self.readings.emit(id as u64, ((*key).to_owned(), *at)),
                Step::Put(key, from, value) => {
                    self.tariffs.emit(id as u64, Tariff::put((*key).to_owned(), *from, *value));
                }
                Step::Remove(key, from) => {
                    self.tariffs.emit(id as u64, Tariff::remove((*key).to_owned(), *from));
                }
            }
            self.run.settle().await;
        }
    }

    async fn end(&self) {
        self.readings.done();
        self.tariffs.done();
        self.run.settle().await;
    }

    fn got(&self) -> Vec<(String, i64, Option<u32>)> {
        self.enriched.values().into_iter().map(|((key, at), value)| (key, at, value)).collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Reading(&'static str, i64),
    Put(&'static str, i64, u32),
    Remove(&'static str, i64),
}

use Step::{Put, Reading as Read, Remove};

/// What is fed, with lag 0, and what comes out in the end.
type Case = (&'static str, &'static [Step], &'static [(&'static str, i64, Option<u32>)]);

const CASES: &[Case] = &[
    ("without a table there is nothing", &[Read("a", 5_000)], &[("a", 5_000, None)]),
    (
        "a version counts from its beginning on, until the next one",
        &[
            Put("a", 1_000, 1),
            Put("a", 3_000, 3),
            Read("a", 999),
            Read("a", 1_000),
            Read("a", 2_999),
            Read("a", 3_000),
        ],
        &[("a", 999, None), ("a", 1_000, Some(1)), ("a", 2_999, Some(1)), ("a", 3_000, Some(3))],
    ),
    (
        "a version may come after the tuples that it counts for",
        &[Read("a", 2_000), Read("a", 4_000), Put("a", 1_000, 1), Put("a", 3_000, 3)],
        &[("a", 2_000, Some(1)), ("a", 4_000, Some(3))],
    ),
    (
        "a key that is gone has nothing, until it is there again",
        &[
            Put("a", 1_000, 1),
            Remove("a", 2_000),
            Put("a", 3_000, 3),
            Read("a", 1_500),
            Read("a", 2_500),
            Read("a", 3_500),
        ],
        &[("a", 1_500, Some(1)), ("a", 2_500, None), ("a", 3_500, Some(3))],
    ),
    (
        "keys have versions of their own, and tuples come out in the order of their times",
        &[Put("a", 1_000, 1), Put("b", 1_000, 2), Read("b", 6_000), Read("a", 5_000), Put("b", 5_500, 7)],
        &[("a", 5_000, Some(1)), ("b", 6_000, Some(7))],
    ),
    (
        "of two versions of one beginning the one counts that came later",
        &[Put("a", 1_000, 1), Put("a", 1_000, 2), Read("a", 1_000)],
        &[("a", 1_000, Some(2))],
    ),
];

#[tokio::test]
async fn tuples_get_the_version_of_their_time_whenever_the_topology_is_restarted() {
    for (what, steps, expected) in CASES {
        let expected: Vec<_> =
            expected.iter().map(|(key, at, value)| ((*key).to_owned(), *at, *value)).collect();
        for restart in 0..=steps.len() {
            let (before, after) = steps.split_at(restart);
            let files = SimulatedFiles::new();
            let first = Enriching::start(as_of().lag(secs(10)), &files).await;
            first.feed(before).await;
            first.run.running().checkpoint().await.expect("a checkpoint");
            first.run.settle().await;
            let acked = first.readings.acked().len() + first.tariffs.acked().len();
            assert_eq!(acked, before.len(), "{what}: tuples that wait hold no acks");
            let mut got = first.got();
            assert!(first.run.drain(secs(10)).await.drained);
            let second = Enriching::start(as_of().lag(secs(10)), &files).await;
            second.feed(after).await;
            second.end().await;
            got.extend(second.got());
            assert_eq!(got, expected, "{what}, restarted after {restart}");
            assert!(second.late.values().is_empty());
        }
    }
}

#[tokio::test]
async fn a_tuple_waits_until_the_watermark_has_passed_it_and_a_later_one_is_late() {
    let enriching = Enriching::start(as_of().lag(Duration::ZERO), &SimulatedFiles::new()).await;
    enriching.feed(&[Put("a", 1_000, 1), Read("a", 2_000), Read("a", 9_000)]).await;
    assert_eq!(enriching.got(), [], "the table may still say what was at 2,000");
    enriching.feed(&[Put("a", 5_000, 5)]).await;
    assert_eq!(enriching.got(), [("a".to_owned(), 2_000, Some(1))]);
    // What has come out stays; what waits gets it.
    enriching.feed(&[Put("a", 1_500, 9), Read("a", 4_000), Put("a", 7_000, 7)]).await;
    let late: Vec<_> =
        enriching.late.values().into_iter().map(|late| (late.key, late.tuple.1, late.late_by)).collect();
    assert_eq!(late, [("a".to_owned(), 4_000, secs(1))]);
    // The table is silent for longer than anybody waits for it.
    enriching.run.advance(secs(61)).await;
    enriching.feed(&[Read("a", 20_000)]).await;
    let expected = [("a".to_owned(), 2_000, Some(1)), ("a".to_owned(), 9_000, Some(7))];
    assert_eq!(enriching.got(), expected);
    // A version that was announced long ago, or long ahead, is no error.
    enriching.feed(&[Put("b", 0, 1), Put("b", 4_000_000_000_000, 2), Put("b", i64::MIN, 0)]).await;
    assert!(enriching.tariffs.failed().is_empty());
}

#[tokio::test]
async fn tuples_beyond_the_limit_fail_and_what_cannot_be_is_not_built() {
    let enriching = Enriching::start(as_of().lag(Duration::ZERO).limit(2), &SimulatedFiles::new()).await;
    enriching.feed(&[Read("a", 1_000), Read("a", 2_000), Read("a", 3_000)]).await;
    let failed = enriching.readings.failed();
    assert_eq!(failed.len(), 1);
    let reason = failed[0].failure.reason();
    assert!(
        reason.starts_with("2 tuples wait for the watermark to pass them, as many as may: raise the `limit`"),
        "{reason}"
    );
    let untimed = || EnrichAsOf::by(|reading: &Reading| reading.0.clone());
    for (enrich, says) in [
        (untimed().lag(secs(1)), "it does not say when tuples are: call `event_time`"),
        (as_of().lag(secs(1)).limit(0), "its limit is 0, so that no tuple could wait: make it at least 1"),
        (as_of(), "give it a `lag`"),
    ] {
        let harness = Harness::new();
        let mut topology = TopologyBuilder::new("refused");
        let readings = topology.spout("readings", harness.feed::<Reading>().spout()).outputs();
        let tariffs = topology.spout("tariffs", harness.feed::<Tariff>().spout()).outputs();
        topology.enrich_in_state("enrich", enrich, readings, tariffs);
        let error = topology.build().map(drop).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// Key, time and number.
type Order = (u8, i64, u64);
type Pair = (u8, Option<u64>, Option<u64>);

#[derive(Debug, Clone, Copy)]
enum Within {
    Tumbling(u64),
    Between(u64, u64),
}

impl Within {
    fn has(self, left: &Order, right: &Order) -> bool {
        left.0 == right.0
            && match self {
                Self::Tumbling(size) => left.1.div_euclid(size as i64) == right.1.div_euclid(size as i64),
                Self::Between(before, after) => {
                    (left.1 - before as i64..=left.1 + after as i64).contains(&right.1)
                }
            }
    }
}

/// All pairs, looked for one by one, and who is to come out alone.
fn model(lefts: &[Order], rights: &[Order], alone: (bool, bool), within: Within) -> Vec<Pair> {
    let pairs = lefts.iter().flat_map(|left| {
        rights
            .iter()
            .filter(|right| within.has(left, right))
            .map(|right| (left.0, Some(left.2), Some(right.2)))
    });
    let left = lefts.iter().filter(|left| alone.0 && !rights.iter().any(|right| within.has(left, right)));
    let right = rights.iter().filter(|right| alone.1 && !lefts.iter().any(|left| within.has(left, right)));
    let mut all: Vec<Pair> = pairs
        .chain(left.map(|left| (left.0, Some(left.2), None)))
        .chain(right.map(|right| (right.0, None, Some(right.2))))
        .collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn chains_of_joins_in_state_are_as_their_model_over_random_input() {
    let key = |order: &Order| order.0;
    let joins = [
        (Join::inner(key, key), (false, false)),
        (Join::left(key, key), (true, false)),
        (Join::full(key, key), (true, true)),
    ];
    for seed in 0..24_u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (join, alone) = joins[seed as usize % 3].clone();
        let (join, within) = match random.bool() {
            true => {
                let size = random.u64(1..40);
                (join.tumbling(Duration::from_millis(size)), Within::Tumbling(size))
            }
            false => {
                let (before, after) = (random.u64(0..30), random.u64(0..30));
                let join = join.between(Duration::from_millis(before), Duration::from_millis(after));
                (join, Within::Between(before, after))
            }
        };
        let harness = Harness::new();
        let (lefts, rights, joined) = (harness.feed::<Order>(), harness.feed::<Order>(), harness.seen());
        let mut topology = TopologyBuilder::new("chain");
        topology.message_timeout(None);
        let left = topology.spout("lefts", lefts.spout()).outputs();
        let right = topology.spout("rights", rights.spout()).outputs();
        // However much out of order they come, none is late.
        let join = join.event_time(|left: &Order| left.1, |right: &Order| right.1).lag(secs(1));
        let pairs = topology
            .flow(left)
            .parallelism(3)
            .join_in_state(join, right)
            .map(|pair: Joined<u8, Order, Order>| {
                (pair.key, pair.left.map(|left| left.2), pair.right.map(|right| right.2))
            })
            .stream();
        topology.bolt("joined", joined.bolt()).global(pairs);
        let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
        let mut orders = (Vec::new(), Vec::new());
        for number in 0..random.u64(0..60) {
            let order = (random.u8(0..4), random.i64(0..200), number);
            if random.bool() {
                orders.0.push(order);
                lefts.emit(number, order);
            } else {
                orders.1.push(order);
                rights.emit(number, order);
            }
            if random.u8(0..10) == 0 {
                run.settle().await;
            }
        }
        lefts.done();
        rights.done();
        run.running().finished().await;
        let mut found: Vec<Pair> = joined.values();
        found.sort_unstable();
        assert_eq!(found, model(&orders.0, &orders.1, alone, within), "seed {seed}, {within:?}");
    }
}
