//! The consumption of real meters, from readings out of order and late, is that which an independent computation gives.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use galerna_consumption::{Calendar, CountedReadings, Step, of_source};
use galerna_model::{AccountId, Measurement, ParameterCode, ParameterRegistry, SourceId, Timestamp};
use galerna_storage::{Readings, ReadingsQuery, Store, StoredReading};

const HOUR: i64 = 3_600_000;

/// Meters of all accounts and both utilities, among them those with the longest gap and with an outage, the one that stands still and one
/// that is stuck.
fn is_wanted(meter: &str, number: usize) -> bool {
    const SPECIAL: [&str; 4] =
        ["Cockatoo_office_Ada.elec", "Shrew_office_Sherill.elec", "Lamb_education_Luz.elec", "UCam_b8.gas"];
    SPECIAL.contains(&meter) || number.is_multiple_of(23)
}

struct Meter {
    source: SourceId,
    zone: String,
    device: String,
    parameter: ParameterCode,
    /// What the counter showed when.
    counter: BTreeMap<i64, f64>,
}

/// The meters of the recorded extract, with counters made of their intervals.
fn meters() -> Vec<Meter> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/energy"));
    let mut meters: BTreeMap<String, Meter> = BTreeMap::new();
    let mut rows = csv::Reader::from_path(folder.join("meters_2017-01_02.csv")).unwrap();
    for (number, row) in rows.records().enumerate() {
        let row = row.unwrap();
        if !is_wanted(&row[0], number) {
            continue;
        }
        let meter = Meter {
            source: SourceId::new(&row[2]).unwrap(),
            zone: row[6].to_owned(),
            device: row[0].to_owned(),
            parameter: ParameterCode(if &row[4] == "gas" { 420 } else { 402 }),
            counter: BTreeMap::new(),
        };
        meters.insert(row[0].to_owned(), meter);
    }
    let file = std::fs::File::open(folder.join("readings_2017-01_02.csv.gz")).unwrap();
    let mut rows = csv::Reader::from_reader(flate2::read::MultiGzDecoder::new(file));
    let mut row = csv::StringRecord::new();
    while rows.read_record(&mut row).unwrap() {
        let Some(meter) = meters.get_mut(&row[3]) else { continue };
        // An empty value is a gap: nothing was sent, and nobody knows what was used.
        let Ok(kwh) = row[6].parse::<f64>() else { continue };
        let total = meter.counter.last_key_value().map_or(0.0, |(_, total)| *total) + kwh;
        meter.counter.insert(Timestamp::parse(&row[5]).unwrap().0, total);
    }
    meters.into_values().filter(|meter| meter.counter.len() > 1).collect()
}

/// What the counter showed, or would have shown between two readings; outside of them what it showed at the nearest.
fn shown(counter: &BTreeMap<i64, f64>, at: i64) -> f64 {
    let before = counter.range(..=at).next_back();
    let after = counter.range(at..).next();
    match (before, after) {
        (Some((t0, v0)), Some((t1, v1))) if t1 > t0 => v0 + (v1 - v0) * (at - t0) as f64 / (t1 - t0) as f64,
        (Some((_, value)), _) | (None, Some((_, value))) => *value,
        (None, None) => unreachable!("a meter has readings"),
    }
}

fn readings(meters: &[Meter]) -> Vec<StoredReading> {
    let of_meter = |meter: &Meter| {
        let reading = |(ts, value): (&i64, &f64)| StoredReading {
            account: AccountId::new(meter.source.as_str()).unwrap(),
            source: meter.source.clone(),
            device: meter.device.clone(),
            ts: Timestamp(*ts),
            sqn: 1,
            values: vec![Measurement { p: meter.parameter, v: *value }],
            flags: Vec::new(),
            received: Timestamp(0),
        };
        meter.counter.iter().map(reading).collect::<Vec<_>>()
    };
    let mut all: Vec<StoredReading> = meters.iter().flat_map(of_meter).collect();
    all.sort_by_key(|reading| reading.ts);
    all
}

/// As they come: in batches of mixed order, a tenth of them some days late, some of them twice.
fn shuffled(readings: Vec<StoredReading>, random: &mut fastrand::Rng) -> Vec<Vec<StoredReading>> {
    let mut timed: Vec<(i64, StoredReading)> = Vec::with_capacity(readings.len());
    for reading in readings {
        let late = if random.u8(0..10) == 0 { random.i64(HOUR..HOUR * 24 * 10) } else { 0 };
        let arrival = reading.ts.0 + random.i64(0..3 * HOUR) + late;
        if random.u8(0..50) == 0 {
            timed.push((arrival + random.i64(0..HOUR * 48), reading.clone()));
        }
        timed.push((arrival, reading));
    }
    timed.sort_by_key(|(arrival, _)| *arrival);
    let readings: Vec<StoredReading> = timed.into_iter().map(|(_, reading)| reading).collect();
    readings.chunks(500).map(<[_]>::to_vec).collect()
}

