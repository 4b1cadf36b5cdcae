//! UC1, UC2 and UC3.

use std::collections::BTreeMap;

use galerna_streams::nexmark::window_end;
use galerna_streams::random::below;
use galerna_streams::theodolite::{FIRST, PowerRecord, record, uc1, uc2, uc3};
use galerna_windows::Summary;

use crate::results;

/// The readings of the benchmark, with values that differ.
fn varied(n: u64) -> PowerRecord {
    PowerRecord { value_in_w: below(n, 0, 10_000) as f64 / 8.0, ..record(n, 7, FIRST) }
}

/// Count, sum, least, greatest and variance, two passes over the values.
fn naive(values: &[f64]) -> (u64, f64, f64, f64, f64) {
    let sum: f64 = values.iter().sum();
    let mean = sum / values.len() as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (values.len() as u64, sum, min, max, variance)
}

/// A summary is that of these values, but for what is lost by another order of additions.
fn assert_summary(summary: &Summary, values: &[f64]) {
    let (count, sum, min, max, variance) = naive(values);
    assert_eq!((summary.count, summary.min, summary.max), (count, min, max));
    let close = |one: f64, other: f64| (one - other).abs() <= 1e-9 * other.abs().max(1.0);
    assert!(close(summary.sum(), sum), "{} is not {sum}", summary.sum());
    assert!(close(summary.variance(), variance), "{} is not {variance}", summary.variance());
}

#[test]
fn records_come_once_a_second_from_each_sensor() {
    let all: Vec<PowerRecord> = (0..70).map(|n| record(n, 7, FIRST)).collect();
    for (sensor, second) in (0..7).flat_map(|sensor| (0..10).map(move |second| (sensor, second))) {
        let second = FIRST + second * 1_000..FIRST + (second + 1) * 1_000;
        let of = |record: &&PowerRecord| record.identifier == format!("s_{sensor}");
        let within = |record: &&PowerRecord| second.contains(&record.timestamp);
        assert_eq!(all.iter().filter(of).filter(within).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uc1_writes_each_record_as_json() {
    let mut written = results(5_000, varied, uc1).await;
    let json = |n| {
        let PowerRecord { identifier, timestamp, value_in_w } = varied(n);
        format!(r#"{{"identifier":"{identifier}","timestamp":{timestamp},"valueInW":{value_in_w:?}}}"#)
    };
    let mut expected: Vec<String> = (0..5_000).map(json).collect();
    written.sort_unstable();
    expected.sort_unstable();
    assert_eq!(written, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uc2_summarises_each_sensor_and_minute() {
    const RECORDS: u64 = 20_000;
    let mut expected: BTreeMap<(i64, String), Vec<f64>> = BTreeMap::new();
    for record in (0..RECORDS).map(varied) {
        let end = (record.timestamp / 60_000 + 1) * 60_000;
        expected.entry((end, record.identifier)).or_default().push(record.value_in_w);
    }
    let results = results(RECORDS, varied, uc2).await;
    assert_eq!(results.len(), expected.len());
    for result in results {
        let values = expected.remove(&(window_end(&result), result.key.clone())).expect("each window once");
        assert_summary(&result.value, &values);
    }
}

/// A reading each 67 minutes, of three sensors in turn.
fn sparse(n: u64) -> PowerRecord {
    let at = FIRST + n as i64 * 67 * 60_000;
    PowerRecord { identifier: format!("s_{}", n % 3), timestamp: at, ..varied(n) }
}

/// The hour of the day in Paris: by summer time until 2020-10-25 and from 2021-03-28 on, 01:00 UTC.
fn hour_in_paris(at: i64) -> i8 {
    let winter = (1_603_587_600_000..1_616_893_200_000).contains(&at);
    ((at / 3_600_000 + if winter { 1 } else { 2 }) % 24) as i8
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uc3_summarises_hours_of_the_day_over_thirty_days() {
    const RECORDS: u64 = 4_500;
    const DAY: i64 = 24 * 3_600_000;
    let mut expected: BTreeMap<(i64, String, i8), Vec<f64>> = BTreeMap::new();
    for record in (0..RECORDS).map(sparse) {
        let first = (record.timestamp / DAY + 1) * DAY;
        for end in (0..30).map(|day| first + day * DAY) {
            let key = (end, record.identifier.clone(), hour_in_paris(record.timestamp));
            expected.entry(key).or_default().push(record.value_in_w);
        }
    }
    let zone = jiff::tz::TimeZone::get("Europe/Paris").unwrap();
    let all = results(RECORDS, sparse, |topology, records, tasks| uc3(topology, records, tasks, zone)).await;
    let complete: Vec<_> = all.into_iter().filter(|result| result.complete).collect();
    assert_eq!(complete.len(), expected.len());
    for result in complete {
        let values = expected.remove(&(result.end, result.identifier.clone(), result.hour));
        assert_summary(&result.drawn, &values.expect("each window once"));
    }
}
