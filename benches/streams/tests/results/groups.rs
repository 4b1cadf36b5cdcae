//! UC4.

use std::collections::BTreeMap;
use std::time::Duration;

use galerna_engine::EngineOptions;
use galerna_engine::testing::Harness;
use galerna_streams::random::below;
use galerna_streams::theodolite::{
    FIRST, GroupPower, Membership, PowerRecord, levels_over, record, tree, uc4, uc4_unrolled,
};
use galerna_topology::prelude::*;

use crate::results;

const SENSORS: u64 = 16;
const PERIOD: i64 = 5_000;
/// The period in which a sensor goes to another group.
const MOVES: i64 = 3;
const PERIODS: i64 = 8;

fn readings(period: i64) -> impl Iterator<Item = PowerRecord> {
    let at = FIRST + period * PERIOD;
    (0..3 * SENSORS).map(move |n| PowerRecord {
        identifier: format!("s_{}", n % SENSORS),
        timestamp: at + (n / SENSORS) as i64 * 1_000,
        value_in_w: below(period as u64 * 1_000 + n, 1, 4_096) as f64 / 4.0,
    })
}

/// The group that a sensor is in at the end of a period.
fn group_of(sensor: &str, period: i64) -> String {
    match sensor {
        "s_5" if period >= MOVES => "g_1_3".to_owned(),
        sensor => format!("g_1_{}", sensor["s_".len()..].parse::<u64>().unwrap() / 4),
    }
}

fn group_power(group: &str, period: i64, watts: &[f64]) -> GroupPower {
    let (count, sum_in_w) = (watts.len() as u64, watts.iter().sum::<f64>());
    let end = FIRST + (period + 1) * PERIOD;
    GroupPower { group: group.to_owned(), end, count, sum_in_w, average_in_w: sum_in_w / count as f64 }
}

/// Of each period: the groups of sensors, and a period later the group of these.
fn expected() -> BTreeMap<(i64, String), GroupPower> {
    let mut expected = BTreeMap::new();
    for period in 0..PERIODS {
        let last: BTreeMap<String, f64> =
            readings(period).map(|record| (record.identifier, record.value_in_w)).collect();
        let mut groups: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (sensor, watts) in last {
            groups.entry(group_of(&sensor, period)).or_default().push(watts);
        }
        let sums: Vec<f64> = groups.values().map(|watts| watts.iter().sum()).collect();
        let mut powers: Vec<GroupPower> =
            groups.iter().map(|(group, watts)| group_power(group, period, watts)).collect();
        powers.push(group_power("group_lvl_0", period + 1, &sums));
        expected.extend(powers.into_iter().map(|power| ((power.end, power.group.clone()), power)));
    }
    expected
}

#[tokio::test]
async fn uc4_sums_groups_in_groups_and_follows_the_registry() {
    let harness = Harness::new().with_options(EngineOptions::default());
    let (records, memberships) = (harness.feed::<PowerRecord>(), harness.feed::<Membership>());
    let seen = harness.seen::<GroupPower>();
    let mut topology = TopologyBuilder::new("uc4");
    let recorded = topology.spout("records", records.spout()).outputs();
    let known = topology.spout("memberships", memberships.spout()).outputs();
    // Late by as much as it may be: what comes back counts, however late it is.
    let powers = uc4(&mut topology, recorded, known, 2, Duration::from_secs(3_600));
    topology.bolt("seen", seen.bolt()).global(powers);
    let run = harness.start(topology.build().unwrap()).await.unwrap();

    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    for membership in tree(2, FIRST) {
        memberships.emit(next(), membership);
    }
    run.settle().await;
    for period in 0..PERIODS + 3 {
        if period == MOVES {
            // Some of its readings of the period are with the group that it leaves.
            for record in readings(period).take(SENSORS as usize) {
                records.emit(next(), record);
            }
            run.settle().await;
            let parents = vec!["g_1_3".to_owned()];
            let at = FIRST + period * PERIOD + 500;
            memberships.emit(next(), Membership { child: "s_5".to_owned(), parents, at });
            run.settle().await;
            for record in readings(period).skip(SENSORS as usize) {
                records.emit(next(), record);
            }
        } else {
            for record in readings(period) {
                records.emit(next(), record);
            }
        }
        run.settle().await;
        // The registry, which is silent, is not waited for.
        run.advance(Duration::from_secs(2)).await;
    }
    // Of each group and window what came last.
    let mut latest: BTreeMap<(i64, String), GroupPower> = BTreeMap::new();
    latest.extend(seen.values().into_iter().map(|power| ((power.end, power.group.clone()), power)));
    for (window, power) in expected() {
        assert_eq!(latest.get(&window), Some(&power), "{window:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uc4_unrolled_sums_each_level_in_the_window_after_the_one_below() {
    const SECONDS: u64 = 23;
    assert_eq!([1, 4, 15, 16, 63, 64, 10_000].map(levels_over), [1, 1, 1, 2, 2, 3, 6]);
    let varied = |n| PowerRecord { value_in_w: below(n, 0, 10_000) as f64 / 8.0, ..record(n, 64, FIRST) };
    let mut found =
        results(SECONDS * 64, varied, |topology, records, tasks| uc4_unrolled(topology, records, tasks, 3))
            .await;
    let mut expected = Vec::new();
    let mut readings: Vec<PowerRecord> = (0..SECONDS * 64).map(varied).collect();
    for level in (0..3_u32).rev() {
        // By window and child, since readings come in the order of their times.
        let mut last: BTreeMap<(i64, u64), f64> = BTreeMap::new();
        for reading in readings {
            let number = reading.identifier.rsplit('_').next().unwrap().parse().unwrap();
            last.insert((reading.timestamp.div_euclid(PERIOD), number), reading.value_in_w);
        }
        let mut groups: BTreeMap<(i64, u64), Vec<f64>> = BTreeMap::new();
        for ((window, child), watts) in last {
            groups.entry((window, child / 4)).or_default().push(watts);
        }
        readings = Vec::new();
        for ((window, number), watts) in groups {
            let identifier =
                if level == 0 { "group_lvl_0".to_owned() } else { format!("g_{level}_{number}") };
            let power = group_power(&identifier, window - FIRST / PERIOD, &watts);
            let (timestamp, value_in_w) = (power.end, power.sum_in_w);
            readings.push(PowerRecord { identifier, timestamp, value_in_w });
            expected.push(power);
        }
    }
    let order = |one: &GroupPower, other: &GroupPower| (one.end, &one.group).cmp(&(other.end, &other.group));
    found.sort_by(order);
    expected.sort_by(order);
    assert_eq!(found, expected);
}