fn counted(store: &Store, zone: &str) -> CountedReadings {
    let parameters = Arc::new(ParameterRegistry::built_in());
    let calendar = Calendar::of(zone).unwrap();
    CountedReadings::new(store.readings.clone(), store.consumption.clone(), parameters, calendar)
}

async fn check(store: &Store, meters: &[Meter]) {
    let (from, until) = (
        Timestamp::parse("2016-12-30T00:00:00Z").unwrap(),
        Timestamp::parse("2017-03-03T00:00:00Z").unwrap(),
    );
    for meter in meters {
        let calendar = Calendar::of(&meter.zone).unwrap();
        let (first, last) =
            (*meter.counter.keys().next().unwrap(), *meter.counter.keys().next_back().unwrap());
        for (step, from, until) in [
            (Step::Month, from, until),
            (Step::Day, from, until),
            (
                Step::Hour,
                Timestamp::parse("2017-01-20T00:00:00Z").unwrap(),
                Timestamp::parse("2017-02-20T00:00:00Z").unwrap(),
            ),
        ] {
            let device = Some(meter.device.as_str());
            let used = of_source(&*store.consumption, &calendar, &meter.source, device, step, from, until)
                .await
                .unwrap();
            assert_eq!(used.len(), 1, "{}", meter.device);
            let mut sum = 0.0;
            for bar in &used[0].bars {
                let expected = shown(&meter.counter, bar.until.0) - shown(&meter.counter, bar.from.0);
                let what = format!("{} {step:?} {}", meter.device, calendar.text(bar.from, true));
                match bar.used {
                    None => assert!(bar.until.0 <= first || bar.from.0 >= last, "{what}"),
                    Some(used) => {
                        assert!((used - expected).abs() < 1e-6, "{what}: {used}, expected {expected}")
                    }
                }
                sum += bar.used.unwrap_or(0.0);
                assert_eq!(bar.resets, 0, "{what}");
            }
            if step != Step::Hour {
                let all = meter.counter[&last] - meter.counter[&first];
                assert!((sum - all).abs() < 1e-6, "{}: {sum} of {all}", meter.device);
            }
        }
    }
}

#[tokio::test]
async fn the_consumption_of_real_meters_is_right_though_a_tenth_of_the_readings_comes_late() {
    let meters = meters();
    assert!(meters.len() > 12 && meters.iter().any(|meter| meter.zone == "Europe/London"));
    let store = galerna_storage::sqlite::in_memory().unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let mut by_zone: BTreeMap<String, Vec<Meter>> = BTreeMap::new();
    for meter in meters {
        by_zone.entry(meter.zone.clone()).or_default().push(meter);
    }
    for (zone, meters) in &by_zone {
        let counted = counted(&store, zone);
        for batch in shuffled(readings(meters), &mut random) {
            counted.store(&batch).await.unwrap();
        }
        check(&store, meters).await;
    }
}

#[tokio::test]
async fn readings_stored_before_are_counted_when_asked_for() {
    let mut meters = meters();
    meters.truncate(2);
    let store = galerna_storage::sqlite::in_memory().unwrap();
    store.readings.store(&readings(&meters)).await.unwrap();
    for meter in &meters {
        let counted = counted(&store, &meter.zone);
        assert!(counted.recount(&meter.source).await.unwrap() >= 59);
        // Nothing is left to be changed.
        assert_eq!(counted.recount(&meter.source).await.unwrap(), 0);
    }
    check(&store, &meters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_of_one_day_leave_what_all_readings_say() {
    let store = galerna_storage::sqlite::in_memory().unwrap();
    let meter = Meter {
        source: SourceId::new("s").unwrap(),
        zone: "UTC".to_owned(),
        device: "m".to_owned(),
        parameter: ParameterCode(402),
        counter: (0..240).map(|n| (n * HOUR / 10, (n * n) as f64)).collect(),
    };
    let mut all = readings(std::slice::from_ref(&meter));
    fastrand::Rng::with_seed(5).shuffle(&mut all);
    let writers = all.chunks(30).map(|some| {
        let (counted, some) = (counted(&store, "UTC"), some.to_vec());
        tokio::spawn(async move {
            for reading in some {
                counted.store(&[reading]).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(
        store.readings.find(&ReadingsQuery { limit: 999, ..Default::default() }).await.unwrap().len(),
        240
    );
    let calendar = Calendar::of("UTC").unwrap();
    let (from, until) = (Timestamp(0), Timestamp(24 * HOUR));
    let used = of_source(&*store.consumption, &calendar, &meter.source, None, Step::Hour, from, until)
        .await
        .unwrap();
    for (hour, bar) in used[0].bars.iter().enumerate() {
        let expected = shown(&meter.counter, bar.until.0) - shown(&meter.counter, bar.from.0);
        assert!((bar.used.unwrap() - expected).abs() < 1e-6, "hour {hour}");
    }
    assert!(used[0].bars[0].corrections > 0);
}
